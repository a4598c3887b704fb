"""Weights of the classes in the loss: what `class_weights` may be in the settings.

A weighted objective is sum_i w(y_i) L_i / sum_i w(y_i) over a batch, the weighted mean of PyTorch's
own `cross_entropy`. Weights add up to the number of classes.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from gcl_core.checked import Checked, value
from gcl_core.clouds import checked_counts
from gcl_core.samplers import effective_weights


@dataclass(frozen=True)
class EffectiveNumberWeights(Checked):
    """w_j = (1 - beta) / (1 - beta^n_j) (Cui et al. 2019)."""

    name: ClassVar[str] = "effective"
    beta: float = value(
        0.9999,
        "beta of the class weights; 0.9999: Cui et al. 2019, Cao et al. 2019",
        low=0,
        below=1,
    )

    def weights(self, class_counts: Tensor) -> Tensor:
        """(C,) float64, adding up to C."""
        return _normalised(effective_weights(checked_counts(class_counts), self.beta))


@dataclass(frozen=True)
class PowerWeights(Checked):
    """w_j = n_j^(-rho): rho = 1 is inverse frequency, rho = 0 no weights."""

    name: ClassVar[str] = "power"
    rho: float = value(1.0, "exponent of the class weights; 1.2: DisAlign for ImageNet-LT", low=0)

    def weights(self, class_counts: Tensor) -> Tensor:
        """(C,) float64, adding up to C."""
        return _normalised(checked_counts(class_counts) ** -self.rho)


def _normalised(weights: Tensor) -> Tensor:
    return weights * (len(weights) / weights.sum())


class Reweighted(nn.Module):
    """The weighted mean of a criterion over a batch.

    Args:
        criterion: gives a loss for each sample, (N,) (reduction "none").
        weights: (C,) weight of each class.
    """

    def __init__(self, criterion: nn.Module, weights: Tensor) -> None:
        super().__init__()
        self.criterion = criterion
        self.weights: Tensor
        self.register_buffer("weights", weights.float())

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        weight = self.weights[target]
        return (weight * self.criterion(outputs, target)).sum() / weight.sum()


ClassWeights = EffectiveNumberWeights | PowerWeights
CLASS_WEIGHTS = {kind.name: kind for kind in (EffectiveNumberWeights, PowerWeights)}
