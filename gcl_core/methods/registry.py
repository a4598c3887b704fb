"""The methods of the study, each a declaration: head, objective, sampler, mixup, re-balancing.

What makes a method itself has the values of its own published code, as far as they are known. The
rest of stage 1 is the same for all, for equal terms: 200 epochs, batch 64, rate 0.1, weight decay
2e-4, warm-up and decay of the published GCL code; where a method's own code has other values, its
`source` says so. `resolve` turns a method, a preset and a data set into the `Settings` of a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from gcl_core.data.load import DataSettings
from gcl_core.data.sources import PHOTOGRAPH_LEAST, DatasetKind, kind_of
from gcl_core.errors import GCLError, check_known
from gcl_core.hardware import best_precision, device_kind
from gcl_core.methods.objectives import (
    BBN,
    GCL,
    LADE,
    LDAM,
    OLTR,
    AngularGCL,
    CrossEntropy,
    Equalization,
    Focal,
    HybridPSC,
    HybridSC,
    LabelAware,
    LogitAdjustment,
)
from gcl_core.methods.rebalance import (
    CRT,
    LWS,
    TDE,
    DisAlign,
    MetaEmbed,
    NearestMean,
    PostHoc,
    Rebalancing,
    TauNorm,
)
from gcl_core.methods.recipes import paper_recipe, recipe_of
from gcl_core.methods.reweight import EffectiveNumberByImages, EffectiveNumberWeights, PowerWeights
from gcl_core.methods.sampling import CBEN, ClassBalanced
from gcl_core.methods.settings import Settings, Stage, override
from gcl_core.networks.pretrained import PREFIX, SMALL, pixels_of


@dataclass(frozen=True)
class Method:
    """One row of the paper's tables.

    Attributes:
        summary: one line.
        source: where its settings come from.
        head: the classifier, and what belongs to it: a name in `gcl_core.networks.models`.
        stage1, stage2: official settings.
    """

    summary: str
    source: str
    head: str
    stage1: Stage
    stage2: Stage | None = None


CE = Method(
    summary="softmax cross-entropy, nothing for the tail",
    source="Eq. 1; plain linear head with bias and the schedule of the published code",
    head="linear",
    stage1=Stage(objective=CrossEntropy()),
)

CE_MIXUP = replace(
    CE,
    summary="cross-entropy with mixup",
    source="Zhang et al. 2018; alpha 1 on CIFAR as in MiSLAS and the published GCL code",
    stage1=replace(CE.stage1, mixup_alpha=1.0),
)

BAG_OF_TRICKS = Stage(  # its stage 2 for CIFAR (BagofTricks-LT)
    objective=CrossEntropy(),
    sampler=ClassBalanced(),
    rebalance=CRT(fresh_head=True),
    epochs=30,
    warmup=5 / 30,
    milestones=(1 / 3, 2 / 3),
    weight_decay=5e-4,
)


def _rebalanced(first: Method, rebalance: Rebalancing, summary: str, source: str) -> Method:
    """A method of one stage followed by a re-balancing in the recipe of BagofTricks-LT."""
    return replace(
        first,
        summary=summary,
        source=source,
        stage2=replace(BAG_OF_TRICKS, rebalance=rebalance),
    )


CE_MIXUP_CRT = _rebalanced(
    CE_MIXUP,
    CRT(fresh_head=True),
    "mixup, then the classifier re-trained from new weights on balanced classes",
    "Kang et al. 2020; epochs, rates and decay of BagofTricks-LT's CIFAR recipe; departures: batch "
    "64 (there: 128), batch normalisation stays as stage 1 left it, and classes are drawn with "
    "replacement, where Kang et al. go round each class's images",
)

CE_DRW = replace(
    CE,
    summary="cross-entropy, weighted by class in the last fifth of the epochs",
    source="Cao et al. 2019, deferred re-weighting from epoch 160 of 200, beta 0.9999; their batch "
    "is 128 and their decay 0.01",
    stage1=Stage(class_weights=EffectiveNumberWeights(), deferred=0.8),
)

LDAM_PLAIN = Method(
    summary="margins by class, n^(-1/4)",
    source="Cao et al. 2019; largest margin 0.5, scale 30; their batch is 128, their decay 0.01",
    head="cosine",
    stage1=Stage(objective=LDAM()),
)

LOGIT_ADJUSTMENT = replace(
    CE,
    summary="tau log prior added to the logits in training",
    source="Menon et al. 2021, tau = 1; their CIFAR-10-LT run has 1241 epochs, batch 128 and "
    "Nesterov momentum",
    stage1=Stage(objective=LogitAdjustment()),
)

HYBRID_SC = Method(
    summary="supervised contrast of two views beside cross-entropy on balanced classes",
    source="Wang et al. 2021, as far as known (no code is published): temperature 0.1, parabolic "
    "weight; theirs has batch 512, rate 0.5, weight decay 1e-4, decay at 120 and 160 of 200 epochs "
    "and greyscale at random (0.2); two linear layers project to 128",
    head="contrastive",
    stage1=Stage(objective=HybridSC()),
)

GCL_STAGE1 = Method(
    summary="Gaussian clouded logits with mixup, stage 1 only",
    source="Eq. 11 and 12; scale 30, noise multiplier 0.5, margin 0: published code for CIFAR",
    head="cosine",
    stage1=Stage(objective=GCL(), mixup_alpha=1.0),
)

GCL_CRT = replace(
    GCL_STAGE1,
    summary="the full method: Gaussian clouded logits, then cRT on CBEN samples",
    source="Sec. 3.3; stage 2 of the published code for CIFAR (peak rate 0.002, mixup kept on, "
    "warm head, last stage-1 epoch instead of the best on test). The code's command line defaults "
    "to class-balanced sampling (--stage2-sampler class); the paper and this study use CBEN",
    stage2=Stage(
        objective=GCL(scale=20.0, margin=0.1, focal_gamma=1.0),
        sampler=CBEN(),
        rebalance=CRT(fresh_head=False),
        epochs=30,
        lr=0.002,
        schedule="cosine",
        warmup=0.0,
        mixup_alpha=1.0,
    ),
)

assert GCL_CRT.stage2 is not None

METHODS = {
    "ce": CE,
    "ce_mixup": CE_MIXUP,
    "ce_crt": _rebalanced(
        CE,
        CRT(fresh_head=True),
        "cross-entropy, then the classifier re-trained from new weights on balanced classes",
        CE_MIXUP_CRT.source,
    ),
    "ce_mixup_crt": CE_MIXUP_CRT,
    "ce_lws": _rebalanced(
        CE,
        LWS(),
        "cross-entropy, then one learned scale for each class",
        "Kang et al. 2020, LWS; recipe of BagofTricks-LT for CIFAR; batch, batch normalisation and "
        "drawing of classes as in cRT",
    ),
    "ce_tau_norm": _rebalanced(
        CE,
        TauNorm(),
        "cross-entropy, then weight vectors divided by their length",
        "Kang et al. 2020, tau-normalisation; tau = 1 as BagofTricks-LT for CIFAR, not tuned",
    ),
    "ce_ncm": _rebalanced(
        CE,
        NearestMean(),
        "cross-entropy, then the nearest class mean of the features",
        "Kang et al. 2020, NCM; features centred and of unit length as in classifier-balancing",
    ),
    "ce_drw": CE_DRW,
    "ce_drs": replace(
        CE,
        summary="cross-entropy, on balanced classes in the last fifth of the epochs",
        source="Cao et al. 2019, deferred re-sampling from epoch 160 of 200; their batch is 128 "
        "and their decay 0.01",
        stage1=Stage(sampler=ClassBalanced(), deferred=0.8),
    ),
    "focal": replace(
        CE,
        summary="focal loss: less weight for what is classified well",
        source="Lin et al. 2017 in the softmax form of LDAM-DRW's code, gamma 1; its batch is 128 "
        "and its decay 0.01",
        stage1=Stage(objective=Focal()),
    ),
    "class_balanced": replace(
        CE,
        summary="cross-entropy weighted by the effective number of each class",
        source="Cui et al. 2019, softmax form, beta 0.9999, divided by the number of images as in "
        "their code; their batch is 128 and their decay 0.01",
        stage1=Stage(class_weights=EffectiveNumberByImages()),
    ),
    "class_balanced_focal": replace(
        CE,
        summary="focal loss weighted by the effective number of each class",
        source="Cui et al. 2019, beta 0.9999, gamma 1, divided by the number of images as in their "
        "code; softmax form (theirs is a sigmoid for each class); their batch is 128 and their "
        "decay 0.01",
        stage1=Stage(objective=Focal(), class_weights=EffectiveNumberByImages()),
    ),
    "equalization": replace(
        CE,
        summary="rare classes are spared as negatives of others",
        source="Tan et al. 2020, softmax form; threshold 0.05, gamma 0.9: BagofTricks-LT for "
        "CIFAR-10 only. On CIFAR-100-LT every class has less than a share of 0.05 and would count "
        "as rare: give a --threshold there (that code's default is 0.005). Its batch is 128 and "
        "its decay 0.01",
        stage1=Stage(objective=Equalization()),
    ),
    "ldam": LDAM_PLAIN,
    "ldam_drw": replace(
        LDAM_PLAIN,
        summary="margins by class, and class weights in the last fifth of the epochs",
        source="Cao et al. 2019; largest margin 0.5, scale 30, weights from epoch 160 of 200 with "
        "beta 0.9999; their batch is 128, their decay 0.01",
        stage1=replace(CE_DRW.stage1, objective=LDAM()),
    ),
    "logit_adjustment": LOGIT_ADJUSTMENT,
    "post_hoc": _rebalanced(
        CE,
        PostHoc(),
        "cross-entropy, then tau log prior taken from the logits",
        "Menon et al. 2021, post-hoc logit adjustment, tau = 1 as in their code",
    ),
    "balanced_softmax": replace(
        LOGIT_ADJUSTMENT,
        summary="log class counts added to the logits in training: logit adjustment at tau = 1",
        source="Ren et al. 2020, without their meta sampler; their CIFAR-10-LT run has 13,000 "
        "iterations of batch 512, a cosine from 0.1 and weight decay 5e-4",
    ),
    "lade": replace(
        CE,
        summary="balanced softmax and a regulariser that frees the logits of the label prior",
        source="Hong et al. 2021; weight 0.1, lambda 0.1; their CIFAR-100 runs have rate 0.2, "
        "batch 256, weight decay 5e-4, decay 0.01 at 120 and 160 of 200 epochs. A class that a "
        "batch lacks has no term in the regulariser; their code takes its mean as 0",
        stage1=Stage(objective=LADE()),
    ),
    "label_aware": replace(
        CE,
        summary="label smoothing that is strongest for the head",
        source="the loss of MiSLAS (Zhong et al. 2021) alone, from the start; 0.3 to 0: theirs for "
        "CIFAR-10 at ratio 100 only (others: see mislas)",
        stage1=Stage(objective=LabelAware()),
    ),
    "mislas": replace(
        CE_MIXUP,
        summary="mixup, then label-aware smoothing and learned scales on balanced classes",
        source="Zhong et al. 2021; 10 epochs, cosine from 0.1, classifier at half that rate, "
        "smoothing 0.3 to 0, batch normalisation not shifted: their configuration of CIFAR-10 at "
        "ratio 100 only. Theirs of others, by smoothing of head and tail and the classifier's "
        "factor (--stage2-smooth-head, --stage2-smooth-tail, --stage2-rebalance-head-lr-factor): "
        "CIFAR-10 at 50 0.2, 0, 0.2, at 10 0.1, 0, 0.2; CIFAR-100 at 100 0.4, 0.1, 0.2, at 50 0.3, "
        "0, 0.1, at 10 0.2, 0, 0.1, there with --stage2-rebalance-batch-norm shifted; none at 200. "
        "Batch 64 for equal terms (theirs: 128); classes are drawn with replacement",
        stage2=Stage(
            objective=LabelAware(),
            sampler=ClassBalanced(),
            rebalance=LWS(head_lr_factor=0.5),
            epochs=10,
            schedule="cosine",
            warmup=0.0,
        ),
    ),
    "disalign": replace(
        CE,
        summary="cross-entropy, then a learned calibration of its logits",
        source="Zhang et al. 2021; rho 1.2, 10 epochs, cosine from 0.1, weight decay 5e-4: their "
        "ImageNet-LT configuration, as none for CIFAR is published; batch 64 for equal terms",
        stage2=Stage(
            objective=CrossEntropy(),
            class_weights=PowerWeights(rho=1.2),
            rebalance=DisAlign(),
            epochs=10,
            schedule="cosine",
            warmup=0.0,
            weight_decay=5e-4,
        ),
    ),
    "bbn": Method(
        summary="two branches, one on reversed samples, that take turns from one to the other",
        source="Zhou et al. 2020; alpha = 1 - (epoch / epochs)^2 with epochs from 0; last block "
        "twice; their configurations are of ratio 50, with batch 128 and decay 0.01 at 120 and 160 "
        "of 200 epochs",
        head="bilateral",
        stage1=Stage(objective=BBN()),
    ),
    "hybrid_sc": HYBRID_SC,
    "hybrid_psc": replace(
        HYBRID_SC,
        summary="contrast with learned class prototypes beside cross-entropy on balanced classes",
        source="Wang et al. 2021, as Hybrid-SC; temperature 1 for CIFAR-10 as a third-party "
        "reproduction reports it (CIFAR-100: --temperature 0.1); one view, prototypes of unit "
        "length",
        head="prototypical",
        stage1=Stage(objective=HybridPSC()),
    ),
    "tde": Method(
        summary="cross-entropy on a multi-head classifier, then without the mean feature's "
        "direction",
        source="Tang et al. 2020; two heads, scale 16, gamma 1/32, momentum 0.9, alpha 1: their "
        "code for CIFAR-10 (alpha for CIFAR-100: --stage2-rebalance-alpha 1.5); theirs has BBN's "
        "trunk, rate 0.2, batch 256, weight decay 5e-4 and decay 0.01 at 120 and 160 of 200 epochs",
        head="multi_head",
        stage1=Stage(objective=CrossEntropy()),
        stage2=replace(BAG_OF_TRICKS, rebalance=TDE()),
    ),
    "oltr": replace(
        CE,
        summary="cross-entropy, then attention and a memory of class centroids, all trained on",
        source="Liu et al. 2019; rates, weight decay and steps of their ImageNet-LT configuration, "
        "as none for CIFAR is published; 30 epochs (theirs: 60), batch 64 for equal terms (theirs: "
        "256); centroids are attracted as in their code, outside of the loss's weight; no fully "
        "connected layer before the embedding; classes are drawn with replacement",
        stage2=Stage(
            objective=OLTR(),
            sampler=ClassBalanced(),
            rebalance=MetaEmbed(),
            epochs=30,
            weight_decay=5e-4,
            warmup=0.0,
            milestones=(1 / 3, 2 / 3),
        ),
    ),
    "gcl": GCL_STAGE1,
    "gcl_crt": GCL_CRT,
    "gcl_angular_crt": replace(
        GCL_CRT,
        summary="the cloud on the angle, then cRT on balanced classes",
        source="arXiv 2305.10648 and its code; scale 30, noise multiplier 0.5, easy margin, focal "
        "factor in stage 2: the code's values for Places-LT, as none for CIFAR are published; "
        "mixup, epochs and rates as gcl_crt",
        stage1=replace(GCL_STAGE1.stage1, objective=AngularGCL()),
        stage2=replace(
            GCL_CRT.stage2, objective=AngularGCL(focal_gamma=1.0), sampler=ClassBalanced()
        ),
    ),
}

PRESETS = {
    "official": "the published code's values (200 + 30 epochs); each method's are in its source",
    "paper": "the paper's text where it differs from the code; stage 2's rate is an assumption",
    "short": "official with 60 epochs of stage 1, its schedule in proportion",
    "digits": "official with 120 + 30 epochs: Digits-LT's default, so that a study takes minutes",
    "smoke": "official with 3 + 1 epochs, to see that everything works",
    "pretrained": "classifiers on features of a pre-trained network, as found on validation parts",
}
EPOCHS: dict[str, dict[str, int]] = {
    "short": {"epochs": 60},
    "digits": {"epochs": 120, "stage2_epochs": 30},
    "smoke": {"epochs": 3, "stage2_epochs": 1},
}


def _pretrained(settings: Settings) -> dict[str, Any]:
    """Values of the preset `pretrained`, as they fit the method.

    Scale and weight decay have the largest sum of top-1 and class mean on validation parts of
    `clothes` (features of 256 and of 1,280 numbers, three splits each); rates matter little.
    """
    second = settings.stage2
    parts: list[Any] = [settings.stage1.objective]
    parts += [] if second is None else [second.objective, second.rebalance]
    values: dict[str, Any] = {"epochs": 20, "stage2_epochs": 10}
    if not any(part is not None and part.needs_backbone for part in parts):
        values["trains"] = "head"
    if settings.head == "linear":
        values |= {"weight_decay": 5e-3, "stage2_weight_decay": 5e-3}
    if isinstance(settings.stage1.objective, GCL):
        values["scale"] = 20.0
    if second is not None and isinstance(second.objective, GCL):
        # With balanced samples, a cloud or a margin in stage 2 would count the prior twice.
        values |= {"stage2_noise_multiplier": 0.0, "stage2_margin": 0.0}
    return values


def default_preset(dataset: str, changes: Mapping[str, Any] | None = None) -> str:
    """The preset that runs of a data set have unless told otherwise, with changed settings.

    Raises:
        GCLError: an unknown data set, or a folder that is not there.
    """
    weights = {**_network(dataset, changes or {}), **(changes or {})}.get("weights", "none")
    return kind_of(dataset)[0].preset if weights == "none" else "pretrained"


def _network(dataset: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A pre-trained network for a folder of photographs, unless something else is asked for."""
    kind, path = kind_of(dataset)
    size = changes.get("image_size")
    digits = "" if size is None else str(size)
    small = digits.isdecimal() and len(digits) < 11 and int(digits) < PHOTOGRAPH_LEAST
    told = "network" in changes or "weights" in changes
    if told or small or not kind.photographs(path) or find_spec("timm") is None:
        return {}
    return {"network": SMALL, "weights": "default"}


