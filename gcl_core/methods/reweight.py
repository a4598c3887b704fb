"""Weights of the classes in the loss: what `class_weights` may be in the settings.

A weighted objective is sum_i w(y_i) L_i / sum_i w(y_i) over a batch, the weighted mean of PyTorch's
own `cross_entropy`, as in LDAM-DRW's code; or sum_i w(y_i) L_i / N, as in the code of Cui et al.
Weights add up to the number of classes.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from gcl_core.config import Config, kinds_of, value
from gcl_core.data.samplers import effective_weights
from gcl_core.losses.clouds import checked_counts
from gcl_core.processes import several, summed


class ClassWeights(Config):
    """A kind of class weights, by its name."""

    name: ClassVar[str]
    by_images: ClassVar[bool] = False  # whether the losses of a batch are divided by their number

    def weights(self, class_counts: Tensor) -> Tensor:
        """(C,) float64, adding up to C."""
        weights = self._of(checked_counts(class_counts))
        return weights * (len(weights) / weights.sum())

    def _of(self, counts: Tensor) -> Tensor:
        """The same up to a factor, of counts (C,) float64."""
        raise NotImplementedError


class EffectiveNumberWeights(ClassWeights):
    """w_j = (1 - beta) / (1 - beta^n_j) (Cui et al. 2019), in the weighted mean of LDAM-DRW."""

    name: ClassVar[str] = "effective"
    beta: float = value(
        0.9999,
        "beta of the class weights; 0.9999: Cui et al. 2019, Cao et al. 2019",
        low=0,
        below=1,
    )

    def _of(self, counts: Tensor) -> Tensor:
        return effective_weights(counts, self.beta)


class EffectiveNumberByImages(EffectiveNumberWeights):
    """The same, divided by the number of images (class-balanced-loss, cifar_main.py)."""

    name: ClassVar[str] = "effective_by_images"
    by_images = True


class PowerWeights(ClassWeights):
    """w_j = n_j^(-rho): rho = 1 is inverse frequency, rho = 0 no weights."""

    name: ClassVar[str] = "power"
    rho: float = value(1.0, "exponent of the class weights; 1.2: DisAlign for ImageNet-LT", low=0)

    def _of(self, counts: Tensor) -> Tensor:
        return counts**-self.rho


class Reweighted(nn.Module):
    """The weighted mean of a criterion over a batch.

    Args:
        criterion: gives a loss for each sample, (N,) (reduction "none").
        weights: (C,) weight of each class.
        by_images: divide by the number of samples instead of the sum of their weights.
    """

    def __init__(self, criterion: nn.Module, weights: Tensor, *, by_images: bool = False) -> None:
        super().__init__()
        self.criterion, self.by_images = criterion, by_images
        self.weights: Tensor
        self.register_buffer("weights", weights.float())

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        weight = self.weights[target]
        losses = weight * self.criterion(outputs, target)
        return losses.mean() if self.by_images else losses.sum() / _of_all_processes(weight)


def _of_all_processes(weight: Tensor) -> Tensor:
    """Sum of the weights (N,) of a batch; in several processes N times the mean of all of them.

    Each process trains on its share of a batch, and its loss counts by the size of that share.
    """
    if not several():
        return weight.sum()
    total = summed(torch.stack((weight.sum(), weight.new_full((), len(weight)))))
    return len(weight) * total[0] / total[1]


CLASS_WEIGHTS = kinds_of(ClassWeights)
