"""The figures of the study: functions from data to a matplotlib Figure, in one visual language.

One colour for each group and each method everywhere (Okabe and Ito 2008, plus two greys), labels on
the lines instead of legends, the same axes where things are compared. No pyplot state is used.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory
from scipy.optimize import isotonic_regression
from torch import Tensor

import gcl_core
from gcl_core.dark import in_dark
from gcl_core.dataset import LongTailedDataset
from gcl_core.files import atomic_json, atomic_write
from gcl_core.training import Run

GROUP_COLOURS = {"many": "#0072B2", "medium": "#E69F00", "few": "#CC79A7"}


@dataclass(frozen=True)
class Look:
    """How a method is drawn, everywhere.

    Attributes:
        label: what figures and tables call it.
        colour: of lines and points.
        line: matplotlib line style; methods of similar colour differ in it.
    """

    label: str
    colour: str
    line: str | tuple[int, tuple[int, ...]] = "-"


# One colour for each family, and a line style for each of its members: black and grey for
# cross-entropy and its weights, sky blue for what re-balances it, brown for margins and priors,
# green and vermilion for GCL. No group has any of them.
METHOD_LOOKS = {
    "ce": Look("CE", "#000000"),
    "focal": Look("focal", "#000000", "--"),
    "equalization": Look("equalization", "#000000", "-."),
    "label_aware": Look("label-aware smoothing", "#000000", ":"),
    "class_balanced": Look("class-balanced", "#8A8A8A", (0, (8, 3))),
    "ce_mixup": Look("CE + mixup", "#8A8A8A", "--"),
    "class_balanced_focal": Look("class-balanced focal", "#8A8A8A", "-."),
    "no_cloud": Look("no cloud (k = 0)", "#8A8A8A", ":"),
    "ce_drw": Look("CE + DRW", "#8A8A8A", (0, (6, 1, 1, 1, 1, 1))),
    "ce_drs": Look("CE + DRS", "#8A8A8A", (0, (1, 4))),
    "mislas": Look("MiSLAS", "#56B4E9"),
    "ce_crt": Look("CE + cRT", "#56B4E9", "--"),
    "ce_mixup_crt": Look("CE + mixup + cRT", "#56B4E9", "-."),
    "ce_lws": Look("CE + LWS", "#56B4E9", ":"),
    "ce_tau_norm": Look("CE + τ-norm.", "#56B4E9", (0, (6, 1, 1, 1, 1, 1))),
    "ce_ncm": Look("CE + NCM", "#56B4E9", (0, (1, 4))),
    "disalign": Look("DisAlign", "#56B4E9", (0, (8, 3))),
    "ldam_drw": Look("LDAM-DRW", "#6B3E1D"),
    "ldam": Look("LDAM", "#6B3E1D", "--"),
    "logit_adjustment": Look("logit adjustment", "#6B3E1D", "-."),
    "post_hoc": Look("post-hoc adjustment", "#6B3E1D", ":"),
    "balanced_softmax": Look("balanced softmax", "#6B3E1D", (0, (6, 1, 1, 1, 1, 1))),
    "lade": Look("LADE", "#6B3E1D", (0, (1, 4))),
    "bbn": Look("BBN", "#5D3A9B"),
    "hybrid_sc": Look("Hybrid-SC", "#5D3A9B", "--"),
    "hybrid_psc": Look("Hybrid-PSC", "#5D3A9B", "-."),
    "tde": Look("De-confound-TDE", "#5D3A9B", ":"),
    "oltr": Look("OLTR", "#5D3A9B", (0, (6, 1, 1, 1, 1, 1))),
    "gcl": Look("GCL, stage 1", "#009E73"),
    "gcl_crt": Look("GCL + cRT", "#D55E00"),
    "gcl_angular_crt": Look("angular GCL + cRT", "#D55E00", "--"),
}

GROUP_LOOKS = {group: Look(group, colour) for group, colour in GROUP_COLOURS.items()}
SAMPLER_LOOKS = {
    "IB": Look("IB: every image alike", "#000000"),
    "SQRT": Look("square root", "#8A8A8A", (0, (8, 3))),
    "CB": Look("CB: every class alike", "#56B4E9"),
    "EN": Look("EN: effective number", "#009E73", "--"),
    "CBEN": Look("CBEN (published a, b)", "#D55E00", ":"),
    "REV": Look("reversed (BBN)", "#5D3A9B", "-."),
}

RC: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.size": 13,
    "grid.alpha": 0.25,
    "lines.linewidth": 2.2,
    "svg.fonttype": "path",
    "svg.hashsalt": "gcl_core",
}


@contextmanager
def style() -> Iterator[None]:
    """The one style of every figure; what the user has set elsewhere is left as it is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)  # type: ignore[arg-type]
        yield


