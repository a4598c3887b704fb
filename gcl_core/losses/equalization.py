"""EqualizationLoss: rare classes are spared the gradients of other classes' samples."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_core.errors import GCLError
from gcl_core.losses.clouds import Counts, checked_counts
from gcl_core.losses.criterion import Criterion, check_generator, check_number


class EqualizationLoss(Criterion):
    """Softmax equalization loss (Tan et al. 2020).

        loss = -log(exp z_y / sum_k w_k exp z_k)
        w_k  = 1 - B_k T(f_k) (1 - [k = y]),   B_k ~ Bernoulli(gamma)

    with T(f) = 1 for a share f_k = n_k / sum n of the images below the threshold, else 0: most
    samples leave the rare classes that are not theirs out of the softmax. In training mode B is
    drawn anew for every sample and class. Precision, eval mode (no class is left out), counts,
    reduction, shapes and refusals are those of `Criterion`.

    Args:
        threshold: lambda in [0, 1]; 0 is cross-entropy. Default 0.05: BagofTricks-LT for
            CIFAR-10-LT (its default for others: 0.005).
        gamma: in [0, 1]; 0 is cross-entropy. Default 0.9: BagofTricks-LT.
        generator: source of B, on the device of the outputs; see `GCLLoss`.

    Shape:
        drop: (N, C) bool, B instead of a draw.
    """

    def __init__(
        self,
        class_counts: Counts,
        threshold: float = 0.05,
        gamma: float = 0.9,
        reduction: str = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        counts = checked_counts(class_counts)
        check_number("threshold", threshold, high=1)
        check_number("gamma", gamma, high=1)
        check_generator(generator)
        super().__init__(reduction, classes=len(counts))
        self.threshold, self.gamma, self.generator = threshold, gamma, generator
        self.rare: Tensor
        self.register_buffer("rare", counts / counts.sum() < threshold)

    def forward(self, outputs: Tensor, target: Tensor, drop: Tensor | None = None) -> Tensor:
        """The loss: () for "mean" and "sum", (N,) for "none"."""
        return self._loss(outputs, target, drop)

    def losses(self, logits: Tensor, target: Tensor, drop: Tensor | None) -> Tensor:
        """(N,) cross-entropies over the classes that remain."""
        if drop is None:
            drop = torch.empty_like(logits, dtype=torch.bool)
            drop.bernoulli_(self.gamma, generator=self.generator)
        elif drop.shape != logits.shape or drop.dtype != torch.bool:
            given = f"{tuple(drop.shape)} {drop.dtype}"
            raise GCLError(f"drop must be {tuple(logits.shape)} torch.bool, got {given}")
        left_out = (drop & self.rare).scatter(1, target[:, None], False)
        return F.cross_entropy(logits.masked_fill(left_out, -torch.inf), target, reduction="none")
