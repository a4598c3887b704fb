"""The paper's protocols: what they change in a method's settings.

On CIFAR, where methods have the values of published code, this is the preset `paper`; on the large
data sets of Table 2 it is `official`. Of these Sec. 4.2 says: "mainly followed Kang et al. except
the learning rate schedule"; all from scratch, but for the ResNet-152 of Places-LT, which is
pre-trained on ImageNet. Code is published for Places-LT only; what no text and no code says is a
guess, and is called one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How a method is trained on one data set.

    Attributes:
        changes: by flat setting name; those of a stage that a method has not are passed over.
        source: where the values are from.
        guess: which of them nobody has published; "" if none.
    """

    changes: Mapping[str, Any]
    source: str
    guess: str = ""

    def __add__(self, other: "Recipe") -> "Recipe":
        """This recipe with the changes of another one on top."""
        parts = ((self.source, other.source), (self.guess, other.guess))
        source, guess = ("; ".join(filter(None, pair)) for pair in parts)
        return Recipe({**self.changes, **other.changes}, source, guess)


# Cao et al. (2019), whom the paper follows for CIFAR (Sec. 4.2).
CAO = Recipe(
    {"batch_size": 128, "decay": 0.01, "stage2_batch_size": 128}, "batch 128, decay by 0.01"
)
# No margin, focal factor or warm head is in the paper; its cRT follows Kang et al. Scale, a and b
# are not in its text either: there the code's values stay.
PAPER_CRT = Recipe(
    {
        "stage2_focal_gamma": 0.0,
        "stage2_mixup_alpha": 0.0,
        "stage2_rebalance_fresh_head": True,
        "stage2_lr": 0.1,
    },
    "cRT as Kang et al.",
    # At the code's 0.002 a new head does not get far.
    "rate of stage 2, BagofTricks-LT's 0.1",
)
PAPER_CLOUD = Recipe({"noise_multiplier": 1.0}, "Eq. 11")
PAPER_CLOUD2 = Recipe({"stage2_noise_multiplier": 1.0, "stage2_margin": 0.0}, "")
PAPER = {
    "gcl": CAO + PAPER_CLOUD,
    "gcl_crt": CAO + PAPER_CLOUD + PAPER_CRT + PAPER_CLOUD2,
    "gcl_angular_crt": CAO + PAPER_CRT,
}


def paper_recipe(method: str) -> Recipe:
    """What the paper's text says of CIFAR otherwise than published code."""
    return PAPER.get(method, CAO)


PHOTOGRAPHS = {"augment": "resized_crop", "image_size": 224, "test_crop": 0.875}
KANG = "Kang et al. 2020 (classifier-balancing): batch 512, rate 0.2, parts of 8 % and more"

COMMON = {
    "imagenet_lt": Recipe(
        {
            **PHOTOGRAPHS,
            "network": "timm:resnet50",
            "epochs": 200,
            "batch_size": 512,
            "lr": 0.2,
            "weight_decay": 5e-4,
        },
        f"{KANG}, jitter 0.4, weight decay 5e-4; 200 epochs for every method: the author (issue 2 "
        "of GCLLoss); several steps instead of a cosine: the paper, Sec. 4.2",
        "steps after 160 and 180 epochs and 5 epochs of warm-up, as on CIFAR",
    ),
    "inat2018": Recipe(
        {
            **PHOTOGRAPHS,
            "mean": (0.466, 0.471, 0.380),
            "std": (0.195, 0.194, 0.192),
            "jitter": 0.0,
            "network": "timm:resnet50",
            "epochs": 200,
            "batch_size": 512,
            "lr": 0.2,
            "weight_decay": 1e-4,
        },
        f"{KANG}, no jitter, weight decay 1e-4, mean and deviation; 200 epochs for every method: "
        "the author (issue 2 of GCLLoss); several steps instead of a cosine: the paper, Sec. 4.2",
        "steps after 160 and 180 epochs and 5 epochs of warm-up, as on CIFAR",
    ),
    "places_lt": Recipe(
        {
            **PHOTOGRAPHS,
            "jitter": 0.0,
            "network": "timm:resnet152.tv_in1k",
            "weights": "default",
            "trains": "new_block",
            "epochs": 90,
            "batch_size": 512,
            "lr": 0.2,
            "weight_decay": 5e-4,
            "warmup": 5 / 90,
            "milestones": (60 / 90, 80 / 90),
        },
        "published GCL code for Places-LT: trunk frozen, the last block new, 90 epochs, batch 512, "
        "rate 0.2, steps after 60 and 80 epochs, weight decay 5e-4, no jitter, torchvision's "
        "weights",
    ),
}

MIXUP = Recipe({"mixup_alpha": 0.2}, "mixup 0.2: MiSLAS and the published GCL code for Places-LT")


