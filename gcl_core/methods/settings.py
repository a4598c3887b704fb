"""Every setting of a run, as frozen dataclasses that refuse what is out of range.

A run is described by one `Settings`: the data, the network, stage 1 and (for two-stage methods)
stage 2. Parts that come in kinds, the objective, class weights, the sampler and the re-balancing,
are small dataclasses of their own, chosen by name. `override` changes any single value by its flat
name (`epochs`, `scale`, `stage2_epochs`); the command line, the notebooks and the grids all use it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from gcl_core.config import Config, value
from gcl_core.data.load import DataSettings
from gcl_core.errors import GCLError, check_known, close_to
from gcl_core.hardware import PRECISIONS
from gcl_core.methods.objectives import OBJECTIVES, CrossEntropy, Objective
from gcl_core.methods.rebalance import REBALANCERS, Rebalancing
from gcl_core.methods.reweight import CLASS_WEIGHTS, ClassWeights
from gcl_core.methods.sampling import SAMPLINGS, InstanceBalanced, Sampling
from gcl_core.networks.backbones import BACKBONES
from gcl_core.networks.models import NETWORKS, check_network
from gcl_core.networks.pretrained import PREFIX

KINDS: dict[str, Mapping[str, type]] = {
    "objective": OBJECTIVES,
    "class_weights": CLASS_WEIGHTS,
    "sampler": SAMPLINGS,
    "rebalance": REBALANCERS,
}
TRAINS = ("all", "last_block", "new_block", "norms", "head")
OPTIONAL = ("class_weights",)  # kinds that any stage can be given, or relieved of by "none"


class Stage(Config):
    """One stage of training: its objective, sampler and optimiser.

    Defaults are stage 1 of the published code for CIFAR. SGD without Nesterov momentum; weight
    decay on every weight; the learning rate is set once an epoch by `learning_rate`.
    """

    objective: Objective = CrossEntropy()
    class_weights: ClassWeights | None = None
    sampler: Sampling = InstanceBalanced()
    rebalance: Rebalancing | None = None
    deferred: float = value(
        0.0,
        "share of the epochs before class weights and sampler come into force; 160 of 200: Cao et "
        "al. 2019 (deferred re-balancing); 0: from the start",
        low=0,
        below=1,
    )
    epochs: int = value(
        200, "200: published code, and the author for all methods (issue 2)", low=1, high=10**6
    )
    batch_size: int = value(64, "64: published code; 128: Cao et al. 2019", low=2, high=2**20)
    lr: float = value(
        0.1, "peak learning rate; 0.1: published code, Cao et al. 2019", above=0, high=1000
    )
    momentum: float = value(0.9, "0.9: the paper, Sec. 4.2", low=0, below=1)
    weight_decay: float = value(2e-4, "2e-4: published code, Cao et al. 2019", low=0, high=1000)
    schedule: str = value(
        "multistep",
        "multistep: the paper; cosine: the code's stage 2; constant: more epochs can follow later",
        allowed=("multistep", "cosine", "constant"),
    )
    warmup: float = value(
        0.025, "share of the epochs with a rising rate; 5 of 200: published code", low=0, high=1
    )
    milestones: tuple[float, ...] = value(
        (0.8, 0.9),
        "shares of the epochs after which lr falls; 160, 180 of 200: code",
        above=0,
        below=1,
    )
    decay: float = value(
        0.1, "factor at each milestone; 0.1: published code; 0.01: Cao et al. 2019", above=0, high=1
    )
    mixup_alpha: float = value(
        0.0, "mixup with lambda ~ Beta(alpha, alpha); 0: none; 1: published code", low=0, high=1000
    )
    trains: str | None = value(
        None,
        "what is trained: all, last_block, new_block (the last block from new weights; published "
        "code for Places-LT), norms (normalisation layers and biases), each with the classifier, "
        "or the head, which is the classifier alone; none: all in stage 1, in stage 2 what the "
        "re-balancing changes",
        allowed=TRAINS,
        late=True,
    )
    layer_decay: float = value(
        1.0,
        "factor of the learning rate from each layer of a timm network to the one before it",
        above=0,
        high=1,
        late=True,
    )
    head_start: str = value(
        "random",
        "first weights of a cosine classifier; means: the mean feature of each class (LIFT, Shi et "
        "al. 2024)",
        allowed=("random", "means"),
        late=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective.own_outputs and (self.mixup_alpha or self.class_weights):
            raise GCLError(
                f"objective {self.objective.name!r} has batches and outputs of its own: neither "
                "mixup_alpha nor class_weights can go with it"
            )
        balances = self.class_weights or self.sampler != InstanceBalanced()
        if balances and self.balanced_from == self.epochs:
            raise GCLError(
                f"deferred {self.deferred:g} leaves class weights and sampler none of the "
                f"{self.epochs} epochs; more epochs, or a smaller share"
            )

    @property
    def balanced_from(self) -> int:
        """The first epoch (0-based) in which class weights and sampler are in force."""
        return round(self.deferred * self.epochs)

    @property
    def trained_epochs(self) -> int:
        """Epochs that it trains; 0 where its re-balancing has nothing to train."""
        return 0 if self.rebalance and not self.rebalance.trains else self.epochs


def learning_rate(stage: Stage, epoch: int) -> float:
    """Learning rate of an epoch (0-based).

    Warm-up (the first ceil(warmup * epochs) epochs):  lr * (epoch + 1) / warm-up epochs
    multistep:  lr * decay^(number of milestones m with epoch >= round(m * epochs))
    cosine:     lr / 2 * (1 + cos(pi * epoch / epochs))
    constant:   lr
    """
    warmup_epochs = math.ceil(round(stage.warmup * stage.epochs, 6))
    if epoch < warmup_epochs:
        return stage.lr * (epoch + 1) / warmup_epochs
    if stage.schedule == "constant":
        return stage.lr
    if stage.schedule == "cosine":
        return stage.lr / 2 * (1 + math.cos(math.pi * epoch / stage.epochs))
    passed = sum(epoch >= round(share * stage.epochs) for share in stage.milestones)
    return stage.lr * stage.decay**passed


class Settings(Config):
    """Everything that decides the result of a run, and nothing else."""

    data: DataSettings
    stage1: Stage
    stage2: Stage | None = None
    network: str = value(
        "resnet32",
        f"backbone: {', '.join(BACKBONES)}, or timm:NAME; resnet32: the paper for CIFAR",
    )
    weights: str = value(
        "none",
        "of a network of timm: none (new ones), default (pre-trained, as timm names them) or a "
        "file, safetensors or a weights-only state dict",
        late=True,
    )
    head: str = value(
        "cosine",
        "classifier, and what belongs to it; cosine for gcl, linear for ce: both codes",
        allowed=NETWORKS,
    )
    seed: int = value(
        0, "seed of weights, order, augmentation, mixup and noise", low=0, high=2**32 - 1
    )
    precision: str = value(
        "float32",
        "of convolutions and linear layers; weights, cosines and losses stay float32",
        allowed=PRECISIONS,
    )
    devices: int = value(1, "processes, each with its share of every batch", low=1, high=1024)
    sync_norm: bool = value(
        False,
        "batch normalisation by statistics of all processes, on GPUs; no: each has its own, and "
        "rank 0's are kept (PyTorch's default)",
        late=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_network(self.network)
        if self.weights != "none" and not self.network.startswith(PREFIX):
            raise GCLError(f"weights are for networks of timm, not for {self.network!r}")
        if self.sync_norm and self.devices == 1:
            raise GCLError("sync_norm is for several processes, and devices is 1; leave it out")
        self._fits(self.stage1.objective, "objective", "", self.head)
        if self.stage2 is not None:
            head, rebalance = self.head, self.stage2.rebalance
            if rebalance is not None:
                self._fits(rebalance, "re-balancing", "stage2_rebalance_", head)
                head = rebalance.makes or head
            self._fits(self.stage2.objective, "objective", "stage2_", head)
        self._can_train()

    @property
    def stages(self) -> list[Stage]:
        """Stage 1 and, if there is one, stage 2."""
        return [stage for stage in (self.stage1, self.stage2) if stage is not None]

    @property
    def on_features(self) -> bool:
        """Whether only classifiers are trained, so that features are computed once."""
        return self.stage1.trains == "head" or self.network == "features"

    def _can_train(self) -> None:
        """Refuse what cannot be trained on frozen features, or on a network of timm."""
        first, second, rebalance = self.stage1, self.stage2, None
        if second is not None:
            rebalance = second.rebalance
            if second.head_start != "random":
                raise GCLError("head_start is for stage 1: stage 2 goes on from its classifier")
            if second.trains == "new_block":
                raise GCLError("trains 'new_block' is for stage 1: stage 2 goes on from its block")
        if self.head == "bilateral" and self.network.startswith(PREFIX):
            allowed = ", ".join(BACKBONES)
            raise GCLError(f"head 'bilateral' doubles the last block of {allowed} only")
        if first.head_start == "means" and self.head != "cosine":
            raise GCLError(f"head_start 'means' needs head 'cosine', not {self.head!r}")
        on_features = self.on_features or (second is not None and second.trains == "head")
        if on_features and rebalance is not None and rebalance.on_images:
            raise GCLError(
                f"re-balancing {rebalance.name!r} changes features, by batch_norm 'shifted' or "
                "weights of its own: trains 'head', which keeps them, does not go with it"
            )
        if self.on_features and second is not None and second.trains not in (None, "head"):
            raise GCLError(
                f"stage2_trains {second.trains!r} needs images: stage 1 trains the head alone"
            )

    def _fits(self, part: Objective | Rebalancing, what: str, prefix: str, head: str) -> None:
        if part.needs_backbone and self.on_features:
            reason = "trains 'head' leaves it as it is: take trains all"
            if self.network == "features":
                reason = "network 'features' has none: take images and another network"
            raise GCLError(
                f"{what} {part.name!r} trains the backbone, and {reason}, or another method"
            )
        if head not in part.heads:
            hint = ""
            if head == "cosine" and isinstance(part, CrossEntropy):
                hint = (
                    f"; for cross-entropy of scaled cosines take {prefix}objective gcl (as method "
                    f"gcl has) with {prefix}noise_multiplier 0"
                )
            raise GCLError(
                f"{what} {part.name!r} does not work with head {head!r}; "
                f"allowed: {', '.join(part.heads)}{hint}"
            )
        # Logits in [-1, 1] cannot be sure of any class, and log pi outweighs them.
        if head == "cosine" and part.scaled_for_logits and getattr(part, "scale", 1.0) <= 1:
            raise GCLError(
                f"{what} {part.name!r} does not work with bare cosines: with head 'cosine' "
                f"{prefix}scale must be > 1, such as 30"
            )


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain nested values; a part that comes in kinds carries its name.

    A late field at its default is left out, so that a run keeps the name it had before.
    """
    result: dict[str, Any] = {"name": settings.name} if hasattr(settings, "name") else {}
    for field in dataclasses.fields(settings):
        part = getattr(settings, field.name)
        if field.metadata.get("late") and part == field.default:
            continue
        result[field.name] = to_dict(part) if dataclasses.is_dataclass(part) else part
    return result


