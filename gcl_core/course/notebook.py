"""What every notebook of the study needs: parameters, settings, tables and figures shown."""

import io
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from gcl_core.analysis.intervals import detectable, is_clear, with_interval
from gcl_core.config import coerce
from gcl_core.data.sources import kind_of
from gcl_core.errors import GCLError
from gcl_core.figures.saving import drawn, save_figure
from gcl_core.files import project_root
from gcl_core.methods.registry import resolve
from gcl_core.methods.settings import Settings
from gcl_core.results.agreement import NOTHING, Protocol, Record, by_protocol, measure, short_names
from gcl_core.results.markdown import as_text, markdown_table
from gcl_core.results.printed import ABLATION, CIFAR, LARGE, Column, PaperRow, paper_rows
from gcl_core.results.records import epochs_text, trained_epochs
from gcl_core.results.tables import differences, mean_and_spread
from gcl_core.training.side_by_side import run_many
from gcl_core.training.two_stages import Run

PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))
IPYTHON = {"In", "Out", "exit", "quit", "get_ipython", "open"}


def checked_parameters(
    namespace: Mapping[str, Any], *, minimum: Mapping[str, float] | None = None
) -> types.SimpleNamespace:
    """The parameters of a notebook, converted to their annotated types.

    The parameters cell is the first code cell and has annotated literals only
    (`seeds: int = 5  # help`); papermill puts its own cell after it, and this is called next. Then
    every other plain value that is there is a parameter that papermill was given by mistake.

    Args:
        namespace: the notebook's `globals()`.
        minimum: the smallest value allowed, by name.

    Raises:
        GCLError: an unknown parameter, a wrong type or a value below its minimum; the message names
            the offender, and the allowed names with their types.
    """
    declared: dict[str, Any] = namespace["__annotations__"]
    listing = ", ".join(f"{name}: {its.__name__}" for name, its in declared.items())
    for name, given in namespace.items():
        known = name in declared or name in IPYTHON or name.startswith("_")
        if not known and isinstance(given, PLAIN):
            raise GCLError(f"parameter {name!r} is unknown; allowed: {listing}")
    result = {}
    for name, annotation in declared.items():
        try:
            result[name] = coerce(name, namespace[name], annotation)
        except GCLError as error:
            raise GCLError(f"parameter {error}; allowed: {listing}") from None
    for name, least in (minimum or {}).items():
        if result[name] < least:
            raise GCLError(f"parameter {name} must be >= {least:g}, got {result[name]:g}")
    return types.SimpleNamespace(**result)


def numbers_in(name: str, text: str, *, low: float) -> list[float]:
    """The numbers of a parameter such as "1,10,50", in its order.

    Raises:
        GCLError: a part that is not a number, or is below `low`.
    """
    numbers = [coerce(name, part.strip(), float) for part in text.split(",")]
    if not min(numbers) >= low:
        raise GCLError(f"parameter {name} must have numbers >= {low:g}, got {min(numbers):g}")
    return numbers


def project_path(text: str) -> Path | None:
    """A folder as a parameter names it; relative ones lie in the project (`project_root`).

    None for the empty text.
    """
    return (project_root().resolve() / text) if text else None


def seeded_settings(
    parameters: types.SimpleNamespace, method: str, seed: int, **changes: Any
) -> Settings:
    """Settings of one run of a notebook: its parameters, a method and a seed, with changes on top.

    Reads `dataset`, `imbalance_ratio` (0: the data as they are) and `preset` ("": the data set's
    own). The seed also draws the subset and the split of digits, so that its spread has the luck of
    a few images in it; on all other data the subset stays that of seed 0, as in the field.

    Raises:
        GCLError: as `gcl_core.methods.registry.resolve`.
    """
    given: dict[str, Any] = {
        "imbalance_ratio": parameters.imbalance_ratio or None,
        "seed": seed,
        "data_seed": seed if kind_of(parameters.dataset)[0].seed_splits else 0,
    }
    return resolve(parameters.dataset, method, parameters.preset or None, **(given | changes))


def run_variants(
    parameters: types.SimpleNamespace,
    variants: Mapping[str, tuple[str, Mapping[str, Any]]],
    *,
    seeds: int | None = None,
    watched: bool = False,
) -> dict[str, list[Run]]:
    """Runs of several variants of a method, one for each seed, trained side by side.

    Reads `seeds`, `runs` and `workers` (0: one for each core) besides what `seeded_settings` reads.

    Args:
        parameters: as `checked_parameters` returns them.
        variants: method and changed settings, by the name that the result has them under.
        seeds: instead of the parameter of that name.
        watched: keep the `watched_epochs`, for `Run.at`.

    Raises:
        GCLError: as `seeded_settings`, before anything is trained, and as
            `gcl_core.training.two_stages.run`.
    """
    number = parameters.seeds if seeds is None else seeds
    plan = [
        seeded_settings(parameters, method, seed, **changes)
        for method, changes in variants.values()
        for seed in range(number)
    ]
    folder = project_path(parameters.runs) or Path("runs")
    keep = watched_epochs(min(each.stage1.epochs for each in plan)) if watched else ()
    done = iter(run_many(plan, folder, workers=parameters.workers or None, keep=keep))
    return {name: [next(done) for _ in range(number)] for name in variants}


