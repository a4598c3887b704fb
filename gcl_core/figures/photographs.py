"""A long tail in photographs: what each class looks like, its images, and who finds it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import ImageOps

from gcl_core.data.dataset import LongTailedDataset
from gcl_core.figures.drawing import Classes, class_axis, draw_counts, group_key, subplots
from gcl_core.figures.looks import style
from gcl_core.figures.series import Series

SHOWN = 20  # classes at most, so that their photographs can be seen
ROWS = 2  # photographs of each
ACROSS = 10.0  # inches


@style()
def photographs(dataset: LongTailedDataset, accuracies: Sequence[Series]) -> Figure:
    """Photographs and training images of each class, largest first, and accuracies as bars below.

    Of more than 20 classes 20 are shown, evenly spaced.

    Args:
        dataset: its images, or the pictures that belong to its features.
        accuracies: percent by class of each method, in the data set's order, with their spread.
    """
    classes = Classes.of(dataset, most=SHOWN)
    number, places = len(classes.order), np.arange(len(classes.order))
    heights = [ROWS * 0.82 * ACROSS / max(number, 6), 1.5, 2.2]
    height = sum(heights) + 1.6 + classes.depth
    figure, every = subplots(ACROSS, height, 3, height_ratios=heights, sharex=True)
    pictures, counts, bars = every
    _draw_pictures(pictures, dataset, classes)
    draw_counts(counts, classes.counts, classes.places)
    counts.set_title("Training images")
    counts.margins(y=0.2)
    width = 0.85 / len(accuracies)
    for i, series in enumerate(classes.arranged(accuracies)):
        shift = (i - (len(accuracies) - 1) / 2) * width
        look: dict[str, Any] = {"color": series.look.colour, "label": series.look.label}
        bars.bar(places + shift, series.values, width, **look)
        if series.spread is not None:
            thin: dict[str, Any] = {"ls": "", "color": "#8A8A8A", "elinewidth": 1.2}
            bars.errorbar(places + shift, series.values, series.spread, **thin)
    bars.set(title="Test images that are recognised (%)", ylim=(0, 100))
    bars.grid(axis="x", visible=False)
    bars.set_axisbelow(True)
    above: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
    bars.legend(ncols=len(accuracies), frameon=False, **above)
    class_axis(bars, classes, counts=False, strip=False)
    for axes in every:
        axes.tick_params(axis="x", length=0)
    group_key(figure, dataset)
    return figure


def _draw_pictures(axes: Axes, dataset: LongTailedDataset, classes: Classes) -> None:
    """The middle of the first training images of each class, one below the other."""
    for place, j in enumerate(classes.order):
        first = (dataset.train.labels == j).nonzero().flatten()[:ROWS].tolist()
        for row, index in enumerate(first, 1):
            where = (place - 0.46, ROWS - row + 0.03, 0.92, 0.94)
            picture = dataset.train.images.picture(index)
            side = min(picture.size)
            inset = axes.inset_axes(where, transform=axes.transData)
            inset.imshow(ImageOps.fit(picture, (side, side)), cmap="gray")
            inset.set_axis_off()
    axes.set(ylim=(0, ROWS), yticks=[])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