def _pixels(kind: DatasetKind, network: str) -> dict[str, Any]:
    """How images are made ready for a network of timm."""
    if not network.startswith(PREFIX):
        return {}
    side, mean, std = pixels_of(network)
    in_files = {"augment": "resized_crop", "image_size": side} if kind.in_files else {}
    return {"mean": mean, "std": std, **in_files}


def resolve(
    dataset: str = "digits",
    method: str = "gcl_crt",
    preset: str | None = None,
    *,
    accelerator: str = "auto",
    **changes: Any,
) -> Settings:
    """The settings of a run: a method's stages under a preset, on a data set, with changes on top.

    Args:
        dataset: "digits", "clothes", "cifar10", "cifar100" (or "cifar10:PATH"), or "folder:PATH".
        method: a key of `METHODS`.
        preset: a key of `PRESETS`; None is that of the data set, or "pretrained", if weights are.
        accelerator: where it will run; decides the precision, unless `precision` is changed.
        changes: any setting by its flat name.

    Raises:
        GCLError: an unknown name or a value that is refused; the message has the allowed ones.
    """
    check_known("method", method, METHODS)
    kind, _ = kind_of(dataset)
    recipe = recipe_of(dataset.partition(":")[0], method).changes
    changes = {**_network(dataset, changes), **changes}
    preset = preset or default_preset(dataset, changes)
    check_known("preset", preset, PRESETS)
    if preset == "paper" and recipe:
        raise GCLError("preset 'paper' is for CIFAR: of larger data official is what is known")
    chosen = METHODS[method]
    network = changes.get("network", recipe.get("network", kind.network))
    device = device_kind(accelerator, network)
    settings = Settings(
        data=DataSettings(dataset=dataset, imbalance_ratio=kind.imbalance_ratio),
        stage1=chosen.stage1,
        stage2=chosen.stage2,
        network=network,
        head=chosen.head,
        precision=kind.precision or best_precision(device),
    )
    values = {**_pixels(kind, network), **recipe, **EPOCHS.get(preset, {})}
    if preset == "paper":
        values |= paper_recipe(method).changes
    elif preset == "pretrained":
        values |= _pretrained(settings)
    if settings.stage2 is None:
        values = {name: own for name, own in values.items() if not name.startswith("stage2_")}
    if changes.get("precision") == "auto":
        changes = changes | {"precision": best_precision(device)}
    # What is changed need not go with what it takes the place of.
    values = {name: changes.get(name, own) for name, own in values.items()}
    return override(override(settings, values), changes)