def flat_settings(
    settings: Settings, chosen: Mapping[str, Any] | None = None
) -> dict[str, tuple[str, ...]]:
    """Every setting's flat name and the path to it, `{"scale": ("stage1", "objective", "scale")}`.

    Stage 2 has the prefix `stage2_`; own values of a sampler, of class weights and of a
    re-balancing have `sampler_`, `class_weights_` and `rebalance_`.

    Args:
        chosen: parts that come in kinds, by flat name, in place of those that are there.
    """
    names: dict[str, tuple[str, ...]] = {}

    def visit(part: Any, path: tuple[str, ...], prefix: str) -> None:
        for field in dataclasses.fields(part):
            inner, here = getattr(part, field.name), (*path, field.name)
            if field.name in ("data", "stage1"):
                visit(inner, here, "")
            elif field.name == "stage2":
                if inner is not None:
                    visit(inner, here, "stage2_")
            elif field.name in KINDS:
                if inner is not None or field.name in OPTIONAL:
                    names[prefix + field.name] = here
                inner = (chosen or {}).get(prefix + field.name, inner)
                if inner is not None:
                    own = prefix if field.name == "objective" else f"{prefix}{field.name}_"
                    visit(inner, here, own)
            else:
                names[prefix + field.name] = here

    visit(settings, (), "")
    return names


