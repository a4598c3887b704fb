"""The objective of a stage, by name: what `objective` may be in the settings."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from gcl_core.checked import Checked, value
from gcl_core.clouds import STRATEGIES
from gcl_core.loss import GCLLoss


@dataclass(frozen=True)
class CrossEntropy(Checked):
    """Softmax cross-entropy of the classifier's outputs (Eq. 1)."""

    name: ClassVar[str] = "cross_entropy"
    heads: ClassVar[tuple[str, ...]] = ("linear", "cosine")

    def build(self, class_counts: Tensor, generator: torch.Generator) -> nn.Module:
        """The criterion: `criterion(outputs, target)` is the mean loss."""
        return nn.CrossEntropyLoss()


@dataclass(frozen=True)
class GCL(Checked):
    """Gaussian clouded logits (Eq. 11 and 12)."""

    name: ClassVar[str] = "gcl"
    heads: ClassVar[tuple[str, ...]] = ("cosine",)
    scale: float = value(30.0, "s; 30 in stage 1, 20 in stage 2: published code", above=0)
    noise_multiplier: float = value(
        0.5, "factor of the cloud; 0.5: published code for CIFAR; 1: the paper's formula", low=0
    )
    sigma: float = value(1 / 3, "standard deviation of eps; 1/3: the paper, Sec. 4.2", low=0)
    strategy: str = value(
        "log", "cloud sizes; log: the paper, Eq. 9 and Table 3", allowed=STRATEGIES
    )
    exponent: float | None = value(
        None, "e of strategy power: 1/3, 1/4 in Table 3", above=0, below=1
    )
    margin: float = value(
        0.0, "m taken from the target's cosine; 0 in stage 1, 0.1 in stage 2: published code"
    )
    focal_gamma: float = value(
        0.0, "exponent of the focal factor; 0 in stage 1, 1 in stage 2: published code", low=0
    )

    def build(self, class_counts: Tensor, generator: torch.Generator) -> nn.Module:
        """The criterion: `criterion(cosine, target)` is the mean loss."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return GCLLoss(class_counts, generator=generator, **options)


Objective = CrossEntropy | GCL
OBJECTIVES = {kind.name: kind for kind in (CrossEntropy, GCL)}
