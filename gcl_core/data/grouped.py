"""Images that must stay together, such as those of one person, when parts are made."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gcl_core.errors import GCLError


def read_groups(file: Path, images: Sequence[Path], source: Path) -> list[str]:
    """The group of each image from a CSV file with the columns `image` and `group`.

    `image` is a path inside of `source`, such as `CLASS/IMAGE.jpg`, or the name of a file alone,
    with or without its suffix.

    Raises:
        GCLError: the file cannot be read, lacks a column, names an image twice with different
            groups or two images by one name, or an image has no group.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, ValueError, csv.Error) as error:
        raise GCLError(f"cannot read groups from {file}: {error}") from error
    given: dict[str, str] = {}
    for row in rows:
        image, group = row.get("image"), row.get("group")
        if not image or not group:
            raise GCLError(f"{file} needs the columns image and group, both filled in each line")
        if given.setdefault(image, group) != group:
            raise GCLError(f"{file} has two groups of {image}: {given[image]} and {group}")
    used: dict[str, Path] = {}
    found, lacking = list[str](), list[Path]()
    for image in images:
        inside = image.relative_to(source)
        name = next((n for n in (inside.as_posix(), image.name, image.stem) if n in given), None)
        if name is None:
            lacking.append(inside)
            continue
        if used.setdefault(name, inside) != inside:
            raise GCLError(
                f"{name} in {file} may be {used[name]} or {inside}: give paths inside of {source}"
            )
        found.append(given[name])
    if lacking:
        more = f" (nor have {len(lacking) - 1} more)" if lacking[1:] else ""
        raise GCLError(f"{lacking[0]} has no group in {file}{more}")
    return found


def parts_of_groups(
    labels: Sequence[int], groups: Sequence[str], shares: Sequence[float], seed: int
) -> list[int]:
    """The part of each image, so that whole groups go to one part and each class has its shares.

    All groups start in the last part. In a random order one group after the other is moved to the
    part that brings the shares nearest to those asked for, until no move brings them nearer: the
    sum over parts and classes of squared differences in share, where a class that a part lacks
    counts more than all of these. That is a good split, not always the best one.

    Args:
        labels: (N,) class of each image.
        groups: (N,) group of each image.
        shares: P of them, which sum to 1.
        seed: of the order.

    A class may still lack a part: where it has too few groups, or where no single move mends it.
    """
    names, of = np.unique(np.asarray(groups), return_inverse=True)
    images = np.zeros((len(names), max(labels) + 1), dtype=np.int64)
    np.add.at(images, (of, np.asarray(labels)), 1)
    whole = images.sum(0)
    wanted = np.outer(shares, whole)
    lack = 2 * wanted.size

    def cost(counts: np.ndarray) -> np.ndarray:
        """Of rows of parts (P, C), what each adds to the sum."""
        return (((counts - wanted) / whole) ** 2 + lack * (counts == 0)).sum(1)

    part = np.full(len(names), len(shares) - 1)
    counts = np.zeros_like(wanted)
    counts[-1] = whole
    random = np.random.default_rng(seed)
    moved = True
    while moved:
        moved = False
        for group in random.permutation(len(names)):
            counts[part[group]] -= images[group]
            change = cost(counts + images[group]) - cost(counts)
            best = change.argmin()
            if change[best] < change[part[group]] - 1e-9:  # not for rounding's sake, without end
                part[group], moved = best, True
            counts[part[group]] += images[group]
    return part[of].tolist()
