"""Which images an epoch shows, by name: what `sampler` may be in the settings."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from gcl_core.config import Config, kinds_of, value
from gcl_core.data import samplers


class Sampling(Config):
    """A kind of sampling, by its name; its fields are keywords of its sampler."""

    name: ClassVar[str]
    sampler: ClassVar[Any]

    def build(self, labels: Tensor, generator: torch.Generator) -> Any:
        """The sampler of images with these labels (N,)."""
        return self.sampler(labels, generator=generator, **self.keywords())


class InstanceBalanced(Sampling):
    """Every image once an epoch, shuffled."""

    name: ClassVar[str] = "instance"
    sampler = samplers.InstanceBalancedSampler


class ClassBalanced(Sampling):
    """Every class equally often (Kang et al. 2020)."""

    name: ClassVar[str] = "class"
    sampler = samplers.ClassBalancedSampler


class EffectiveNumber(Sampling):
    """Classes by n / effective number (Cui et al. 2019)."""

    name: ClassVar[str] = "effective"
    sampler = samplers.EffectiveNumberSampler
    beta: float = value(sampler, "beta; 0.9999: Cui et al. 2019 for CIFAR", low=0, below=1)


class CBEN(Sampling):
    """Class-based effective number (Eq. 13 and 14)."""

    name: ClassVar[str] = "cben"
    sampler = samplers.CBENSampler
    a: float = value(sampler, "beta of the head; 0.9999: published code", low=0, below=1)
    b: float = value(sampler, "range of beta; 1e-5: published code", below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        samplers.check_cben(self.a, self.b)


class SquareRoot(Sampling):
    """Classes by the square root of their size (Kang et al. 2020)."""

    name: ClassVar[str] = "square_root"
    sampler = samplers.SquareRootSampler


class Reversed(Sampling):
    """Rare classes most often, by 1 / n (BBN, Zhou et al. 2020)."""

    name: ClassVar[str] = "reversed"
    sampler = samplers.ReversedSampler


SAMPLINGS = kinds_of(Sampling)
