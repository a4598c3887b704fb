"""Figures of image folders, whose classes stand in the order of their names: sorted by size here."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from gcl_core.dataset import LongTailedDataset
from gcl_core.figures import GROUP_COLOURS, Series, _group_key, _label_ends, _lines, style

SHOWN = 20  # classes with a name and an image; of more, the largest, the smallest and some between


def folder_overview(dataset: LongTailedDataset) -> Figure:
    """Training images of each class, largest first, in the colours of the groups, an image of each.

    The image is the first of its class. Of more than 20 classes 20 are shown, evenly spaced.
    """
    order = _shown(dataset)
    with style():
        figure = Figure(figsize=(9, 4.4))
        counts, pictures = figure.subplots(2, 1, height_ratios=[2.6, 1], sharex=True)
        group_of = {j: group for group, members in dataset.groups.items() for j in members}
        heights = [dataset.class_counts[j] for j in order]
        colours = [GROUP_COLOURS[group_of[j]] for j in order]
        counts.bar(range(len(order)), heights, 0.85, color=colours)
        for place, height in enumerate(heights):
            counts.annotate(
                str(height),
                (place, height),
                (0, 2),
                textcoords="offset points",
                ha="center",
                size=11,
            )
        counts.set_title("Training images by class, and one of them")
        counts.grid(axis="x", visible=False)
        counts.margins(y=0.12)
        counts.tick_params(axis="x", length=0)
        for place, j in enumerate(order):
            first = int((dataset.train_labels == j).nonzero()[0])
            pixels = dataset.train_images[first].permute(1, 2, 0).numpy()
            axes = pictures.inset_axes(
                (place - 0.42, 0.0, 0.84, 1.0), transform=pictures.transData
            )
            axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray")
            axes.set_axis_off()
        pictures.set(xlim=(-0.6, len(order) - 0.4), ylim=(0, 1), yticks=[])
        pictures.set_xticks(range(len(order)), _names(dataset, order), size=11)
        pictures.tick_params(length=0)
        pictures.grid(visible=False)
        for spine in pictures.spines.values():
            spine.set_visible(False)
        _group_key(figure, dataset)
        return figure


def by_class_size(
    dataset: LongTailedDataset, title: str, lines: Sequence[Series], sizes: Mapping[str, int] = {}
) -> Figure:
    raise NotImplementedError


def _shown(dataset: LongTailedDataset) -> list[int]:
    order = sorted(range(dataset.num_classes), key=lambda j: (-dataset.class_counts[j], j))
    if len(order) <= SHOWN:
        return order
    return [order[i] for i in np.linspace(0, len(order) - 1, SHOWN).round().astype(int)]
