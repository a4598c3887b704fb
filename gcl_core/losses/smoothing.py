"""LabelAwareSmoothing: softer labels for the head, whose outputs are too sure."""

import math

import torch
from torch import Tensor

from gcl_core.losses.clouds import Counts, checked_counts
from gcl_core.losses.criterion import Criterion, check_number


class LabelAwareSmoothing(Criterion):
    """Label-aware smoothing (Zhong et al. 2021, MiSLAS), concave form.

        loss  = (1 - e_y) (-log p_y) + e_y mean_k(-log p_k),   p = softmax(z)
        e_j   = smooth_tail + (smooth_head - smooth_tail) sin(pi/2 (n_j - n_min) / (n_max - n_min))

    The mean is over all classes, the target too, as in the published code; the paper takes it over
    the others. Precision, eval mode (no smoothing), counts, reduction, shapes and refusals are
    those of `Criterion`.

    Args:
        smooth_head: smoothing of the most frequent class, and of all where counts are equal, in
            [0, 1]. Default 0.3: published code for CIFAR-10-LT, ratio 100 (CIFAR-100-LT: 0.4).
        smooth_tail: smoothing of the rarest class, in [0, 1]. Default 0: as above (0.1).

    Attributes:
        smoothing: e, (C,).
    """

    def __init__(
        self,
        class_counts: Counts,
        smooth_head: float = 0.3,
        smooth_tail: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        counts = checked_counts(class_counts)
        check_number("smooth_head", smooth_head, high=1)
        check_number("smooth_tail", smooth_tail, high=1)
        super().__init__(reduction, classes=len(counts))
        span = counts.max() - counts.min()
        place = (counts - counts.min()) / span if span > 0 else torch.ones_like(counts)
        self.smoothing: Tensor
        smoothing = smooth_tail + (smooth_head - smooth_tail) * torch.sin(math.pi / 2 * place)
        self.register_buffer("smoothing", smoothing.float())

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) cross-entropies against the softened labels."""
        surprise = -logits.log_softmax(1)
        softness = self.smoothing[target].to(logits.dtype)
        own = surprise.gather(1, target[:, None])[:, 0]
        return (1 - softness) * own + softness * surprise.mean(1)