def get_setting(settings: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of `flat_settings`."""
    for name in path:
        settings = getattr(settings, name)
    return settings


def describe(settings: Settings, path: tuple[str, ...]) -> str:
    """Meaning and source of the setting at a path; the allowed names of a part that has kinds."""
    if path[-1] in KINDS:
        none = ["none"] if path[-1] in OPTIONAL else []
        return f"{path[-1]}: {', '.join([*none, *KINDS[path[-1]]])}"
    fields = {f.name: f for f in dataclasses.fields(get_setting(settings, path[:-1]))}
    return str(fields[path[-1]].metadata["text"])


def override(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with some values changed by flat name; text is converted to the field's type.

    Changes are made together, and only what they make is checked: none has to be right without the
    others.

    Raises:
        GCLError: a name that these settings do not have, or a value that is refused.
    """
    paths = flat_settings(settings)
    chosen = {
        name: _part(name, given, get_setting(settings, paths[name]))
        for name, given in changes.items()
        if name in paths and paths[name][-1] in KINDS
    }
    paths = flat_settings(settings, chosen)
    for name in changes:
        if name not in paths:
            hint = close_to(name, paths)
            raise GCLError(f"unknown setting {name!r}{hint}; allowed: {', '.join(sorted(paths))}")
    return _rebuilt(settings, (), {paths[name]: new for name, new in {**changes, **chosen}.items()})


def _part(name: str, given: Any, current: Any) -> Any:
    """The part of the kind that is named: the current one, if it is of that kind, or a new one."""
    kind = name.removeprefix("stage2_")
    kinds: dict[str, Any] = dict(KINDS[kind])
    if kind in OPTIONAL:
        given = "none" if str(given).lower() == "none" else given
        kinds["none"] = lambda: None
    check_known(name, given, kinds)
    return current if getattr(current, "name", None) == given else kinds[given]()


def _rebuilt(part: Any, path: tuple[str, ...], values: Mapping[tuple[str, ...], Any]) -> Any:
    """The part with the values at these paths; each part of it is made, and checked, once."""
    new = {}
    for field in dataclasses.fields(part):
        here = (*path, field.name)
        inner = values.get(here, getattr(part, field.name))
        new[field.name] = _rebuilt(inner, here, values) if isinstance(inner, Config) else inner
    return dataclasses.replace(part, **new)
