"""Figures of image folders, whose classes are numbered by name: here they stand by size."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from gcl_core.data.dataset import LongTailedDataset
from gcl_core.figures.drawing import (
    draw_counts,
    draw_lines,
    group_key,
    group_strip,
    label_ends,
    short,
)
from gcl_core.figures.looks import style
from gcl_core.figures.series import Series

SHOWN = 20  # classes at most, so that their names can be read


def folder_overview(dataset: LongTailedDataset) -> Figure:
    """Training images of each class, largest first, in the colours of the groups, an image of each.

    The image is the first of its class. Of more than 20 classes 20 are shown, evenly spaced.
    """
    order = _shown(dataset)
    with style():
        figure = Figure(figsize=(9, 4.4))
        counts, pictures = figure.subplots(2, 1, height_ratios=[2.6, 1], sharex=True)
        draw_counts(counts, [dataset.class_counts[j] for j in order], _places(dataset, order))
        counts.set_title("Training images by class, and one of them")
        counts.margins(y=0.12)
        counts.tick_params(axis="x", length=0)
        for place, j in enumerate(order):
            first = int((dataset.train.labels == j).nonzero()[0])
            pixels = dataset.train.images.pixels[first].permute(1, 2, 0).numpy()
            axes = pictures.inset_axes((place - 0.42, 0.0, 0.84, 1.0), transform=pictures.transData)
            axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray")
            axes.set_axis_off()
        pictures.set(xlim=(-0.6, len(order) - 0.4), ylim=(0, 1), yticks=[])
        pictures.set_xticks(range(len(order)), _names(dataset, order), size=11)
        pictures.tick_params(length=0)
        pictures.grid(visible=False)
        for spine in pictures.spines.values():
            spine.set_visible(False)
        group_key(figure, dataset)
        return figure


def accuracy_by_size(dataset: LongTailedDataset, lines: Sequence[Series]) -> Figure:
    """Accuracy of each class in percent, largest class first, one line for each method.

    Of more than 20 classes 20 are shown, evenly spaced.

    Args:
        dataset: its class counts, names and groups.
        lines: (C,) values each, in the data set's order of classes.
    """
    order = _shown(dataset)
    with style():
        figure = Figure(figsize=(9, 4))
        axes = figure.subplots()
        ordered = [
            replace(
                line,
                values=[line.values[j] for j in order],
                spread=None if line.spread is None else [line.spread[j] for j in order],
            )
            for line in lines
        ]
        places = range(len(order))
        draw_lines(axes, places, ordered, marker="o", ms=5)
        axes.set(title="Test accuracy (%)", xlim=(-0.5, len(order) - 0.5), ylim=(-3, 103))
        counts = [dataset.class_counts[j] for j in order]
        names = [f"{name}\n{n}" for name, n in zip(_names(dataset, order), counts, strict=True)]
        axes.set_xticks(places, names, size=11)
        axes.set_xlabel("class and its training images")
        group_strip(axes, _places(dataset, order))
        label_ends(axes, places, ordered, 0.1)
        return figure


def _places(dataset: LongTailedDataset, order: Sequence[int]) -> dict[str, list[int]]:
    """Places of the classes in `order` by group."""
    return {
        group: [place for place, j in enumerate(order) if j in members]
        for group, members in dataset.groups.items()
    }


def _shown(dataset: LongTailedDataset) -> list[int]:
    order = sorted(range(dataset.num_classes), key=lambda j: (-dataset.class_counts[j], j))
    if len(order) <= SHOWN:
        return order
    return [order[i] for i in np.linspace(0, len(order) - 1, SHOWN).round().astype(int)]


def _names(dataset: LongTailedDataset, order: Sequence[int]) -> list[str]:
    """Class names, cut to the room that there is for each."""
    room = max(6, 72 // len(order))
    return [short(dataset.class_names[j], room) for j in order]
