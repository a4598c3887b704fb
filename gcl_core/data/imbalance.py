"""Long-tailed class counts, the subsets they select, and the many/medium/few groups."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_core.errors import GCLError, check_known
from gcl_core.losses.clouds import Counts, in_class_order

PROFILES = ("exp", "step")
GROUPS = ("many", "medium", "few")
HOW_TO_NUMBER = "number the classes, as numpy.unique(labels, return_inverse=True)[1] does"


def long_tailed_counts(
    n_max: int, num_classes: int, imbalance_ratio: float, profile: str = "exp"
) -> list[int]:
    """Number of training images of each class, head (class 0) first.

    `"exp"`:  n_i = int(n_max * ratio^(-i / (C - 1)))   (Cui et al. 2019; the paper's Sec. 4.1)
    `"step"`: n_max for the first half of the classes, int(n_max / ratio) for the rest (LDAM-DRW)

    Args:
        n_max: images of the head class.
        num_classes: C, at least 2.
        imbalance_ratio: n_max / n_min before rounding down, at least 1.
        profile: `"exp"` or `"step"`.

    Raises:
        GCLError: a value out of range, or a ratio that leaves the last class without an image.
    """
    check_known("profile", profile, PROFILES)
    if num_classes < 2:
        raise GCLError(f"num_classes must be at least 2, got {num_classes}")
    if n_max < 1:
        raise GCLError(f"n_max must be at least 1, got {n_max}")
    if not (math.isfinite(imbalance_ratio) and imbalance_ratio >= 1):
        raise GCLError(f"imbalance_ratio must be a number >= 1, got {imbalance_ratio}")
    if imbalance_ratio > n_max:
        raise GCLError(
            f"imbalance_ratio {imbalance_ratio:g} leaves the last class without an image: "
            f"with {n_max} images in the head class it can be at most {n_max}"
        )
    if profile == "step":
        shares = [1.0 if 2 * i < num_classes else 1 / imbalance_ratio for i in range(num_classes)]
    else:
        shares = [imbalance_ratio ** (-i / (num_classes - 1)) for i in range(num_classes)]
    # The tolerance only undoes rounding: 300 * 3^-1 is 100, not 99.
    return [math.floor(n_max * share + 1e-9) for share in shares]


def class_counts_of(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Count of each class, (C,) int64, for labels (N,) of non-negative integers.

    Raises:
        GCLError: no labels, a negative one, or one that is not below `num_classes` (without it:
            below a million, or N if that is more).
    """
    if labels.numel() == 0:
        raise GCLError("there are no labels")
    low, high = int(labels.min()), int(labels.max())
    # Without a limit one label of 10^9 would make as many counts; N images have N classes at most.
    limit = max(10**6, labels.numel()) if num_classes is None else num_classes
    if low < 0 or high >= limit:
        allowed = f"non-negative integers below {limit}, got {low if low < 0 else high}"
        raise GCLError(f"labels must be {allowed}: {HOW_TO_NUMBER}")
    return torch.bincount(labels.long().flatten(), minlength=num_classes or 0)


def nested_subset(labels: Tensor, class_counts: Counts, generator: torch.Generator) -> Tensor:
    """Indices of a subset with `class_counts[j]` images of class j, in class order.

    Each class is shuffled once and its first n_j images are taken, so that for one seed the
    subset of a larger imbalance ratio lies inside that of a smaller one.

    Raises:
        GCLError: a class has fewer images than asked for.
    """
    counts = in_class_order(class_counts)
    available = class_counts_of(labels, len(counts)).tolist()
    chosen = []
    for j, wanted in enumerate(counts):
        if wanted > available[j]:
            raise GCLError(f"class {j} has {available[j]} images, {wanted} are asked for")
        members = (labels == j).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:wanted]])
    return torch.cat(chosen)


def by_size(class_counts: Sequence[int]) -> list[int]:
    """Class indices from the head to the tail: the most images first, ties in class order."""
    return sorted(range(len(class_counts)), key=lambda j: (-class_counts[j], j))


def class_groups(class_counts: Counts) -> dict[str, list[int]]:
    """Class indices of the many-, medium- and few-shot groups.

    With 100 classes or more, by training images: many > 100, medium 20 to 100, few < 20 (the
    field's rule since OLTR). With fewer classes, where that rule would leave groups empty, by
    rank: the 30 % of classes with the most images are many, the 30 % with the fewest are few
    (3 / 4 / 3 of 10 classes); ties keep class order.
    """
    counts = in_class_order(class_counts)
    if len(counts) >= 100:
        group_of = ["many" if n > 100 else "medium" if n >= 20 else "few" for n in counts]
        return {g: [j for j, its in enumerate(group_of) if its == g] for g in GROUPS}
    ranked = by_size(counts)
    third = max(1, round(0.3 * len(ranked)))
    parts = (ranked[:third], ranked[third:-third], ranked[-third:])
    return {group: sorted(part) for group, part in zip(GROUPS, parts, strict=True)}