@dataclass(frozen=True)
class Series:
    """Values by class, epoch or anything else along x, with their spread.

    Attributes:
        look: label, colour and line style.
        values: (n,).
        spread: (n,) half height of the band around them, such as a standard deviation.
    """

    look: Look
    values: Sequence[float]
    spread: Sequence[float] | None = None


def over_seeds(look: Look, rows: Sequence[Sequence[float]]) -> Series:
    """Mean and standard deviation (n - 1) over runs of values (runs, n); one run has no spread."""
    values = np.asarray(rows, dtype=float)
    spread = values.std(0, ddof=1).tolist() if len(values) > 1 else None
    return Series(look, values.mean(0).tolist(), spread)


def curve(look: Look, runs: Sequence[Run], key: str) -> Series:
    """A column of the metrics of several runs by epoch, both stages one after the other."""
    rows = [[row[key] for folder in run.folders for row in folder.metrics] for run in runs]
    return over_seeds(look, [[float(value) for value in row] for row in rows])


def record_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Training loss, top-1 and few-shot accuracy by epoch of run records that have a history.

    One line for each method: the mean over its records.
    """
    titles = {"train_loss": "Training loss", "top1": "Top-1 (%)", "few": "Few-shot classes (%)"}

    def line(method: str, key: str) -> Series:
        rows = [
            [float(row[key]) for stage in record["history"] for row in stage]
            for record in records
            if record["method"] == method
        ]
        return over_seeds(METHOD_LOOKS[method], rows)

    methods = list(dict.fromkeys(record["method"] for record in records))
    panels = {title: [line(method, key) for method in methods] for key, title in titles.items()}
    two = [r["epochs"][0] for r in records if len(r["epochs"]) > 1]
    return training_curves(panels, stage2_starts=two[0] if two else None)


def gradient_curves(differences: Sequence[float], curves: Sequence[Series]) -> Figure:
    """Gradient on the target logit against the logit difference, one curve for each cloud.

    Args:
        differences: (n,) clean z_y - z_j along x.
        curves: their values, 1 - p_y at each difference, and looks.
    """
    with style():
        figure = Figure(figsize=(9, 4))
        plain, logarithmic = figure.subplots(1, 2)
        for axes in (plain, logarithmic):
            _lines(axes, differences, curves)
            axes.set_xlabel("clean logit difference $z_y - z_j$")
        plain.set_title("Gradient $1 - p_y$")
        logarithmic.set_title("The same, logarithmic")
        logarithmic.set_yscale("log")
        logarithmic.set_ylim(1e-6, 2)
        _label_ends(plain, differences, curves)
        return figure


def values_by_class(
    dataset: LongTailedDataset,
    panels: Mapping[str, Sequence[Series]],
    *,
    percent: bool = False,
    floor: Mapping[str, float] | None = None,
) -> Figure:
    """One panel below the other, each with one line for each method over the classes, head first.

    Args:
        dataset: its class counts and groups are drawn along x.
        panels: title and lines of each; every line has C values.
        percent: whether all values are shares from 0 to 100, which then is the range of y.
        floor: smallest value that is shown of panels that are logarithmic, by their title.
    """
    with style():
        figure = Figure(figsize=(8.5, 1.2 + 2.7 * len(panels)))
        every = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
        for axes, (title, lines) in zip(every, panels.items(), strict=True):
            if floor and title in floor:
                axes.set_yscale("log")
                highest = max(max(series.values) for series in lines)
                axes.set_ylim(floor[title], max(1.2, 1.3 * highest))
            if percent:
                axes.set_ylim(-3, 103)
            _by_class(axes, dataset, title, lines)
        for axes in every[:-1]:
            axes.set_xlabel("")
        return figure


def training_curves(
    panels: Mapping[str, Sequence[Series]], stage2_starts: int | None = None
) -> Figure:
    """Panels side by side, each with one line for each method over the epochs.

    Args:
        panels: title and lines of each; lines may differ in length.
        stage2_starts: epochs of stage 1, where a vertical line separates the stages.
    """
    with style():
        figure = Figure(figsize=(3.3 * len(panels) + 0.6, 4))
        every = np.atleast_1d(figure.subplots(1, len(panels)))
        for axes, (title, lines) in zip(every, panels.items(), strict=True):
            for series in lines:
                _lines(axes, range(1, len(series.values) + 1), [series])
            if stage2_starts:
                axes.axvline(stage2_starts + 0.5, color="0.5", lw=1)
                axes.annotate(
                    "stage 2",
                    (stage2_starts + 1, 0.02),
                    xycoords=("data", "axes fraction"),
                    size=10,
                )
            axes.set(title=title, xlabel="epoch")
            if "%" in title:
                axes.set_ylim(-3, 103)
        _legend_below(figure, next(iter(panels.values())))
        return figure


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
    with style():
        figure = Figure(figsize=(min(4.6, 11 / len(panels)) * len(panels) + 0.6, 4.2))
        every = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axes, (title, lines) in zip(every, panels.items(), strict=True):
            _lines(axes, x, lines, marker="o")
            axes.set(title=title, xlabel=xlabel, ylim=(-3, 103))
            if doubling:
                axes.set_xscale("symlog", linthresh=1)
                ticks = [at for at in (0, 1, 3, 10, 30, 100, 300) if at <= max(x)]
                axes.set_xticks(ticks, map(str, ticks))
                axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
            _label_ends(axes, x, lines)
        every[0].set_ylabel(ylabel)
        return figure


def confusion_maps(
    dataset: LongTailedDataset, confusions: Mapping[str, Sequence[Sequence[int]]]
) -> Figure:
    """Which class is taken for which, as heat maps side by side, head first.

    Args:
        dataset: its class names and groups.
        confusions: title and (C, C) images by true (row) and predicted (column) class.
    """
    with style():
        figure = Figure(figsize=(4.6 * len(confusions) + 0.8, 4.9))
        every = np.atleast_1d(figure.subplots(1, len(confusions)))
        names = [_short(name) for name in dataset.class_names]
        few = dataset.num_classes <= 20
        for axes, (title, confusion) in zip(every, confusions.items(), strict=True):
            images = np.asarray(confusion, dtype=float)
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
                xticklabels=names if few else False,
                yticklabels=names if few else False,
            )
            axes.set(title=title, xlabel="predicted class", ylabel="true class, head to tail")
            axes.tick_params(axis="y", rotation=0)
            axes.grid(visible=False)
        return figure


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
    with style():
        rows = -(-len(maps) // columns)
        figure = Figure(figsize=(size * columns, (size - 0.1) * rows + 0.4))
        every = np.atleast_1d(figure.subplots(rows, columns)).flatten()
        for axes, (title, (positions, labels)) in zip(every, maps.items(), strict=False):
            _map(axes, dataset, positions, labels)
            axes.set_title(title)
        for axes in every[len(maps) :]:
            axes.set_axis_off()
        _group_key(figure, dataset)
        return figure


def dots(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    xlabel: str,
    colour: str | Mapping[str, str] = "#D55E00",
) -> Figure:
    """One row for each variant: a dot for each seed, a bar for mean ± standard deviation.

    Args:
        groups: values of each seed, by the panel's title and the variant's name.
        xlabel: what the values are; all panels share their axis.
        colour: of everything, or by the variant's name.
    """
    with style():
        sizes = [len(variants) for variants in groups.values()]
        figure = Figure(figsize=(8.5, 0.75 * len(groups) + 0.42 * sum(sizes) + 0.6))
        every = np.atleast_1d(
            figure.subplots(len(groups), 1, sharex=True, height_ratios=[n + 0.6 for n in sizes])
        )
        for axes, (title, variants) in zip(every, groups.items(), strict=True):
            for row, (name, values) in enumerate(variants.items()):
                half = np.std(values, ddof=1) if len(values) > 1 else 0.0
                own = colour if isinstance(colour, str) else colour[name]
                axes.errorbar(
                    [np.mean(values)], [row], xerr=[half], color=own, capsize=5, marker="D", ms=7
                )
                axes.plot(values, [row - 0.22] * len(values), "o", color=own, alpha=0.45, ms=5)
            axes.set_yticks(range(len(variants)), list(variants))
            axes.set_ylim(len(variants) - 0.4, -0.6)
            axes.set_title(title)
            axes.grid(axis="y", visible=False)
        every[-1].set_xlabel(xlabel)
        return figure


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
    looks = (
        ("#000000", "-", 5.0),
        ("#D55E00", "--", 2.2),
        ("#0072B2", "-.", 2.2),
        ("#009E73", ":", 2.2),
    )
    with style():
        figure = Figure(figsize=(9.5, 4.6))
        left, right = figure.subplots(1, 2)
        classes = range(len(class_counts))
        for axes, x, lines, own in (
            (left, classes, shares, looks),
            (right, steps, apart, looks[1:]),
        ):
            for (name, values), (colour, line, width) in zip(lines.items(), own, strict=False):
                pale = 0.3 if width > 3 else 1.0  # under the line that covers it
                axes.plot(x, values, color=colour, ls=line, lw=width, alpha=pale, label=name)
            axes.legend(fontsize=10.5, frameon=False)
        names = [f"{j}\n{n}" if j % 3 == 0 else "" for j, n in enumerate(class_counts)]
        left.set_xticks(classes, names)
        left.set(title="Share of the draws (%)", xlabel="class and its training images")
        left.set_ylim(0)
        right.set(title="Largest change from EN (%)", xlabel="$b$", xscale="log", yscale="log")
        return figure


@dataclass(frozen=True)
class PaperDot:
    """A number of the paper and ours beside it.

    Attributes:
        label: of the row.
        colour: of the row's method.
        quoted: the paper's; None where it has none.
        measured: ours; None where there is none.
        spread: half length of the bar through ours.
    """

    label: str
    colour: str
    quoted: float | None
    measured: float | None
    spread: float | None = None


def paper_dots(panels: Mapping[str, Sequence[PaperDot]]) -> Figure:
    """Panels side by side with the same rows: the paper's numbers hollow, ours filled.

    Args:
        panels: by the label of their axis; the rows of all in the same order.
    """
    with style():
        rows = [dot.label for dot in next(iter(panels.values()))]
        figure = Figure(figsize=(9, 0.42 * len(rows) + 1.5))
        every = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axes, (label, dots_of) in zip(every, panels.items(), strict=True):
            for row, dot in enumerate(dots_of):
                look: dict[str, Any] = {"color": dot.colour, "ls": ""}
                if dot.quoted is not None:
                    axes.plot(dot.quoted, row - 0.13, "o", ms=9, mfc="white", mew=2, **look)
                if dot.measured is not None:
                    axes.errorbar(
                        dot.measured,
                        row + 0.13,
                        xerr=dot.spread,
                        marker="D",
                        ms=8,
                        capsize=4,
                        **look,
                    )
            axes.set_xlabel(label)
            axes.margins(x=0.1)
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True))
        every[0].set_yticks(range(len(rows)), rows)
        every[0].set_ylim(len(rows) - 0.4, -0.6)
        keys = [
            mpl.lines.Line2D([], [], color="black", ls="", marker="o", ms=9, mfc="white", mew=2),
            mpl.lines.Line2D([], [], color="black", ls="", marker="D", ms=8),
        ]
        figure.legend(
            keys,
            ["printed in the paper (¹ quoted there)", "measured here"],
            loc="outside lower center",
            ncols=2,
            frameon=False,
        )
        return figure


def headline(
    dataset: LongTailedDataset,
    accuracies: Sequence[Series],
    maps: Mapping[str, tuple[Tensor, Tensor]],
) -> Figure:
    """The study in five seconds: counts and accuracy by class above, two embeddings below.

    Args:
        dataset: the one of all panels.
        accuracies: percent by class of the two methods, with their spread over seeds.
        maps: as in `embedding_maps`, two of them.
    """
    with style():
        figure = Figure(figsize=(9.5, 8.6))
        (counts, accuracy), below = figure.subplots(2, 2, height_ratios=[0.8, 1])
        _counts(counts, dataset)
        _by_class(accuracy, dataset, "Accuracy by class (%)", accuracies, counts=False)
        accuracy.set_ylim(-3, 103)
        for axes, (title, (positions, labels)) in zip(below, maps.items(), strict=True):
            _map(axes, dataset, positions, labels)
            axes.set_title(title)
        _group_key(figure, dataset)
        return figure


def save_figure(
    figure: Figure, folder: Path, name: str, about: Mapping[str, Any], *, dark: bool = False
) -> None:
    """Write `name.svg`, `name.png` (150 dpi) and `name.json`, each whole or not at all.

    The same figure gives the same bytes: no date, and identifiers in the SVG from a fixed salt.

    Args:
        figure: made by a function of this module.
        folder: is made if it is not there.
        name: file name without suffix.
        about: what the figure shows, as plain values; the version of gcl_core is added.
        dark: also write `name-dark.svg` and `name-dark.png`, for dark pages; the figure stays dark.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for page in ("", "-dark") if dark else ("",):
        with style():
            if page:
                in_dark(figure)
            for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                data = io.BytesIO()
                figure.savefig(data, format=suffix, dpi=150, metadata=metadata)
                atomic_write(folder / f"{name}{page}.{suffix}", data.getvalue())
    atomic_json(folder / f"{name}.json", {"gcl_core": gcl_core.__version__, **about})


