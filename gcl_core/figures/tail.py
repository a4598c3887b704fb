"""Figures of a long tail: how many images each class has, and a look for each ratio."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gcl_core.data.imbalance import class_groups, long_tailed_counts
from gcl_core.figures.drawing import draw_counts, subplots
from gcl_core.figures.looks import GROUP_COLOURS, Look, style


def ratio_looks(ratios: Sequence[float]) -> dict[float, Look]:
    """One look for each imbalance ratio: the greater, the darker; lines differ for up to six."""
    lines = ("-", "--", "-.", ":", (0, (8, 3)), (0, (6, 1, 1, 1, 1, 1)))
    greys = np.linspace(0, 0.6, max(len(ratios), 2))
    ranked = sorted(ratios, reverse=True)
    return {
        ratio: Look(f"ρ = {ratio:g}", mpl.colors.to_hex((greys[i],) * 3), line)
        for i, (ratio, line) in enumerate(zip(ranked, lines * len(ranked), strict=False))
    }


@style()
def count_bars(n_max: int, num_classes: int, imbalance_ratio: float, profile: str) -> Figure:
    """Training images of each class at an imbalance ratio, on a linear and a logarithmic axis.

    Args:
        n_max, num_classes, imbalance_ratio, profile: see
            `gcl_core.data.imbalance.long_tailed_counts`.
    """
    counts = long_tailed_counts(n_max, num_classes, imbalance_ratio, profile)
    groups = class_groups(counts)
    figure, (linear, logarithmic) = subplots(9, 3.8, columns=2)
    for axes in (linear, logarithmic):
        draw_counts(axes, counts, groups)
        axes.set_xlabel("class, head to tail")
        if len(counts) <= 20:
            axes.set_xticks(range(len(counts)))
    linear.set_title(f"ρ = {imbalance_ratio:g}: {sum(counts)} training images")
    logarithmic.set(title="The same, logarithmic", yscale="log", ylim=(0.7, 2 * n_max))
    look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "size": 12}
    for group, members in groups.items():
        if members:
            of_group = [counts[j] for j in members]
            text = f"{group}\n{100 * sum(of_group) / sum(counts):.0f} %"
            place = float(np.mean(members)), max(of_group)
            colour = GROUP_COLOURS[group]
            linear.annotate(text, place, (0, 20), color=colour, weight="bold", **look)
    linear.set_ylim(0, 1.35 * n_max)
    return figure
