"""The charts of the study: functions from data to a matplotlib Figure, in one visual language.

Labels on the lines instead of legends, the same axes where things are compared; `looks` has the
colours, `drawing` the pieces. No pyplot state is used.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gcl_core.analysis.intervals import interval
from gcl_core.data.dataset import LongTailedDataset
from gcl_core.figures.drawing import (
    ALL_NAMED,
    HALF,
    MEAN,
    Classes,
    by_class,
    class_axis,
    draw_counts,
    draw_lines,
    draw_map,
    group_key,
    key_below,
    label_ends,
    subplots,
)
from gcl_core.figures.looks import METHOD_LOOKS, style
from gcl_core.figures.series import Series, number, over_seeds


def record_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Training loss, top-1 and few-shot accuracy by epoch of run records that have a history.

    One line for each method: the mean over its records, which have to be of one protocol, and over
    a twentieth of a stage's epochs, as a single run jumps from epoch to epoch.
    """
    titles = {"train_loss": "Training loss", "top1": "Top-1 (%)", "few": "Few-shot classes (%)"}

    def line(method: str, key: str) -> Series:
        rows = [
            [each for stage in record["history"] for each in _smoothed(stage, key)]
            for record in records
            if record["method"] == method
        ]
        return over_seeds(METHOD_LOOKS[method], rows)

    methods = list(dict.fromkeys(record["method"] for record in records))
    panels = {title: [line(method, key) for method in methods] for key, title in titles.items()}
    two = [r["epochs"][0] for r in records if any(r["epochs"][1:])]
    return training_curves(panels, stage2_starts=two[0] if two else None)


