"""What the losses of the compared methods share: checks, precision, eval mode and reduction."""

import math
import numbers
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.errors import GCLError, check_known

REDUCTIONS = ("mean", "sum", "none")
ROUNDING = 0.01  # a cosine may be this much above 1; bfloat16 rounds to 1 / 256


class Criterion(nn.Module):
    """Base of a loss: a subclass gives `losses`, the value of each sample in training mode.

    In eval mode every loss is the plain cross-entropy of scale * outputs: deterministic, from the
    same outputs as the prediction argmax_j z_j, and comparable between methods. All is computed in
    float32 (float64 for float64 outputs), also under autocast.

    Args:
        class_counts: of the losses that take them: (C,) training images of each class, all
            positive; see `checked_counts`.
        reduction: "mean", "sum", or "none" for (N,) values.
        scale: factor > 0 of the outputs.
        classes: C, or None where any number of classes is welcome.
        cosines: whether (on a CPU) outputs whose first row is not of cosines are refused.

    Shape:
        outputs: (N, C); target: (N,) int64 in [0, C).

    Raises:
        GCLError: an argument out of range, no tensor, a wrong shape, and (on a CPU) a target out of
            range. Outputs that are not finite give a loss that is not finite.
    """

    losses: Callable[..., Tensor]  # (scale * outputs, target, what is given instead of a draw)
    takes = "outputs"  # what messages call them

    def __init__(
        self,
        reduction: str,
        scale: float = 1.0,
        classes: int | None = None,
        cosines: bool = False,
    ) -> None:
        super().__init__()
        check_known("reduction", reduction, REDUCTIONS)
        if not (is_finite(scale) and scale > 0):
            raise GCLError(f"scale must be > 0, got {scale!r}")
        self.reduction, self.scale, self.classes = reduction, scale, classes
        self.cosines = cosines

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss: () for "mean" and "sum", (N,) for "none"."""
        return self._loss(outputs, target)

    def _loss(self, outputs: Tensor, target: Tensor, *given: Tensor | None) -> Tensor:
        outputs = self._checked(outputs)
        check_target(target, outputs)
        logits = self.scale * outputs
        if self.training:
            losses = self.losses(logits, target, *given)
        else:
            losses = F.cross_entropy(logits, target, reduction="none")
        return reduced(losses + nothing_or_nan(logits), self.reduction)

    def _checked(self, outputs: Tensor) -> Tensor:
        """Outputs (N, C) in the precision that all is computed in."""
        check_tensor(self.takes, outputs)
        columns = outputs.shape[1] if outputs.ndim == 2 else 0
        if columns < 2 or columns != (self.classes or columns):
            expected = f"(N, {self.classes})" if self.classes else "(N, C) with C >= 2"
            raise GCLError(f"{self.takes} must be {expected}, got {tuple(outputs.shape)}")
        if self.cosines:
            check_cosines(outputs)
        return to_float32(outputs)


def to_float32(outputs: Tensor) -> Tensor:
    """float32, or float64 if they are, whatever the network computed in."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def traced() -> bool:
    """Whether this is under `torch.compile` or `torch.func`, where tensors have no values yet."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def may_read(values: Tensor) -> bool:
    """Whether checks may look at values: on a CPU, untraced. A GPU is not made to wait."""
    return values.device.type == "cpu" and not traced()


def check_tensor(name: str, given: object) -> None:
    """Refuse what is no tensor: an array, a list."""
    if not isinstance(given, Tensor):
        kind = type(given).__name__
        raise GCLError(f"{name} must be a tensor, got {kind}: give torch.as_tensor({name})")


def check_target(target: Tensor, outputs: Tensor) -> None:
    """Refuse targets that are not one class of (N, C) outputs for each row."""
    rows, classes = outputs.shape
    check_tensor("target", target)
    if target.shape != (rows,):
        hint = ""
        if target.numel() == rows:
            hint = "; give target.flatten()"
        elif target.shape == outputs.shape:
            hint = "; of one-hot labels, give target.argmax(1); "
            hint += "of soft labels, add up the losses of each label times its share, as mixup does"
        shapes = f"({rows},), got {tuple(target.shape)}"
        raise GCLError(f"target must have one entry for each row, {shapes}{hint}")
    if target.dtype != torch.int64:
        raise GCLError(f"target must be int64, got {target.dtype}")
    if may_read(target) and rows and not 0 <= target.min() <= target.max() < classes:
        bad = target[(target < 0) | (target >= classes)][0]
        hint = "leave out rows to be ignored, as outputs[target >= 0] and target[target >= 0] do"
        if bad >= classes:
            hint = f"number the {classes} classes from 0, and leave out rows to be ignored"
        raise GCLError(f"target must be in [0, {classes}), got {bad}; {hint}")


def check_cosines(outputs: Tensor) -> None:
    """Refuse (on a CPU) outputs (N, C) whose first row is not of cosines.

    One row is enough to tell logits from cosines, and costs nothing with 8,142 classes.
    """
    if may_read(outputs) and len(outputs):
        largest = float(outputs[0].detach().abs().max())
        if 1 + ROUNDING < largest < math.inf:
            raise GCLError(
                f"cosine must be in [-1, 1], got {largest:.4g}: give the output of a "
                "CosineClassifier, not logits; the scale is in the loss"
            )


def check_generator(generator: object) -> None:
    """Refuse a seed, or a generator of NumPy, where one of torch is wanted."""
    if not isinstance(generator, torch.Generator | None):
        kind = type(generator).__name__
        hint = "give torch.Generator().manual_seed(0)"
        raise GCLError(f"generator must be a torch.Generator, got {kind}: {hint}")


def nothing_or_nan(outputs: Tensor) -> Tensor:
    """0 for each row of (N, C) outputs, or NaN where one of them is not finite: (N,)."""
    return 0 * outputs.sum(1)


def is_finite(given: object) -> bool:
    """Whether this is a finite number; a tensor is none, for the losses would not train it."""
    return isinstance(given, numbers.Real) and math.isfinite(given)


def check_number(name: str, given: float, high: float = math.inf) -> None:
    """Refuse what is no number in [0, high], or not finite."""
    if not (is_finite(given) and 0 <= given <= high):
        allowed = ">= 0" if high == math.inf else f"in [0, {high:g}]"
        raise GCLError(f"{name} must be {allowed}, got {given!r}")


def lead(logits: Tensor, target: Tensor) -> Tensor:
    """How far the others are ahead of the target, log sum_{j != y} exp z_j - z_y: (N,)."""
    own = target[:, None]
    return logits.scatter(1, own, -torch.inf).logsumexp(1) - logits.gather(1, own)[:, 0]


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """(N,) losses as they are ("none"), or their "mean" or "sum"."""
    return losses if reduction == "none" else getattr(losses, reduction)()
