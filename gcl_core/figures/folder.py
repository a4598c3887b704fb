"""A figure of an image folder: how many images each class has, and what they look like."""

from matplotlib.figure import Figure

from gcl_core.data.dataset import LongTailedDataset
from gcl_core.figures.drawing import Classes, class_axis, draw_counts, draw_pictures, group_key
from gcl_core.figures.looks import style

SHOWN = 20  # classes at most, so that their images can be seen


def folder_overview(dataset: LongTailedDataset) -> Figure:
    """Training images of each class, largest first, in the colours of the groups, an image of each.

    The image is the first of its class. Of more than 20 classes 20 are shown, evenly spaced.
    """
    classes = Classes.of(dataset, most=SHOWN)
    with style():
        figure = Figure(figsize=(9, 4.4 + classes.depth))
        counts, pictures = figure.subplots(2, 1, height_ratios=[2.6, 1], sharex=True)
        draw_counts(counts, classes.counts, classes.places)
        counts.set_title("Training images by class, and one of them")
        counts.margins(y=0.12)
        counts.tick_params(axis="x", length=0)
        draw_pictures(pictures, dataset, classes)
        class_axis(pictures, classes, counts=False, strip=False)
        pictures.set_xlabel("")
        group_key(figure, dataset)
        return figure
