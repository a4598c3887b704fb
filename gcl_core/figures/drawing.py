"""Pieces that figures share: lines with labels at their ends, axes of classes, bars, maps, keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression
from torch import Tensor

from gcl_core.data.dataset import LongTailedDataset
from gcl_core.data.imbalance import by_size
from gcl_core.errors import shown
from gcl_core.figures.looks import GROUP_COLOURS, shades
from gcl_core.figures.series import Series

ALL_NAMED = 20  # classes at most that all have their name at an axis
LONGEST = 22  # characters of a name that are shown
FARTHEST = 1.2  # gaps that a line's label may stand from its end
WIDE, HALF = 72, 36  # characters that fit along the axis of a whole and of half a figure's width
MEAN: dict[str, Any] = {"marker": "D", "ms": 7, "capsize": 5}  # of an error bar
SQUARE: dict[str, Any] = {"marker": "s", "ls": "", "ms": 10}  # of a key


@dataclass(frozen=True)
class Classes:
    """The classes of a data set in the order in which figures show them: the largest first.

    Attributes:
        order: class index at each place; `names`, `counts` and `places` by group follow it.
        room: characters that fit along their axis; longer names stand upright.
    """

    order: list[int]
    names: list[str]
    counts: list[int]
    places: dict[str, list[int]]
    room: int

    @classmethod
    def of(
        cls, dataset: LongTailedDataset, *, most: int | None = None, room: int = WIDE
    ) -> "Classes":
        """All classes, or `most` of them, evenly spaced."""
        order = by_size(dataset.class_counts)
        if most and len(order) > most:
            order = [order[i] for i in np.linspace(0, len(order) - 1, most).round().astype(int)]
        return cls(
            order,
            [as_label(dataset.class_names[j]) or f"({j})" for j in order],
            [dataset.class_counts[j] for j in order],
            {
                group: [place for place, j in enumerate(order) if j in members]
                for group, members in dataset.groups.items()
            },
            room,
        )

    @property
    def named(self) -> range:
        """The places whose classes are named at an axis: all, or about ten."""
        number = len(self.order)
        return range(0, number, 1 if number <= ALL_NAMED else number // 10)

    @property
    def depth(self) -> float:
        """Inches below an axis for names (and counts) that have to stand upright; 0: they lie."""
        longest = max(len(self.names[place]) for place in self.named)
        return 0.09 * (longest + 8) if longest > self.room // len(self.named) else 0.0

    def arranged(self, lines: Sequence[Series]) -> list[Series]:
        """Lines with a value for each class of the data set, in this order."""

        def in_order(values: Any) -> Any:
            return None if values is None else np.asarray(values)[..., self.order].tolist()

        return [
            replace(line, values=in_order(line.values), spread=in_order(line.spread))
            for line in lines
        ]


def as_label(name: str) -> str:
    """A class's name as a figure shows it: in one line, not too long, and no mathematics."""
    text = shown(name)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}…{text[1 - LONGEST // 2 :]}"
    return text.replace("$", r"\$")


def subplots(
    width: float, height: float, rows: int = 1, columns: int = 1, **more: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches, and its panels row by row; `more` as matplotlib has it."""
    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False, **more).flat)


def bare(axes: Axes) -> None:
    """Take ticks, grid and frame from a panel."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def key_below(figure: Figure, looks: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
    """A legend below all panels: labels with how their line or marker looks to matplotlib."""
    handles = [mpl.lines.Line2D([], [], label=label, **look) for label, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", frameon=False, **more)


def draw_lines(axes: Axes, x: Sequence[float], lines: Sequence[Series], **more: Any) -> None:
    """Lines with their spread as a band; `more` is handed to matplotlib."""
    for series in lines:
        look, values = series.look, np.asarray(series.values)
        axes.plot(x, values, color=look.colour, ls=look.line, label=look.label, **more)
        if series.spread is not None:
            below, above = np.broadcast_to(series.spread, (2, len(values)))
            band: dict[str, Any] = {"color": look.colour, "alpha": 0.13, "lw": 0}
            axes.fill_between(x, values - below, values + above, **band)


def label_ends(axes: Axes, x: Sequence[float], lines: Sequence[Series], gap: float = 0.075) -> None:
    """Each line's label as near its right end as `gap` (axes heights) between labels allows.

    Where lines share a colour a piece of the line stands before its label. Where lines meet at the
    end, so that labels would stand far from them, there is a legend instead.
    """
    axes.autoscale_view()  # otherwise done only when drawn
    ends = sorted((_last(series), i) for i, series in enumerate(lines))
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [float(to_axes.transform((x[-1], value))[1]) for value, _ in ends]
    # With i gaps taken from label i, "apart by a gap" reads "in order": least squares in order.
    gaps = gap * np.arange(len(ends))
    placed = isotonic_regression(np.subtract(wanted, gaps)).x.clip(0, 1 - gaps[-1]) + gaps
    if np.abs(placed - np.clip(wanted, 0, 1)).max() > FARTHEST * gap:
        axes.legend(fontsize=11.5, frameon=False, labelcolor="linecolor")
        return
    pieces = len({series.look.colour for series in lines}) < len(lines)
    for place, (_, i) in zip(placed, ends, strict=True):
        look = lines[i].look
        if pieces:
            piece = mpl.lines.Line2D([1.015, 1.06], [place, place], color=look.colour, ls=look.line)
            axes.add_artist(piece).set(transform=axes.transAxes, clip_on=False)
        x_label = 1.07 if pieces else 1.015
        text = {"color": look.colour, "va": "center", "size": 11.5}
        axes.text(x_label, place, look.label, text, transform=axes.transAxes)


def _last(series: Series) -> float:
    """The last value that is drawn; 0 if none is."""
    return next((float(value) for value in series.values[::-1] if value == value), 0.0)


def by_class(
    axes: Axes,
    classes: Classes,
    title: str,
    lines: Sequence[Series],
    counts: bool = True,
    ylim: tuple[float, float | None] | None = None,
) -> None:
    """Lines over the classes, with their labels and the axis of classes.

    Args:
        lines: a value for each class of the data set, in its order.
        ylim: range of y, which labels of lines have to know.
    """
    places, arranged = range(len(classes.order)), classes.arranged(lines)
    draw_lines(axes, places, arranged, marker="o" if len(places) <= ALL_NAMED else None, ms=5)
    axes.set_title(title)
    if ylim is not None:
        axes.autoscale_view()  # for an end that is left open
        axes.set_ylim(*ylim)
    label_ends(axes, places, arranged, 0.1)
    class_axis(axes, classes, counts)


def class_axis(
    axes: Axes, classes: Classes, counts: bool, strip: bool = True, first: float = 0.0
) -> None:
    """Class names (and counts) along x from `first` on, and a strip in the groups' colours."""
    number, ticks = len(classes.order), classes.named
    names, upright = [classes.names[place] for place in ticks], classes.depth > 0
    if counts:
        between = ": " if upright else "\n"
        names = [f"{n}{between}{classes.counts[i]}" for n, i in zip(names, ticks, strict=True)]
    places = [first + place for place in ticks]
    axes.set_xticks(places, names, size=11, rotation=90 if upright else 0)
    axes.set_xlim(first - 0.5, first + number - 0.5)
    axes.set_xlabel("class" + (" and its training images" if counts else ", head to tail"))
    for group, members in classes.places.items() if strip else ():
        look: dict[str, Any] = {"color": GROUP_COLOURS[group], "lw": 0}
        for place in members:
            edges, across = [place - 0.5, place + 0.5], axes.get_xaxis_transform()
            axes.fill_between(edges, 0, 0.02, transform=across, **look)


def draw_map(axes: Axes, dataset: LongTailedDataset, positions: Tensor, labels: Tensor) -> None:
    """Points of a map: for up to 10 classes the class's index, in its own shade of its group."""
    points, classes = positions.numpy(), labels.numpy()
    few = dataset.num_classes <= 10
    for group, members in dataset.groups.items():
        own = shades(GROUP_COLOURS[group], len(members) if few else 1)
        for place, j in enumerate(members):
            x, y = points[classes == j].T
            marker, size = (f"${j}$", 38) if few else (".", 12)
            axes.scatter(x, y, size, marker=marker, color=own[place % len(own)], lw=0.3)
    bare(axes)
    axes.spines[:].set(visible=True, color="0.8")


def group_key(figure: Figure, dataset: LongTailedDataset) -> None:
    """Below all panels the colour of each group, and its classes: by name if there are few."""
    names = [f"{j} {as_label(name)}" for j, name in enumerate(dataset.class_names)]
    if dataset.class_names == tuple(str(j) for j in range(len(names))):
        names = list(dataset.class_names)
    keys = {}
    for group, members in dataset.groups.items():
        text = f"{len(members)} {'class' if len(members) == 1 else 'classes'}"
        if len(names) <= 10:  # as many as a map has glyphs for
            text = ", ".join(names[j] for j in members)
        keys[f"{group}-shot: {text}"] = SQUARE | {"color": GROUP_COLOURS[group]}
    columns = 3 if max(map(len, keys)) < 36 else 1
    key_below(figure, keys, ncols=columns, handletextpad=0.0, columnspacing=1.0, fontsize=12)


def draw_counts(axes: Axes, counts: Sequence[int], groups: Mapping[str, Sequence[int]]) -> None:
    """Bars of the training images of each class, in the colour of its group."""
    above: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "size": 11}
    for group, members in groups.items():
        axes.bar(members, [counts[j] for j in members], 0.85, color=GROUP_COLOURS[group])
        for j in members if len(counts) <= ALL_NAMED else ():
            axes.annotate(str(counts[j]), (j, counts[j]), (0, 2), **above)
    axes.grid(axis="x", visible=False)