def about_runs(*groups: Sequence[Run]) -> dict[str, Any]:
    """What the JSON beside a figure says of the runs in it: their folders' names and settings.

    Data are named by their name and fingerprint; no path of this machine is in it.
    """
    last = {run.path.name: run.folders[-1] for runs in groups for run in runs}
    return {"runs": {name: {**folder.about, **folder.identity} for name, folder in last.items()}}


def _lines(axes: Axes, x: Sequence[float], lines: Sequence[Series], **more: Any) -> None:
    for series in lines:
        look, values = series.look, np.asarray(series.values)
        axes.plot(x, values, color=look.colour, ls=look.line, label=look.label, **more)
        if series.spread is not None:
            half = np.asarray(series.spread)
            low, high = values - half, values + half
            axes.fill_between(x, low, high, color=look.colour, alpha=0.13, lw=0)


def _label_ends(
    axes: Axes, x: Sequence[float], lines: Sequence[Series], gap: float = 0.075
) -> None:
    """Each line's label as near its right end as `gap` (axes heights) between labels allows."""
    axes.autoscale_view()  # otherwise done only when drawn
    ends = sorted((float(s.values[-1]), i) for i, s in enumerate(lines))
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = [float(to_axes.transform((x[-1], value))[1]) for value, _ in ends]
    # With i gaps taken from label i, "apart by a gap" reads "in order": least squares in order.
    gaps = gap * np.arange(len(ends))
    placed = isotonic_regression(np.subtract(wanted, gaps)).x.clip(0, 1 - gaps[-1]) + gaps
    for place, (_, i) in zip(placed, ends, strict=True):
        look = lines[i].look
        axes.annotate(
            look.label,
            (1.015, place),
            xycoords="axes fraction",
            color=look.colour,
            va="center",
            size=11.5,
            annotation_clip=False,
        )