def watched_epochs(epochs: int, number: int = 12) -> list[int]:
    """Epochs whose weights are kept: at most `number`, from 0 to the last, ever wider apart.

    Early epochs change most, so they double, roughly, rather than follow each other evenly.
    """
    spaced = np.geomspace(1, epochs, max(1, min(number - 1, epochs)))
    return sorted({0, epochs, *(round(float(each)) for each in spaced)})


def table_variants(number: int) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Method and changed settings of the rows of one of the paper's tables, for `run_variants`."""
    rows = [row for row in paper_rows(number) if row.method is not None]
    return {row.name: (str(row.method), row.changes) for row in rows}


def protocol(runs: Sequence[Run]) -> str:
    """The line that stands under every number: data, ratio, epochs, runs and which epoch counts."""
    first = runs[0]
    seeds = len({run.settings.seed for run in runs})
    epochs = epochs_text(trained_epochs(folder) for folder in first.folders)
    counts = first.dataset.class_counts
    return (
        f"{as_text(first.dataset.name)}, {sum(counts)} training images in {len(counts)} classes "
        f"({max(counts)} to {min(counts)} each), {epochs} epochs, "
        f"last epoch, {seeds} {'seed' if seeds == 1 else 'seeds'}"
        + (", mean ± standard deviation over seeds" if seeds > 1 else "")
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Markdown:
    """A Markdown table with its caption below; the first column is text, the others numbers."""
    text = markdown_table(header, rows)
    return Markdown(f"{text}\n\n*{caption}*" if caption else text)


def judged(differences: Sequence[float | None]) -> str:
    """`+2.0 ± 0.6`: mean and half of the 95 % t interval, in bold where that leaves zero out."""
    known = [value for value in differences if value is not None]
    text = with_interval(known, "+").replace("-", "−") if known else "-"
    return f"**{text}**" if known and is_clear(known) else text


def paired_difference(runs: Sequence[Run], others: Sequence[Run], key: str = "top1") -> str:
    """Mean difference seed by seed, `judged`; empty if both are the same runs.

    What a seed does to both, such as drawing few good images, cancels in it.
    """
    values = _paired(runs, others, key)
    return judged(values) if values else ""


def power(what: str, compared: Iterable[tuple[Sequence[Run], Sequence[Run]]], key: str) -> str:
    """`top-1 2.1 to 8.0`: the true differences that pairs of variants would show.

    That is, four times in five: in the pair whose differences vary least, and most.
    """
    found = [detectable(values) for pair in compared if (values := _paired(*pair, key))]
    found = [value for value in found if value > 0]
    if not found:
        return f"{what} unknown"
    low, high = f"{min(found):.1f}", f"{max(found):.1f}"
    return f"{what} {low}" + (f" to {high}" if low != high else "")


def _paired(runs: Sequence[Run], others: Sequence[Run], key: str) -> list[float]:
    """Differences seed by seed; none if both are the same runs, or the data have no such group."""
    pairs = list(zip(runs, others, strict=True))
    if all(run is other for run, other in pairs):
        return []
    values = differences([(run.result, other.result) for run, other in pairs], key)
    return [value for value in values if value is not None]


JUDGED = (
    "Differences are seed by seed: mean ± half of the 95 % t interval, bold where that leaves zero"
    " out"
)


def ablation_table(
    what: str,
    trained: Mapping[str, Sequence[Run]],
    *,
    reference: str,
    paper: int | None = None,
    records: Sequence[Record] = (),
) -> Markdown:
    """Variants of a method: ours, and the differences to one of them, seed by seed.

    Args:
        what: heading of the first column.
        trained: runs by variant, in the same order of seeds.
        reference: the variant that the others are compared with.
        paper: number of the paper's table with the same rows, 3 to 5: its numbers, quoted, and
            those of `records` on the same data stand beside ours. A table of ours has records only.
        records: as `gcl_core.results.agreement.load_measured` returns them.
    """
    header = [what, "here: top-1 (%)", "few-shot (%)", f"top-1 − ({reference})"]
    header.append(f"few-shot − ({reference})")
    pairs = [(runs, trained[reference]) for runs in trained.values()]
    shown = ", ".join(power(name, pairs, key) for name, key in (("top-1", "top1"), ("few", "few")))
    caption = f"Here: {protocol(trained[reference])}. {JUDGED}. Found four times in five: {shown}."
    others: dict[str, list[str]] = {name: [] for name in trained}
    if paper is not None:
        rows_of = {row.name: row for row in paper_rows(paper)}
        quoted = any(ABLATION in row.values for row in rows_of.values())
        found = by_protocol(paper, ABLATION, records)
        recorded = measured_columns("recorded", found)
        header[1:1] = ["paper: CIFAR-10-LT, ratio 100 (quoted)"] * quoted + list(recorded)
        for name in trained:
            row = rows_of[name]
            others[name] = [f"*{row.values[ABLATION]:.2f}*"] if quoted else []
            others[name] += [measured_cell(row, ABLATION, runs) for runs in recorded.values()]
        about = [*map(str, found), "ratio 100, seeds in brackets"] if found else ["nothing yet"]
        caption += f" Recorded: {'; '.join(about)}."
    rows = []
    for name, runs in trained.items():
        ours = [mean_and_spread([run.result[key] for run in runs]) for key in ("top1", "few")]
        gains = [paired_difference(runs, trained[reference], key) for key in ("top1", "few")]
        rows.append([name, *others[name], *ours, *gains])
    return table(header, rows, caption)


def png_of(figure: Figure) -> bytes:
    """A figure as PNG at 100 dpi in 256 colours: a third of the bytes, no difference to be seen."""
    png, small = io.BytesIO(drawn(figure, dpi=100)), io.BytesIO()
    PIL.Image.open(png).convert("RGB").quantize(256).save(small, "png", optimize=True)
    return small.getvalue()


def picture(figure: Figure, alt: str) -> Image:
    """A figure to display, with a text for a reader who does not see it."""
    return Image(data=png_of(figure), format="png", alt=alt)


def benchmark_table(number: int, dataset: str, records: Sequence[Record]) -> Markdown:
    """Columns of one of the paper's tables, each beside ours: quoted in italics, measured in bold.

    Args:
        number: of the table.
        dataset: the data set whose columns are shown, as the paper calls it; "" is all.
        records: as `gcl_core.results.agreement.load_measured` returns them.
    """
    printed = paper_rows(number)
    shown = [c for c in (*CIFAR, *LARGE) if dataset in ("", c[0])]
    columns = [c for c in shown if any(c in row.values for row in printed)]
    header, lines = ["method"], []
    cells = {row.name: [row.name] for row in printed}
    for column in columns:
        place = column[0] if column[1] is None else f"ratio {column[1]:g}"
        found = by_protocol(number, column, records)
        lines += [f"{place}: {protocol}" for protocol in found]
        ours = measured_columns("ours", found)
        header += [f"{place}: paper", *ours]
        for row in printed:
            quote = "–"
            if column in row.values:
                quote = f"*{row.values[column]:.2f}*" + ("¹" if row.quoted else "")
            cells[row.name] += [quote, *(measured_cell(row, column, r) for r in ours.values())]
    note = "; ".join(lines) or "nothing measured"
    caption = "Top-1 in percent. In italics: printed in the paper, ¹ quoted there from elsewhere. "
    caption += f"In bold: ours, last epoch, number of seeds in brackets; {note}."
    return table(header, list(cells.values()), caption)


def measured_columns(
    heading: str, found: Mapping[Protocol, Sequence[Record]]
) -> dict[str, Sequence[Record]]:
    """The records of each column of a table by its heading: a column for each protocol, or one."""
    if len(found) < 2:
        return {heading: next(iter(found.values()), [])}
    names = short_names(found)
    return {f"{heading}, {name}": found[each] for name, each in zip(names, found, strict=True)}


def measured_cell(row: PaperRow, column: Column, records: Sequence[Record]) -> str:
    """Bold mean ± standard deviation with the number of seeds, or that there is none."""
    top1 = list(measure(row, column, records).top1.values())
    return f"**{mean_and_spread(top1, 2)}** ({len(top1)})" if top1 else NOTHING


def table1_column(dataset: str, ratio: float) -> Column:
    """A column of Table 1.

    Raises:
        GCLError: the table has no such column.
    """
    if (dataset, ratio) not in CIFAR:
        allowed = ", ".join(f"{name} {at:g}" for name, at in CIFAR)
        raise GCLError(f"Table 1 has no column {dataset!r} {ratio:g}; allowed: {allowed}")
    return dataset, ratio


def show(
    figure: Figure,
    name: str,
    alt: str,
    folder: Path | None,
    about: Mapping[str, Any],
    *,
    dark: bool = False,
) -> None:
    """Display a figure as PNG with an alternative text, and save it where a folder is given.

    Args:
        figure: what to show.
        name: its file name without suffix.
        alt: what a reader who does not see it should know.
        folder: see `gcl_core.figures.saving.save_figure`; None saves nothing.
        about, dark: see `gcl_core.figures.saving.save_figure`.
    """
    display(picture(figure, alt))
    if folder is not None:
        save_figure(figure, folder, name, {"alt": alt, **about}, dark=dark)
