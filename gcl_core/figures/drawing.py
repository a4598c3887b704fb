"""Pieces that figures share: lines with labels at their ends, axes of classes, bars, maps, keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory
from PIL import ImageOps
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


def draw_lines(axes: Axes, x: Sequence[float], lines: Sequence[Series], **more: Any) -> None:
    """Lines with their spread as a band; `more` is handed to matplotlib."""
    for series in lines:
        look, values = series.look, np.asarray(series.values)
        axes.plot(x, values, color=look.colour, ls=look.line, label=look.label, **more)
        if series.spread is not None:
            below, above = np.broadcast_to(series.spread, (2, len(values)))
            axes.fill_between(
                x, values - below, values + above, color=look.colour, alpha=0.13, lw=0
            )


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
        axes.annotate(
            look.label,
            (1.07 if pieces else 1.015, place),
            xycoords="axes fraction",
            color=look.colour,
            va="center",
            size=11.5,
            annotation_clip=False,
        )


def _last(series: Series) -> float:
    """The last value that is drawn; 0 if none is."""
    return next((float(value) for value in series.values[::-1] if value == value), 0.0)


def by_class(
    axes: Axes, classes: Classes, title: str, lines: Sequence[Series], counts: bool = True
) -> None:
    """Lines over the classes, with their labels and the axis of classes.

    Args:
        lines: a value for each class of the data set, in its order.
    """
    places, arranged = range(len(classes.order)), classes.arranged(lines)
    draw_lines(axes, places, arranged, marker="o" if len(places) <= ALL_NAMED else None, ms=5)
    axes.set_title(title)
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
    if strip:
        group_strip(axes, classes.places)


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
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="0.8")


def group_key(figure: Figure, dataset: LongTailedDataset) -> None:
    """Below all panels the colour of each group, and its classes: by name if there are few."""
    handles = [
        mpl.lines.Line2D([], [], color=GROUP_COLOURS[g], marker="s", ls="", ms=10)
        for g in dataset.groups
    ]
    names = [f"{j} {as_label(name)}" for j, name in enumerate(dataset.class_names)]
    if dataset.class_names == tuple(str(j) for j in range(len(names))):
        names = list(dataset.class_names)
    labels = []
    for group, members in dataset.groups.items():
        text = f"{len(members)} {'class' if len(members) == 1 else 'classes'}"
        if len(names) <= 10:  # as many as a map has glyphs for
            text = ", ".join(names[j] for j in members)
        labels.append(f"{group}-shot: {text}")
    columns = 3 if max(map(len, labels)) < 36 else 1
    compact = {"handletextpad": 0.0, "columnspacing": 1.0, "fontsize": 12}
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, **compact
    )


def legend_below(figure: Figure, lines: Sequence[Series]) -> None:
    """One line below all panels: the look of each line."""
    handles = [mpl.lines.Line2D([], [], color=s.look.colour, ls=s.look.line, lw=2.2) for s in lines]
    labels = [s.look.label for s in lines]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(lines), frameon=False)


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


def draw_pictures(axes: Axes, dataset: LongTailedDataset, classes: Classes, rows: int = 1) -> None:
    """The middle of the first training images of each class, one below the other."""
    for place, j in enumerate(classes.order):
        first = (dataset.train.labels == j).nonzero().flatten()[:rows].tolist()
        for row, index in enumerate(first, 1):
            where = (place - 0.46, rows - row + 0.03, 0.92, 0.94)
            picture = dataset.train.images.picture(index)
            side = min(picture.size)
            inset = axes.inset_axes(where, transform=axes.transData)
            inset.imshow(ImageOps.fit(picture, (side, side)), cmap="gray")
            inset.set_axis_off()
    axes.set(ylim=(0, rows), yticks=[])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def group_strip(axes: Axes, groups: Mapping[str, Sequence[int]]) -> None:
    """A strip along x in the colours of the groups."""
    place = blended_transform_factory(axes.transData, axes.transAxes)
    for group, members in groups.items():
        for j in members:
            axes.fill_between(
                [j - 0.5, j + 0.5], 0, 0.02, transform=place, color=GROUP_COLOURS[group], lw=0
            )
