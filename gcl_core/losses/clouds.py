"""Cloud sizes: how far each class's logit is perturbed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gcl_core.errors import GCLError, check_known

STRATEGIES = ("log", "power", "cosine")
Counts = Sequence[int] | Mapping[int, int] | Tensor  # what `in_class_order` takes


def in_class_order(class_counts: Any) -> Any:
    """Counts by label, of a mapping or a pandas Series, as a list; others as they are."""
    if isinstance(class_counts, Mapping):
        by_label = dict(class_counts)
    elif hasattr(class_counts, "index") and hasattr(class_counts, "to_numpy"):
        by_label = dict(zip(class_counts.index, class_counts.to_numpy(), strict=True))
    else:
        return class_counts
    labels = range(len(class_counts))
    if set(by_label) != set(labels):
        given = ", ".join(map(repr, list(by_label)[:5]))
        raise GCLError(
            f"class_counts by label must have the labels 0 to C - 1, each once, got {given}: "
            "number the classes, or list the counts in the order of the classes"
        )
    return [by_label[j] for j in labels]


def checked_counts(class_counts: Counts) -> Tensor:
    """Class counts as a (C,) float64 tensor, refused unless there are two or more, all positive.

    Args:
        class_counts: a tensor, array or list in the order of the classes; or by label, a mapping
            or a pandas Series such as `labels.value_counts()`.
    """
    ordered = in_class_order(class_counts)
    try:
        counts = torch.as_tensor(ordered, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise GCLError(f"class_counts must be numbers, got {type(ordered).__name__}") from None
    if counts.ndim != 1 or counts.numel() < 2:
        raise GCLError(
            f"class_counts must list at least 2 classes, got shape {tuple(counts.shape)}"
        )
    if not bool(torch.isfinite(counts).all()) or bool((counts <= 0).any()):
        j = int((~(torch.isfinite(counts) & (counts > 0))).nonzero()[0])
        hint = "give the training images of each class; leave out a class without any, and number "
        hint += "the others from 0 (labels from 1 to C: take 1 from each)"
        raise GCLError(f"class_counts must be positive, class {j} has {counts[j]:g}: {hint}")
    return counts


def cloud_sizes(
    class_counts: Counts, strategy: str = "log", exponent: float | None = None
) -> Tensor:
    """Cloud size delta_j of each class: 0 for the head, 1 for the rarest class.

    Before division by the maximum, with n_max the largest count:

        "log":    delta_j = log n_max - log n_j           (Eq. 9, the paper's choice)
        "power":  delta_j = n_max^e - n_j^e               (Table 3, e = 1/3 or 1/4)
        "cosine": delta_j = cos(pi/2 * n_j / n_max)       (Table 3, reconstructed)

    The cosine's expression is not legible in the paper's text: it is a cosine, zero at the head.

    Args:
        class_counts: (C,) training images of each class, all positive; see `checked_counts`.
        strategy: one of the three above.
        exponent: e in (0, 1), required by `"power"` and refused by the others.

    Returns:
        (C,) float64 in [0, 1]; all zeros when all counts are equal.

    Raises:
        GCLError: an unknown strategy, an exponent out of range, a count that is not positive.
    """
    counts = checked_counts(class_counts)
    check_strategy(strategy, exponent)
    if exponent is not None:
        sizes = counts.max() ** exponent - counts**exponent
    elif strategy == "log":
        sizes = counts.max().log() - counts.log()
    else:
        sizes = torch.cos(math.pi / 2 * counts / counts.max())
    sizes = torch.where(counts == counts.max(), 0.0, sizes)  # cos(pi/2) is 6e-17
    return sizes / sizes.max() if bool(sizes.max() > 0) else sizes


def check_strategy(strategy: str, exponent: float | None) -> None:
    """Refuse an unknown strategy, `"power"` without its exponent, and another one with it."""
    check_known("strategy", strategy, STRATEGIES)
    if strategy == "power":
        if exponent is None or not 0 < exponent < 1:
            raise GCLError(f"strategy 'power' needs an exponent in (0, 1), got {exponent}")
    elif exponent is not None:
        raise GCLError(f"exponent belongs to strategy 'power', not to {strategy!r}")
