"""Figures of an embedding in the plane, drawn as it is: features, anchors, arcs, clouds."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Wedge
from torch import Tensor

from gcl_core.analysis.planar_network import (
    FewDigits,
    Plane,
    boundaries,
    class_accuracies,
    directions,
)
from gcl_core.data.imbalance import class_groups
from gcl_core.figures.drawing import SQUARE, bare, key_below, subplots
from gcl_core.figures.looks import GROUP_COLOURS, style

RIM = 2.0  # radius of the picture
WIDE_KEY = 9.0  # inches of a figure above which its key is one line
TRAIN, TEST = (1.15, 1.8), (0.25, 1.05)  # rings of the training and of the test images


@dataclass(frozen=True)
class Trained:
    """A plane with what the loss does to its logits in training.

    Attributes:
        plane: what is drawn.
        margins: C mean shifts of the cosines, dashed as the boundary they make; None: none.
        clouds: C full clouds k delta_j, drawn as fans as dense as |eps| is likely; None: none.
    """

    plane: Plane
    margins: Sequence[float] | None = None
    clouds: Sequence[float] | None = None


@style()
def planes(
    data: FewDigits, panels: Mapping[str, Trained], columns: int = 3, size: float = 3.5
) -> Figure:
    """Embeddings in the plane beside each other, every direction and every margin in true size.

    Dots in the outer ring are training images and crosses in the inner one test images; arrows are
    the anchors, the rim is the class that a direction is given to, with its test accuracy. A cosine
    classifier sees no lengths: within a ring the images stand in the order of theirs, evenly.

    Args:
        data: counts and labels.
        panels: what is drawn, by title.
        columns: panels in a row.
        size: width of a panel, in inches.
    """
    groups = class_groups(data.class_counts).items()
    colour_of = {j: GROUP_COLOURS[group] for group, members in groups for j in members}
    colours = [colour_of[j] for j in range(len(colour_of))]
    rows = -(-len(panels) // columns)
    width = size * columns
    key = 0.4 if width > WIDE_KEY else 0.7  # inches
    figure, every = subplots(width, (size + 0.1) * rows + key, rows, columns)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, trained) in zip(every, panels.items(), strict=False):
        _plane(axes, data, trained, colours, dot=2 * size**2)
        axes.set_title(title)
    _key(figure, data, colours)
    return figure


def _plane(
    axes: Axes, data: FewDigits, trained: Trained, colours: Sequence[str], dot: float
) -> None:
    plane = trained.plane
    for boundary in boundaries(plane.anchors):
        _boundary(axes, boundary.angle, "-")
        both = boundary.first, boundary.second
        if trained.clouds is not None:
            for j, sign in zip(both, (1, -1), strict=True):
                sizes = sign * trained.clouds[j] * np.linspace(0, 1, 25)
                _fan(axes, [boundary.moved(float(size)) for size in sizes], colours[j])
        if trained.margins is not None:
            shift = trained.margins[both[0]] - trained.margins[both[1]]
            _boundary(axes, boundary.moved(shift), "--")
        for j, start in ((both[0], boundary.angle - boundary.half), (both[1], boundary.angle)):
            end = start + boundary.half
            axes.add_patch(Wedge((0, 0), RIM, start, end, width=0.1, color=colours[j], lw=0))
    crosses = {"marker": "x", "s": 0.7 * dot, "lw": 1, "alpha": 0.6}
    _points(axes, plane.test, data.test_labels, colours, TEST, **crosses)
    dots = {"marker": "o", "s": dot, "ec": "white", "lw": 0.6, "zorder": 3}
    _points(axes, plane.train, data.train_labels, colours, TRAIN, **dots)
    accuracies = class_accuracies(plane.test, data.test_labels, plane.anchors).tolist()
    arrow = {"arrowstyle": "-|>", "color": "black", "lw": 2, "shrinkA": 0, "shrinkB": 0}
    for j, angle in enumerate(np.radians(directions(plane.anchors).numpy())):
        x, y = np.cos(angle), np.sin(angle)
        tip, start_of = (0.96 * RIM * x, 0.96 * RIM * y), (0.72 * RIM * x, 0.72 * RIM * y)
        axes.annotate("", tip, start_of, arrowprops=arrow, zorder=4)
        text = f"{data.class_names[j]}: {accuracies[j]:.0f} %"
        look = {"color": colours[j], "weight": "bold", "va": "center"}
        if abs(y) > 0.7:  # above or below the circle
            axes.text(1.05 * RIM * x, np.copysign(1.22 * RIM, y), text, look, ha="center")
        else:
            axes.text(1.07 * RIM * x, 1.07 * RIM * y, text, look, ha="left" if x > 0 else "right")
    axes.set(xlim=(-2.2, 3.3), ylim=(-2.7, 2.7), aspect="equal")
    bare(axes)


def _boundary(axes: Axes, angle: float, line: str) -> None:
    x, y = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    axes.plot([0, RIM * x], [0, RIM * y], color="black", ls=line, lw=1.3, zorder=2)


def _fan(axes: Axes, angles: Sequence[float], colour: str) -> None:
    """Wedges from a boundary to where a full cloud moves it, as dense as |eps| is likely."""
    for i, (one, other) in enumerate(itertools.pairwise(angles)):
        likely = float(np.exp(-((3 * i / (len(angles) - 1)) ** 2) / 2))
        low, high = sorted((one, other))
        axes.add_patch(Wedge((0, 0), RIM, low, high, color=colour, alpha=0.5 * likely, lw=0))


def _points(
    axes: Axes,
    points: Tensor,
    labels: Tensor,
    colours: Sequence[str],
    ring: tuple[float, float],
    **more: object,
) -> None:
    rank = points.norm(dim=1).argsort().argsort() / max(1, len(points) - 1)
    radius, angle = ring[0] + (ring[1] - ring[0]) * rank, directions(points).deg2rad()
    shown = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    for j, colour in enumerate(colours):
        x, y = shown[labels == j].T.numpy()
        axes.scatter(x, y, color=colour, **{"zorder": 2, **more})  # type: ignore[arg-type]


def _key(figure: Figure, data: FewDigits, colours: Sequence[str]) -> None:
    classes = zip(data.class_names, data.class_counts, colours, strict=True)
    keys = {f"{name}: {count} images": SQUARE | {"color": c} for name, count, c in classes}
    for label, marker in (("training (outer ring)", "o"), ("test (inner)", "x")):
        keys[label] = {"color": "0.3", "marker": marker, "ls": "", "ms": 7}
    columns = 5 if figure.get_figwidth() > WIDE_KEY else 3
    key_below(figure, keys, ncols=columns, handletextpad=0.1, columnspacing=1.0, fontsize=12)
