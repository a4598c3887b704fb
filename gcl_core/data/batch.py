"""What one training step sees."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """Inputs of one step and what they should be taken for.

    Shape:
        inputs: (N, ...), or what a network of its own takes in training; target: (N,) int64, or
        what its criterion takes; with mixup, partner: (N,) int64 labels of the images mixed in, and
        share: () weight lambda of `target`.

    Attributes:
        weight: of its mean loss in that of all processes, of which each has a share of the images;
            1 where all have as many.
    """

    inputs: Any
    target: Tensor
    partner: Tensor | None = None
    share: Tensor | None = None
    weight: float = 1.0

    def loss(self, criterion: nn.Module, outputs: Any) -> Tensor:
        """Mean loss; with mixup, lambda L(., target) + (1 - lambda) L(., partner).

        The criterion is called once for each term, so that a random loss draws fresh noise for
        each, as in the published code.
        """
        loss = criterion(outputs, self.target)
        if self.partner is None or self.share is None:
            return loss
        return self.share * loss + (1 - self.share) * criterion(outputs, self.partner)

    def tensors(self) -> list[Tensor]:
        """All that it is made of, in a fixed order."""
        inputs = [self.inputs] if isinstance(self.inputs, Tensor) else [*self.inputs]
        rest = (self.target, self.partner, self.share)
        return inputs + [each for each in rest if each is not None]


class Batches(Protocol):
    """An epoch of batches, drawn anew at each iteration; `len` is their number."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...
    def without_first(self, steps: int) -> "Batches":
        """The same epoch after so many steps; they are drawn, but no image of them is read."""
        ...


@dataclass(frozen=True)
class Paired:
    """Batches of two kinds side by side, for a network with two branches.

    Attributes:
        first, second: as many batches each; the first may show its images in several views.
        share: weight of the first in the loss.

    Shape of its batches:
        inputs: (images of the first, images of the second, share); target: (N, 2) labels of both.
    """

    first: Batches
    second: Batches
    share: float

    def __len__(self) -> int:
        return len(self.first)

    def without_first(self, steps: int) -> "Paired":
        """See `Batches`."""
        first, second = (each.without_first(steps) for each in (self.first, self.second))
        return Paired(first, second, self.share)

    def __iter__(self) -> Iterator[Batch]:
        for first, second in zip(self.first, self.second, strict=True):
            # In bfloat16 it is rounded like all inputs of a network, by 0.4 % of it at most.
            share = torch.full((), self.share, device=second.inputs.device)
            target = torch.stack((first.target[: len(second.target)], second.target), 1)
            yield Batch((first.inputs, second.inputs, share), target, weight=second.weight)
