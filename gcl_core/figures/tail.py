"""Figures of a long tail: how many images each class has, and where its test images go."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from gcl_core.data.dataset import LongTailedDataset
from gcl_core.data.imbalance import class_groups, long_tailed_counts
from gcl_core.figures.drawing import HALF, Classes, class_axis, draw_counts
from gcl_core.figures.looks import GROUP_COLOURS, Look, style

RIGHT = "#DDDDDD"  # of images that are classified right: no group's colour


def ratio_looks(ratios: Sequence[float]) -> dict[float, Look]:
    """One look for each imbalance ratio: the greater, the darker; lines differ for up to six."""
    lines = ("-", "--", "-.", ":", (0, (8, 3)), (0, (6, 1, 1, 1, 1, 1)))
    greys = np.linspace(0, 0.6, max(len(ratios), 2))
    ranked = sorted(ratios, reverse=True)
    return {
        ratio: Look(f"ρ = {ratio:g}", mpl.colors.to_hex((greys[i],) * 3), line)
        for i, (ratio, line) in enumerate(zip(ranked, lines * len(ranked), strict=False))
    }


def count_bars(n_max: int, num_classes: int, imbalance_ratio: float, profile: str) -> Figure:
    """Training images of each class at an imbalance ratio, on a linear and a logarithmic axis.

    Args:
        n_max, num_classes, imbalance_ratio, profile: see
            `gcl_core.data.imbalance.long_tailed_counts`.
    """
    counts = long_tailed_counts(n_max, num_classes, imbalance_ratio, profile)
    groups = class_groups(counts)
    with style():
        figure = Figure(figsize=(9, 3.8))
        linear, logarithmic = figure.subplots(1, 2)
        for axes in (linear, logarithmic):
            draw_counts(axes, counts, groups)
            axes.set_xlabel("class, head to tail")
            if len(counts) <= 20:
                axes.set_xticks(range(len(counts)))
        linear.set_title(f"ρ = {imbalance_ratio:g}: {sum(counts)} training images")
        logarithmic.set_title("The same, logarithmic")
        logarithmic.set_yscale("log")
        logarithmic.set_ylim(0.7, 2 * n_max)
        for group, members in groups.items():
            if not members:
                continue
            share = 100 * sum(counts[j] for j in members) / sum(counts)
            linear.annotate(
                f"{group}\n{share:.0f} %",
                (float(np.mean(members)), max(counts[j] for j in members)),
                (0, 20),
                textcoords="offset points",
                ha="center",
                color=GROUP_COLOURS[group],
                weight="bold",
                size=12,
            )
        linear.set_ylim(0, 1.35 * n_max)
        return figure


def destination_bars(
    dataset: LongTailedDataset, panels: Mapping[str, Mapping[str, Tensor]]
) -> Figure:
    """Where the test images of each class go, as stacked bars, one panel for each title.

    Args:
        dataset: its class names and counts.
        panels: what `gcl_core.training.evaluation.destinations` returns, by title.
    """
    classes = Classes.of(dataset, room=HALF)
    with style():
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        below = classes.depth * (1 + len(panels) % columns)  # the lowest of each column
        figure = Figure(figsize=(4.6 * columns, 2.7 * rows + 0.6 + below))
        every = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        colours = {"right": RIGHT, **GROUP_COLOURS}
        for axes, (title, parts) in zip(every.flat, panels.items(), strict=False):
            bottom = np.zeros(len(classes.order))
            for part, values in parts.items():
                height = values.nan_to_num().numpy()[classes.order]
                axes.bar(range(len(bottom)), height, 0.85, bottom, color=colours[part])
                bottom += height
            axes.set(title=title, ylim=(0, 100))
            axes.grid(axis="x", visible=False)
            class_axis(axes, classes, counts=True, strip=False)
            axes.set_xlabel("")
        for axes in every.flat[len(panels) :]:
            axes.set_visible(False)
        for axes in every[:, 0]:
            axes.set_ylabel("% of test images")
        for axes in every.flat[: len(panels)][-columns:]:  # the lowest of each column
            axes.set_xlabel("true class and its training images")
            axes.tick_params(labelbottom=True)
        handles = [Patch(color=RIGHT, label="right")]
        handles += [Patch(color=c, label=f"taken for {g}") for g, c in GROUP_COLOURS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        return figure