def _by_class(
    axes: Axes,
    dataset: LongTailedDataset,
    title: str,
    lines: Sequence[Series],
    counts: bool = True,
) -> None:
    classes = range(dataset.num_classes)
    few = dataset.num_classes <= 20
    _lines(axes, classes, lines, marker="o" if few else None, ms=5)
    axes.set_title(title)
    _label_ends(axes, classes, lines, 0.1)
    _class_axis(axes, dataset, counts)


def _class_axis(axes: Axes, dataset: LongTailedDataset, counts: bool, strip: bool = True) -> None:
    """Class names (and counts) along x, and a strip in the colours of the groups."""
    number = dataset.num_classes
    step = 1 if number <= 20 else number // 10
    ticks = range(0, number, step)
    names = [_short(dataset.class_names[j]) for j in ticks]
    if counts:
        names = [f"{n}\n{dataset.class_counts[j]}" for n, j in zip(names, ticks, strict=True)]
    axes.set_xticks(ticks, names, size=11)
    axes.set_xlim(-0.5, number - 0.5)
    axes.set_xlabel("class" + (" and its training images" if counts else ", head to tail"))
    place = blended_transform_factory(axes.transData, axes.transAxes)
    for group, members in dataset.groups.items():
        for j in members if strip else ():
            axes.fill_between(
                [j - 0.5, j + 0.5], 0, 0.02, transform=place, color=GROUP_COLOURS[group], lw=0
            )


