"""Figures of the lab: photographs, two Gaussians on a line, paired differences."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL.Image import Image

from gcl_core.data.dataset import LongTailedDataset
from gcl_core.figures.drawing import (
    MEAN,
    Classes,
    as_label,
    class_axis,
    draw_counts,
    group_key,
    subplots,
)
from gcl_core.figures.looks import GROUP_COLOURS, style


@style()
def image_rows(rows: Mapping[str, Sequence[tuple[Image, str]]]) -> Figure:
    """Images in rows, each with a title on its left and a word below every image.

    Args:
        rows: images with their words, by the row's title; at least one image in all.
    """
    columns = max(len(images) for images in rows.values())
    figure, every = subplots(1.35 * columns + 1.6, 1.75 * len(rows), len(rows), columns)
    for axes in every:
        axes.set(xticks=[], yticks=[], frame_on=False)
    for number, (title, images) in enumerate(rows.items()):
        row = every[number * columns :]
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", size=12)
        for axes, (image, word) in zip(row, images, strict=False):
            axes.imshow(np.asarray(image), cmap="gray", aspect="equal")
            axes.set_xlabel(as_label(word), size=10)
    return figure


@style()
def class_counts(dataset: LongTailedDataset) -> Figure:
    """Training images of each class as bars, the most first, on a logarithmic axis."""
    classes = Classes.of(dataset)
    figure, (axes,) = subplots(8.5, 3.5 + classes.depth)
    draw_counts(axes, classes.counts, classes.places)
    axes.set(yscale="log", ylim=(0.7, 2 * max(classes.counts)))
    axes.set_title("Training images by class (logarithmic)")
    class_axis(axes, classes, counts=False, strip=False)
    group_key(figure, dataset)
    return figure


@style()
def prior_shift(share: float) -> Figure:
    """Two classes on a line, N(-1, 1) and N(1, 1), times their shares; where they are equal.

    Args:
        share: of the class around 1, in (0, 1).
    """
    x = np.linspace(-4, 5, 361)
    boundary = np.log((1 - share) / share) / 2
    figure, (axes,) = subplots(8.5, 3.6)
    many, few = GROUP_COLOURS["many"], GROUP_COLOURS["few"]
    for middle, part, colour, name in ((-1, 1 - share, many, "common"), (1, share, few, "rare")):
        density = np.exp(-((x - middle) ** 2) / 2) / np.sqrt(2 * np.pi)
        axes.plot(x, part * density, color=colour, label=f"{name}, {part:.0%}")
        axes.plot(x, density / 2, color=colour, lw=1, ls=":")
        lost = x < boundary if middle > 0 else x > boundary
        axes.fill_between(x[lost], part * density[lost], color=colour, alpha=0.25)
    axes.axvline(0, color="0.5", lw=1, ls=":")
    axes.axvline(boundary, color="black", lw=1.5)
    axes.set(xlabel="$x$", yticks=[], xlim=(-4, 5), ylim=(0, None))
    axes.set_title(f"Density times share; equal at x = {boundary:.2f}")
    axes.legend(frameon=False, title="dotted: equal shares")
    return figure


@style()
def paired_intervals(
    differences: Mapping[str, Sequence[float]], intervals: Mapping[str, tuple[float, float]]
) -> Figure:
    """One row for each method: a dot for each seed, mean and interval, and the line of no gain.

    Args:
        differences: in points, seed by seed, by the method's name.
        intervals: mean and half length of each.
    """
    figure, (axes,) = subplots(8.5, 0.7 * len(differences) + 1.2)
    for row, (name, values) in enumerate(differences.items()):
        mean, half = intervals[name]
        axes.errorbar([mean], [row], xerr=[half], color="black", **MEAN)
        axes.plot(values, np.full(len(values), row - 0.25), "o", color="0.5", alpha=0.6, ms=5)
    axes.axvline(0, color="#D55E00", lw=1.5)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.set(ylim=(len(differences) - 0.5, -0.6), xlabel="difference to cross-entropy, points")
    axes.grid(axis="y", visible=False)
    return figure