def _decoupling(epochs: int, batch: int, lr: float, decay: float, said: str) -> Recipe:
    """Stage 2 of Kang et al.: a cosine from a rate as in stage 1."""
    changes = {
        "stage2_schedule": "cosine",
        "stage2_warmup": 0.0,
        "stage2_epochs": epochs,
        "stage2_batch_size": batch,
        "stage2_lr": lr,
        "stage2_weight_decay": decay,
    }
    text = f"stage 2: Kang et al., {said}; batch normalisation stays as it is (theirs moves)"
    return Recipe(changes, text)


DECOUPLING = {
    "imagenet_lt": _decoupling(10, 512, 0.2, 5e-4, "10 epochs, cosine from 0.2"),
    "inat2018": _decoupling(30, 512, 0.2, 1e-4, "30 epochs, cosine from 0.2"),
    "places_lt": _decoupling(10, 256, 0.1, 5e-4, "10 epochs, batch 256, cosine from 0.1"),
}
MISLAS = Recipe(
    {
        "stage2_epochs": 10,
        "stage2_batch_size": 256,
        "stage2_weight_decay": 5e-4,
        "stage2_smooth_head": 0.3,
        "stage2_smooth_tail": 0.0,
        "stage2_rebalance_head_lr_factor": 0.05,
        "stage2_rebalance_batch_norm": "shifted",
    },
    "stage 2: MiSLAS, 10 epochs, smoothing 0.3 to 0, batch normalisation shifted, classifier at a "
    "twentieth of the rate",
)
DISALIGN = Recipe(
    {"stage2_batch_size": 256}, "stage 2: DisAlign's configuration of ImageNet-LT, rho 1.2"
)
OLTR = Recipe(
    {"stage2_epochs": 60, "stage2_batch_size": 256, "stage2_weight_decay": 5e-4},
    "stage 2: OLTR's configuration of ImageNet-LT, 60 epochs, batch 256",
)
GCL_STAGE1 = Recipe(
    {"scale": 30.0, "noise_multiplier": 0.5},
    "scale 30: published code",
    "noise multiplier 0.5, as on CIFAR (1 on Places-LT)",
)
GCL_STAGE2 = Recipe(
    {
        "stage2_epochs": 30,
        "stage2_batch_size": 512,
        "stage2_scale": 15.0,
        "stage2_mixup_alpha": 0.0,
        "stage2_weight_decay": 5e-4,
    },
    "stage 2: published code for Places-LT, 30 epochs, batch 512, cosine from 0.002, scale 15, "
    "margin 0.1, focal factor 1; CBEN samples as the paper (the code: balanced classes)",
    "no mixup in stage 2: the published code mixes labels but not images, and its author doubts "
    "it there (issue 2)",
)
PLACES_CLOUD = Recipe(
    {"scale": 30.0, "noise_multiplier": 1.0, "stage2_noise_multiplier": 1.0},
    "scale 30, noise multiplier 1: published code for Places-LT",
)


def _on(kind: str) -> dict[str, Recipe]:
    """The recipe of every method of Table 2 on one data set."""
    plain, mixed, two = COMMON[kind], COMMON[kind] + MIXUP, DECOUPLING[kind]
    smooth, aligned, memory, second = MISLAS, DISALIGN, OLTR, GCL_STAGE2
    cloud = PLACES_CLOUD if kind == "places_lt" else GCL_STAGE1
    if kind == "places_lt":
        smooth += Recipe({"stage2_smooth_head": 0.4, "stage2_smooth_tail": 0.1}, "there 0.4 to 0.1")
        memory = Recipe(
            {"stage2_epochs": 30, "stage2_batch_size": 128, "stage2_weight_decay": 5e-4},
            "stage 2: OLTR's configuration of Places-LT, 30 epochs, batch 128",
        )
    if kind == "inat2018":
        decay = Recipe({"stage2_weight_decay": 1e-4}, "", "weight decay 1e-4 in stage 2")
        smooth, second = smooth + decay, second + decay
        aligned += replace(decay, guess="stage 2 as on ImageNet-LT")
        memory += replace(decay, guess="stage 2 as on ImageNet-LT")
    return {
        "ce": plain,
        "ce_mixup": mixed,
        "ldam_drw": plain + Recipe({}, "", "margins and weights as on CIFAR"),
        "oltr": plain + memory,
        "ce_crt": plain + two,
        "ce_lws": plain + two,
        "ce_tau_norm": plain + Recipe({}, "", "tau 1 (Kang et al. choose it on validation)"),
        "ce_ncm": plain,
        "ce_mixup_crt": mixed + two,
        "logit_adjustment": plain + Recipe({}, "", "tau 1 and the schedule of the others"),
        "disalign": plain + aligned,
        "mislas": mixed + smooth,
        "gcl": mixed + cloud,
        "gcl_crt": mixed + cloud + second,
    }


RECIPES = {kind: _on(kind) for kind in COMMON}


def recipe_of(kind: str, method: str) -> Recipe:
    """The recipe of a method on a kind of data set, which changes nothing where there is none.

    A method that Table 2 has no row of is trained as cross-entropy in stage 1, its stage 2 as it
    is declared.
    """
    return RECIPES.get(kind, {}).get(method) or COMMON.get(kind) or Recipe({}, "")
