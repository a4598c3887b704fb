"""Pieces that figures share: lines with labels at their ends, axes of classes, bars, maps, keys."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory
from scipy.optimize import isotonic_regression
from torch import Tensor

from gcl_core.data.dataset import LongTailedDataset
from gcl_core.figures.looks import GROUP_COLOURS
from gcl_core.figures.series import Series


def draw_lines(axes: Axes, x: Sequence[float], lines: Sequence[Series], **more: Any) -> None:
    """Lines with their spread as a band; `more` is handed to matplotlib."""
    for series in lines:
        look, values = series.look, np.asarray(series.values)
        axes.plot(x, values, color=look.colour, ls=look.line, label=look.label, **more)
        if series.spread is not None:
            half = np.asarray(series.spread)
            low, high = values - half, values + half
            axes.fill_between(x, low, high, color=look.colour, alpha=0.13, lw=0)


def label_ends(axes: Axes, x: Sequence[float], lines: Sequence[Series], gap: float = 0.075) -> None:
    """Each line's label as near its right end as `gap` (axes heights) between labels allows.

    Where lines share a colour a piece of the line stands before its label.
    """
    axes.autoscale_view()  # otherwise done only when drawn
    ends = sorted((float(s.values[-1]), i) for i, s in enumerate(lines))
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [float(to_axes.transform((x[-1], value))[1]) for value, _ in ends]
    # With i gaps taken from label i, "apart by a gap" reads "in order": least squares in order.
    gaps = gap * np.arange(len(ends))
    placed = isotonic_regression(np.subtract(wanted, gaps)).x.clip(0, 1 - gaps[-1]) + gaps
    pieces = len({series.look.colour for series in lines}) < len(lines)
    for place, (_, i) in zip(placed, ends, strict=True):
        look = lines[i].look
        if pieces:
            piece = mpl.lines.Line2D([1.015, 1.06], [place, place], color=look.colour, ls=look.line)
            axes.add_artist(piece).set(transform=axes.transAxes, clip_on=False)
        axes.annotate(
            look.label,
            (1.07 if pieces else 1.015, place),
            xycoords="axes fraction",
            color=look.colour,
            va="center",
            size=11.5,
            annotation_clip=False,
        )


def by_class(
    axes: Axes,
    dataset: LongTailedDataset,
    title: str,
    lines: Sequence[Series],
    counts: bool = True,
) -> None:
    """Lines over the classes, head first, with their labels and the axis of classes."""
    classes = range(dataset.num_classes)
    few = dataset.num_classes <= 20
    draw_lines(axes, classes, lines, marker="o" if few else None, ms=5)
    axes.set_title(title)
    label_ends(axes, classes, lines, 0.1)
    class_axis(axes, dataset, counts)


def class_axis(axes: Axes, dataset: LongTailedDataset, counts: bool, strip: bool = True) -> None:
    """Class names (and counts) along x, and a strip in the colours of the groups."""
    number = dataset.num_classes
    step = 1 if number <= 20 else number // 10
    ticks = range(0, number, step)
    names = [short(dataset.class_names[j]) for j in ticks]
    if counts:
        names = [f"{n}\n{dataset.class_counts[j]}" for n, j in zip(names, ticks, strict=True)]
    axes.set_xticks(ticks, names, size=11)
    axes.set_xlim(-0.5, number - 0.5)
    axes.set_xlabel("class" + (" and its training images" if counts else ", head to tail"))
    if strip:
        group_strip(axes, dataset.groups)


def draw_map(axes: Axes, dataset: LongTailedDataset, positions: Tensor, labels: Tensor) -> None:
    """Points of a map: the class's index as glyph for up to 10 classes, a dot for more."""
    points, classes = positions.numpy(), labels.numpy()
    for group, members in dataset.groups.items():
        for j in members:
            x, y = points[classes == j].T
            marker = f"${j}$" if dataset.num_classes <= 10 else "."
            size = 34 if dataset.num_classes <= 10 else 12
            axes.scatter(x, y, size, GROUP_COLOURS[group], marker=marker, lw=0.3)
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="0.8")


def group_key(figure: Figure, dataset: LongTailedDataset) -> None:
    """One line below all panels: the colour of each group, and its classes."""
    handles = [
        mpl.lines.Line2D([], [], color=GROUP_COLOURS[g], marker="s", ls="", ms=10)
        for g in dataset.groups
    ]
    labels = [f"{g}-shot: {_classes(members)}" for g, members in dataset.groups.items()]
    compact = {"handletextpad": 0.0, "columnspacing": 1.0, "fontsize": 12}
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, **compact)


def _classes(members: Sequence[int]) -> str:
    if len(members) > 1 and list(members) == list(range(members[0], members[-1] + 1)):
        return f"classes {members[0]} to {members[-1]}"
    return f"{len(members)} {'class' if len(members) == 1 else 'classes'}"


def legend_below(figure: Figure, lines: Sequence[Series]) -> None:
    """One line below all panels: the look of each line."""
    handles = [mpl.lines.Line2D([], [], color=s.look.colour, ls=s.look.line, lw=2.2) for s in lines]
    labels = [s.look.label for s in lines]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(lines), frameon=False)


def short(name: str, room: int = 6) -> str:
    """A class's name in at most `room` characters."""
    return name if len(name) <= room else name[: room - 1] + "."


def draw_counts(axes: Axes, counts: Sequence[int], groups: Mapping[str, Sequence[int]]) -> None:
    """Bars of the training images of each class, in the colour of its group."""
    for group, members in groups.items():
        heights = [counts[j] for j in members]
        axes.bar(members, heights, 0.85, color=GROUP_COLOURS[group])
        if len(counts) <= 20:
            for j, height in zip(members, heights, strict=True):
                axes.annotate(
                    str(height),
                    (j, height),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    size=11,
                )
    axes.grid(axis="x", visible=False)


def group_strip(axes: Axes, groups: Mapping[str, Sequence[int]]) -> None:
    """A strip along x in the colours of the groups."""
    place = blended_transform_factory(axes.transData, axes.transAxes)
    for group, members in groups.items():
        for j in members:
            axes.fill_between(
                [j - 0.5, j + 0.5], 0, 0.02, transform=place, color=GROUP_COLOURS[group], lw=0
            )