def _counts(axes: Axes, dataset: LongTailedDataset) -> None:
    for group, members in dataset.groups.items():
        heights = [dataset.class_counts[j] for j in members]
        axes.bar(members, heights, 0.85, color=GROUP_COLOURS[group])
        if dataset.num_classes <= 20:
            for j, height in zip(members, heights, strict=True):
                axes.annotate(
                    str(height),
                    (j, height),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    size=11,
                )
    axes.set_title("Training images by class")
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.1)
    _class_axis(axes, dataset, False, strip=False)


def _map(axes: Axes, dataset: LongTailedDataset, positions: Tensor, labels: Tensor) -> None:
    """Points of a map: the class's index as glyph for up to 10 classes, a dot for more."""
    points, classes = positions.numpy(), labels.numpy()
    for group, members in dataset.groups.items():
        for j in members:
            x, y = points[classes == j].T
            marker = f"${j}$" if dataset.num_classes <= 10 else "."
            size = 34 if dataset.num_classes <= 10 else 12
            axes.scatter(x, y, size, GROUP_COLOURS[group], marker=marker, lw=0.3)
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="0.8")


def _group_key(figure: Figure, dataset: LongTailedDataset) -> None:
    """One line below all panels: the colour of each group, and its classes."""
    handles = [
        mpl.lines.Line2D([], [], color=GROUP_COLOURS[g], marker="s", ls="", ms=10)
        for g in dataset.groups
    ]
    labels = [f"{g}-shot: {_classes(members)}" for g, members in dataset.groups.items()]
    compact = {"handletextpad": 0.0, "columnspacing": 1.0, "fontsize": 12}
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, **compact)


def _classes(members: Sequence[int]) -> str:
    if len(members) > 1 and list(members) == list(range(members[0], members[-1] + 1)):
        return f"classes {members[0]} to {members[-1]}"
    return f"{len(members)} {'class' if len(members) == 1 else 'classes'}"


def _legend_below(figure: Figure, lines: Sequence[Series]) -> None:
    handles = [mpl.lines.Line2D([], [], color=s.look.colour, ls=s.look.line, lw=2.2) for s in lines]
    labels = [s.look.label for s in lines]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(lines), frameon=False)


def _short(name: str) -> str:
    return name if len(name) <= 6 else name[:5] + "."
