"""A long tail in photographs: what each class looks like, its images, and who finds it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from gcl_core.data.dataset import LongTailedDataset
from gcl_core.figures.drawing import Classes, class_axis, draw_counts, draw_pictures, group_key
from gcl_core.figures.looks import style
from gcl_core.figures.series import Series

SHOWN = 20  # classes at most, so that their photographs can be seen
ROWS = 2  # photographs of each
ACROSS = 10.0  # inches


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
    with style():
        figure = Figure(figsize=(ACROSS, sum(heights) + 1.6 + classes.depth))
        pictures, counts, bars = figure.subplots(3, 1, height_ratios=heights, sharex=True)
        draw_pictures(pictures, dataset, classes, ROWS)
        draw_counts(counts, classes.counts, classes.places)
        counts.set_title("Training images")
        counts.margins(y=0.2)
        width = 0.85 / len(accuracies)
        for i, series in enumerate(classes.arranged(accuracies)):
            shift = (i - (len(accuracies) - 1) / 2) * width
            look = {"color": series.look.colour, "label": series.look.label}
            bars.bar(places + shift, series.values, width, **look)
            if series.spread is not None:
                thin = {"ls": "", "color": "#8A8A8A", "elinewidth": 1.2}
                bars.errorbar(places + shift, series.values, series.spread, **thin)
        bars.set_title("Test images that are recognised (%)")
        bars.set_ylim(0, 100)
        bars.grid(axis="x", visible=False)
        bars.set_axisbelow(True)
        bars.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=len(accuracies),
            frameon=False,
            borderaxespad=0.2,
        )
        class_axis(bars, classes, counts=False, strip=False)
        for axes in (pictures, counts, bars):
            axes.tick_params(axis="x", length=0)
        group_key(figure, dataset)
        return figure
