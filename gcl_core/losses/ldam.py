"""LDAMLoss: a wider margin for a rarer class."""

import torch.nn.functional as F
from torch import Tensor

from gcl_core.losses.clouds import Counts, checked_counts
from gcl_core.losses.criterion import Criterion, check_number


class LDAMLoss(Criterion):
    """Label-distribution-aware margin loss (Cao et al. 2019), of cosines.

        loss = -log softmax(scale (cos theta_j - m_y [j = y]))_y
        m_j  = max_margin n_j^(-1/4) / max_k n_k^(-1/4)

    Precision, eval mode (no margin), counts, reduction, shapes and refusals are those of
    `Criterion`.

    Args:
        max_margin: margin of the rarest class, >= 0. Default 0.5: published code.
        scale: s > 0. Default 30: published code.
        check_range: see `GCLLoss`.

    Attributes:
        margins: m, (C,).
    """

    def __init__(
        self,
        class_counts: Counts,
        max_margin: float = 0.5,
        scale: float = 30.0,
        reduction: str = "mean",
        check_range: bool = True,
    ) -> None:
        counts = checked_counts(class_counts)
        check_number("max_margin", max_margin)
        super().__init__(reduction, scale, len(counts), cosines=check_range)
        self.margins: Tensor
        self.register_buffer("margins", (max_margin * (counts.min() / counts) ** 0.25).float())

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) cross-entropies with the target's margin taken from its logit."""
        margin = (self.scale * self.margins[target, None]).to(logits.dtype)
        return F.cross_entropy(
            logits.scatter_add(1, target[:, None], -margin), target, reduction="none"
        )
