"""Losses that add the classes' prior to the logits: logit adjustment and LADE."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_core.losses.clouds import Counts, checked_counts
from gcl_core.losses.criterion import Criterion, check_number


def logit_adjustment(class_counts: Counts, tau: float = 1.0) -> Tensor:
    """Tau log pi_j, (C,) float64, with the prior pi_j = n_j / sum_k n_k (Menon et al. 2021).

    Added to the logits in training, or taken from them afterwards: argmax_j z_j - tau log pi_j.

    Args:
        class_counts: (C,) training images of each class, all positive; see `checked_counts`.
        tau: >= 0. Default 1: published code, and the value that is consistent for the balanced
            error.
    """
    check_number("tau", tau)
    counts = checked_counts(class_counts)
    return tau * (counts / counts.sum()).log()


class LogitAdjustedLoss(Criterion):
    """Logit adjustment in training (Menon et al. 2021); tau 1: balanced softmax (Ren et al. 2020).

        loss = -log softmax(scale z + tau log pi)_y,   pi_j = n_j / sum_k n_k

    Prediction is argmax_j z_j. Precision, eval mode, counts, reduction, shapes and refusals are
    those of `Criterion`.

    Args:
        tau: see `logit_adjustment`.
        scale: > 0, for cosines. Default 1: outputs of a linear classifier.
    """

    def __init__(
        self,
        class_counts: Counts,
        tau: float = 1.0,
        scale: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        adjustment = logit_adjustment(class_counts, tau)
        super().__init__(reduction, scale, len(adjustment))
        self.adjustment: Tensor
        self.register_buffer("adjustment", adjustment.float())

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) cross-entropies of the adjusted logits."""
        return F.cross_entropy(logits + self.adjustment, target, reduction="none")


class LADELoss(LogitAdjustedLoss):
    """LADE (Hong et al. 2021): balanced softmax and a regulariser of the density ratios.

        loss  = -log softmax(z + log pi)_y + weight * LADER
        LADER = -sum_c pi_c (mean_{i: y_i = c} z_ic - r_c - regulariser r_c^2)
        r_c   = log mean_i exp(z_ic - log pi_c + log(1/C))

    over the classes c that the batch has; one that it lacks has no mean, and so no term (the
    published code takes the mean as 0 there and keeps r_c). LADER belongs to the batch: with
    reduction "none" it is added to every sample, so that the mean of the values is "mean".
    Prediction is argmax_j z_j. Precision, eval mode, counts, reduction, shapes and refusals are
    those of `Criterion`.

    Args:
        weight: of LADER, >= 0; 0 is balanced softmax. Default 0.1: published code (iNaturalist
            0.05).
        regulariser: lambda, weight of r_c^2, >= 0. Default 0.1: published code (iNaturalist 0.5).
    """

    def __init__(
        self,
        class_counts: Counts,
        weight: float = 0.1,
        regulariser: float = 0.1,
        reduction: str = "mean",
    ) -> None:
        check_number("weight", weight)
        check_number("regulariser", regulariser)
        super().__init__(class_counts, reduction=reduction)
        self.weight, self.regulariser = weight, regulariser

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) balanced softmax losses, each with the LADER of the batch."""
        return super().losses(logits, target) + self.weight * self.lader(logits, target)

    def lader(self, logits: Tensor, target: Tensor) -> Tensor:
        """LADER of a batch, ()."""
        samples, classes = logits.shape
        members = torch.zeros_like(logits).scatter(1, target[:, None], 1)
        images = members.sum(0)
        mean = (logits * members).sum(0) / images.clamp(min=1)
        ratio = torch.logsumexp(logits - self.adjustment, 0) - math.log(max(samples, 1) * classes)
        bound = mean - ratio - self.regulariser * ratio**2
        return -(self.adjustment.exp() * bound * (images > 0)).sum()