def _smoothed(stage: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Running mean of a column, centred; fewer epochs at the ends."""
    values, reach = [number(row[key]) for row in stage], len(stage) // 40
    return [float(np.mean(values[max(0, i - reach) : i + reach + 1])) for i in range(len(values))]


@style()
def gradient_curves(differences: Sequence[float], curves: Sequence[Series]) -> Figure:
    """Gradient on the target logit against the logit difference, one curve for each cloud.

    Args:
        differences: (n,) clean z_y - z_j along x.
        curves: their values, 1 - p_y at each difference, and looks.
    """
    figure, (plain, logarithmic) = subplots(9, 4, columns=2)
    for axes in (plain, logarithmic):
        draw_lines(axes, differences, curves)
        axes.set_xlabel("clean logit difference $z_y - z_j$")
    plain.set_title("Gradient $1 - p_y$")
    logarithmic.set(title="The same, logarithmic", yscale="log", ylim=(1e-6, 2))
    label_ends(plain, differences, curves)
    return figure


@style()
def values_by_class(
    dataset: LongTailedDataset,
    panels: Mapping[str, Sequence[Series]],
    *,
    percent: bool = False,
    floor: Mapping[str, float] | None = None,
) -> Figure:
    """One panel below the other, each with one line for each method over the classes, head first.

    Args:
        dataset: its class names, counts and groups are drawn along x.
        panels: title and lines of each; every line has C values, in the data set's order.
        percent: whether all values are shares from 0 to 100, which then is the range of y.
        floor: smallest value that is shown of panels that are logarithmic, by their title.
    """
    classes = Classes.of(dataset)
    height = 1.2 + 2.7 * len(panels) + classes.depth
    figure, every = subplots(8.5, height, len(panels), sharex=True)
    for axes, (title, lines) in zip(every, panels.items(), strict=True):
        if floor and title in floor:
            highest = max(max(series.values) for series in lines)
            axes.set(yscale="log", ylim=(floor[title], max(1.2, 1.3 * highest)))
        by_class(axes, classes, title, lines, ylim=(-3, 103) if percent else None)
    for axes in every[:-1]:
        axes.set_xlabel("")
    keys = [[series.look for series in lines] for lines in panels.values()]
    for axes, key in zip(every[1:], keys[1:], strict=True):
        if key == keys[0] and every[0].get_legend() and (own := axes.get_legend()):
            own.remove()  # the first panel's says it for all
    return figure


@style()
def training_curves(
    panels: Mapping[str, Sequence[Series]], stage2_starts: int | None = None
) -> Figure:
    """Panels side by side, each with one line for each method over the epochs.

    Args:
        panels: title and lines of each; lines may differ in length.
        stage2_starts: epochs of stage 1, where a vertical line separates the stages.
    """
    figure, every = subplots(3.3 * len(panels) + 0.6, 4, columns=len(panels))
    for axes, (title, lines) in zip(every, panels.items(), strict=True):
        for series in lines:
            draw_lines(axes, range(1, len(series.values) + 1), [series])
        if stage2_starts:
            axes.axvline(stage2_starts + 0.5, color="0.5", lw=1)
            place = axes.get_xaxis_transform()
            axes.text(stage2_starts + 1, 0.99, "stage 2", transform=place, va="top", size=10)
        axes.set(title=title, xlabel="epoch")
        if "%" in title:
            axes.set_ylim(-3, 103)
    looks = [series.look for series in next(iter(panels.values()))]
    keys = {look.label: {"color": look.colour, "ls": look.line, "lw": 2.2} for look in looks}
    key_below(figure, keys, ncols=len(keys))
    return figure


@style()
def sweeps(
    x: Sequence[float],
    xlabel: str,
    panels: Mapping[str, Sequence[Series]],
    ylabel: str = "test accuracy (%)",
    *,
    doubling: bool = False,
) -> Figure:
    """Percentages against a setting or the epoch, panels side by side with the same axes.

    Args:
        x: (n,) values of what is changed.
        xlabel: what it is.
        panels: title and lines of each; every line has n values.
        ylabel: what the percentages are of.
        doubling: equal steps along x are equal factors, from 1 on; 0 has its own place.
    """
    width = min(4.6, 11 / len(panels)) * len(panels) + 0.6
    figure, every = subplots(width, 4.2, columns=len(panels), sharey=True)
    for axes, (title, lines) in zip(every, panels.items(), strict=True):
        draw_lines(axes, x, lines, marker="o")
        axes.set(title=title, xlabel=xlabel, ylim=(-3, 103))
        if doubling:
            axes.set_xscale("symlog", linthresh=1)
            ticks = [at for at in (0, 1, 3, 10, 30, 100, 300) if at <= max(x)]
            axes.set_xticks(ticks, map(str, ticks))
            axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        label_ends(axes, x, lines)
    every[0].set_ylabel(ylabel)
    return figure


@style()
def confusion_maps(
    dataset: LongTailedDataset, confusions: Mapping[str, Sequence[Sequence[int]]]
) -> Figure:
    """Which class is taken for which, as heat maps side by side, head first.

    Args:
        dataset: its class names and groups.
        confusions: title and (C, C) images by true (row) and predicted (column) class, in the data
            set's order.
    """
    classes = Classes.of(dataset, room=HALF)
    width, height = (4.6 + classes.depth) * len(confusions) + 0.8, 4.9 + classes.depth
    figure, every = subplots(width, height, columns=len(confusions))
    few = dataset.num_classes <= ALL_NAMED
    for axes, (title, confusion) in zip(every, confusions.items(), strict=True):
        images = np.asarray(confusion, dtype=float)[np.ix_(classes.order, classes.order)]
        percent = 100 * images / np.maximum(images.sum(1, keepdims=True), 1)
        texts = [[f"{share:.0f}" if share >= 0.5 else "" for share in row] for row in percent]
        sns.heatmap(
            percent,
            ax=axes,
            vmin=0,
            vmax=100,
            cmap="cividis",
            square=True,
            annot=texts if few else False,
            fmt="",
            annot_kws={"size": 10},
            cbar=False,
            xticklabels=False,
            yticklabels=classes.names if few else False,
        )
        class_axis(axes, classes, counts=False, strip=False, first=0.5)
        axes.set(title=title, xlabel="predicted class", ylabel="true class, head to tail")
        axes.tick_params(axis="y", rotation=0)
        axes.grid(visible=False)
    return figure


@style()
def embedding_maps(
    dataset: LongTailedDataset,
    maps: Mapping[str, tuple[Tensor, Tensor]],
    columns: int = 2,
    size: float = 4.4,
) -> Figure:
    """t-SNE maps beside each other: the colour is the group, the figure drawn is the class.

    Args:
        dataset: its groups.
        maps: title, and (N, 2) positions with their (N,) labels.
        columns: maps in a row.
        size: width of a map, in inches.
    """
    rows = -(-len(maps) // columns)
    figure, every = subplots(size * columns, (size - 0.1) * rows + 0.4, rows, columns)
    for axes, (title, (positions, labels)) in zip(every, maps.items(), strict=False):
        draw_map(axes, dataset, positions, labels)
        axes.set_title(title, size=min(14, 4.2 * size))  # narrow maps stand close together
    for axes in every[len(maps) :]:
        axes.set_axis_off()
    group_key(figure, dataset)
    return figure


def _row_panels(
    groups: Mapping[str, Mapping[str, Any]], xlabel: str, inches: float, around: float
) -> tuple[Figure, list[Axes]]:
    """A panel for each group, one below another; a named row, `inches` high, for each variant."""
    sizes = [len(variants) for variants in groups.values()]
    height, ratios = 0.75 * len(groups) + inches * sum(sizes) + around, [n + 0.6 for n in sizes]
    figure, every = subplots(8.5, height, len(groups), sharex=True, height_ratios=ratios)
    for axes, (title, variants) in zip(every, groups.items(), strict=True):
        axes.set_yticks(range(len(variants)), list(variants))
        axes.set(ylim=(len(variants) - 0.4, -0.6), title=title)
        axes.grid(axis="y", visible=False)
    every[-1].set_xlabel(xlabel)
    return figure, every


@style()
def dots(groups: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str) -> Figure:
    """One row for each variant: a dot for each seed, a bar for mean ± standard deviation.

    Args:
        groups: values of each seed, by the panel's title and the variant's name.
        xlabel: what the values are; all panels share their axis.
    """
    figure, every = _row_panels(groups, xlabel, 0.42, 0.6)
    for axes, variants in zip(every, groups.values(), strict=True):
        for row, values in enumerate(variants.values()):
            half = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            axes.errorbar([np.mean(values)], [row], xerr=[half], color="#D55E00", **MEAN)
            if len(values) > 1:
                # At slightly different heights, so that equal values can be counted.
                heights = row - 0.22 + np.linspace(-0.06, 0.06, len(values))
                axes.plot(values, heights, "o", color="#D55E00", alpha=0.45, ms=5)
    return figure


@style()
def paired_gains(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    xlabel: str,
    quoted: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """One row for each variant: a dot for each seed's difference, their mean and t interval.

    Args:
        groups: differences seed by seed, by the panel's title and the variant's name.
        xlabel: what the differences are; all panels share their axis.
        quoted: a difference that somebody else printed, drawn hollow, by title and name.
    """
    figure, every = _row_panels(groups, xlabel, 0.5, 0.9)
    for axes, (title, variants) in zip(every, groups.items(), strict=True):
        axes.axvline(0, color="#D55E00", lw=1.5)
        for row, (name, values) in enumerate(variants.items()):
            middle, half = interval(values)
            axes.errorbar([middle], [row], xerr=[np.nan_to_num(half)], color="black", **MEAN)
            axes.plot(values, [row - 0.22] * len(values), "o", color="0.5", alpha=0.6, ms=5)
            if quoted and name in quoted.get(title, {}):
                hollow: dict[str, Any] = {"color": "#0072B2", "mfc": "white", "mew": 2, "ms": 8}
                axes.plot([quoted[title][name]], [row + 0.22], "o", **hollow)
    return figure


@style()
def sampling_shares(
    class_counts: Sequence[int],
    shares: Mapping[str, Sequence[float]],
    steps: Sequence[float],
    apart: Mapping[str, Sequence[float]],
) -> Figure:
    """What samplers draw of each class, and how far two rules part as one value grows.

    Args:
        class_counts: (C,) training images, head first.
        shares: percent of the draws by class, C values each, by the sampler's name; up to 4.
        steps: (n,) values along the right panel, which is logarithmic.
        apart: percent by which a share changes at most, n values each, by name; up to 3, which
            look like the second to fourth of `shares`.
    """
    pale = {"color": "#000000", "ls": "-", "lw": 5.0, "alpha": 0.3}  # under the line that covers it
    others = (("#D55E00", "--"), ("#0072B2", "-."), ("#009E73", ":"))
    looks: list[dict[str, Any]] = [pale, *({"color": c, "ls": ls, "lw": 2.2} for c, ls in others)]
    figure, (left, right) = subplots(9.5, 4.6, columns=2)
    classes = range(len(class_counts))
    for axes, x, lines, own in ((left, classes, shares, looks), (right, steps, apart, looks[1:])):
        for (name, values), look in zip(lines.items(), own, strict=False):
            axes.plot(x, values, label=name, **look)
        axes.legend(fontsize=10.5, frameon=False)
    names = [f"{j}\n{n}" if j % 3 == 0 else "" for j, n in enumerate(class_counts)]
    left.set_xticks(classes, names)
    left.set(title="Share of the draws (%)", xlabel="class and its training images", ylim=(0, None))
    right.set(title="Largest relative change\nof a share from EN (%)", xlabel="$b$")
    right.set(xscale="log", yscale="log")
    return figure


@dataclass(frozen=True)
class PaperDot:
    """A number of the paper and ours beside it.

    Attributes:
        label: of the row.
        colour: of the row's method.
        quoted: the paper's; None where it has none.
        measured: ours, by what they were measured with, each with the half length of its bar.
    """

    label: str
    colour: str
    quoted: float | None
    measured: Mapping[str, tuple[float, float | None]]


@style()
def paper_dots(panels: Mapping[str, Sequence[PaperDot]]) -> Figure:
    """Panels side by side with the same rows: the paper's numbers hollow, ours filled.

    Args:
        panels: by the label of their axis; the rows of all in the same order.
    """
    rows = [dot.label for dot in next(iter(panels.values()))]
    dots = [dot for dots_of in panels.values() for dot in dots_of]
    names = list(dict.fromkeys(name for dot in dots for name in dot.measured))
    markers = dict(zip(names, itertools.cycle("Ds^vP"), strict=False))
    hollow: dict[str, Any] = {"marker": "o", "ms": 9, "mfc": "white", "mew": 2}
    height = (0.16 + 0.13 * (1 + len(names))) * len(rows) + 1.5
    figure, every = subplots(9, height, columns=len(panels), sharey=True)
    for axes, (label, dots_of) in zip(every, panels.items(), strict=True):
        for row, dot in enumerate(dots_of):
            look: dict[str, Any] = {"color": dot.colour, "ls": ""}
            ours = len(dot.measured)
            half = min(0.13 * ours, 0.38)  # rows stay apart
            papers, *places = row + np.linspace(-half, half, ours + 1)
            if dot.quoted is not None:
                axes.plot(dot.quoted, papers, **hollow, **look)
            for (name, (value, bar)), place in zip(dot.measured.items(), places, strict=True):
                look["marker"] = markers[name]
                axes.errorbar(value, place, xerr=bar, ms=8, capsize=4, **look)
        axes.set_xlabel(label)
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
    every[0].set_yticks(range(len(rows)), rows)
    every[0].set_ylim(len(rows) - 0.4, -0.6)
    black = {"color": "black", "ls": ""}
    keys = {"the paper's (¹ quoted there)": black | hollow}
    keys |= {f"ours, {name}": black | {"marker": m, "ms": 8} for name, m in markers.items()}
    columns = len(keys) if sum(map(len, keys)) < 70 else 2  # else it is wider than the figure
    key_below(figure, keys, ncols=columns, fontsize=11)
    return figure


@style()
def headline(
    dataset: LongTailedDataset, answers: Sequence[Series], accuracies: Sequence[Series]
) -> Figure:
    """The study in five seconds: what a class has, how often it is the answer, how often right.

    Args:
        dataset: the one of all panels.
        answers: percent of balanced test images that each method gives to each class.
        accuracies: percent of each class's test images that are right.
    """
    classes = Classes.of(dataset, room=HALF)
    figure, (counts, answered, right) = subplots(8.5, 7.6 + classes.depth, 3, sharex=True)
    draw_counts(counts, classes.counts, classes.places)
    counts.set_title("Training images")
    counts.margins(y=0.2)
    title = "Answers to balanced test images (%)"
    by_class(answered, classes, title, answers, counts=False, ylim=(0, None))
    answered.axhline(100 / dataset.num_classes, color="0.5", lw=1, ls="--", zorder=0)
    title = "Test images that are right (%)"
    by_class(right, classes, title, accuracies, counts=False, ylim=(0, 103))
    for axes in (counts, answered):
        axes.set_xlabel("")
    group_key(figure, dataset)
    return figure
