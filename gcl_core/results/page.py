"""The pages with tables: the paper's row by row beside our records, and those of our own runs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcl_core.analysis.intervals import interval, with_interval
from gcl_core.benchmark.photographs import files_table
from gcl_core.benchmark.speed import bench_table
from gcl_core.figures.charts import PaperDot, paper_dots
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.figures.saving import save_figure
from gcl_core.files import load_json
from gcl_core.results.agreement import (
    NOTHING,
    REFERENCES,
    Gap,
    Protocol,
    Record,
    by_protocol,
    gaps,
    load_measured,
    measure,
    order,
    short_names,
)
from gcl_core.results.chosen import chosen_block, chosen_table, tuning_block
from gcl_core.results.found import found_table
from gcl_core.results.markdown import markdown_table
from gcl_core.results.printed import (
    ABLATION,
    BEYOND,
    CIFAR,
    LARGE,
    OFFICIAL,
    Column,
    paper_rows,
    records_of,
)
from gcl_core.results.protocol import protocol_blocks
from gcl_core.results.records import load_records
from gcl_core.results.tables import (
    cifar_records,
    comparison,
    digits_block,
    update_page,
)

COLUMNS: dict[int, tuple[Column, ...]] = {
    1: CIFAR,
    2: LARGE,
    **dict.fromkeys((3, 4, 5, BEYOND), (ABLATION,)),
}
# Files of records whose settings are chosen on validation parts, and how the study shows them.
CHOSEN = {
    "clothes": chosen_block,
    "clothes-tuning": tuning_block,
    "plankton": chosen_block,
    "plankton-scratch": chosen_table,
}
WITHOUT_LOOK = "#8A8A8A"


def rows_table(table: int, column: Column, records: Sequence[Record]) -> str:
    """One line for each row of a table: the paper's number, ours, and the verdict on its gap."""
    verdicts = {
        one: each.verdict
        for (one, other), each in gaps(table, column, records).items()
        if other == REFERENCES[table]
    }
    lines = []
    for row in paper_rows(table):
        printed = row.values.get(column)
        runs = measure(row, column, records)
        paper = row.shown(column)
        if runs.mean is None:
            lines.append([row.name, paper, NOTHING, "-", "-", "-", "-", NOTHING])
            continue
        ours, best = (with_interval([*of.values()], digits=2) for of in (runs.top1, runs.best))
        away = "-" if printed is None else signed(runs.mean - printed)
        verdict = verdicts.get(row.name, "the reference")
        seeds = str(len(runs.top1))
        lines.append([row.name, paper, f"**{ours}**", best, away, runs.epochs, seeds, verdict])
    headings = ["row", "paper", "ours", "best on test (optimistic)", "ours − paper", "epochs"]
    return markdown_table([*headings, "seeds", "verdict"], lines)


def gaps_table(table: int, column: Column, records: Sequence[Record]) -> str:
    """One line for each gap of a table that is measured; empty if none is."""
    lines = []
    for (one, other), each in gaps(table, column, records).items():
        if each.ours is None:
            continue
        name = f"{one} − ({other})" if "+" in other else f"{one} − {other}"
        paper = "-" if each.paper is None else signed(each.paper)
        half = "-" if each.half is None else f"± {each.half:.2f}"
        source = f" ({each.source})" if each.source else ""
        lines.append([name, paper, signed(each.ours), half + source, each.verdict])
    if not lines:
        return ""
    return markdown_table(["gap", "paper", "ours", "95 % interval", "verdict"], lines)


def signed(points: float) -> str:
    """`+1.23` or `−1.23`: a difference, with the sign that it has after rounding."""
    return f"{round(points, 2) + 0.0:+.2f}".replace("-", "−")


def order_sentence(table: int, column: Column, records: Sequence[Record]) -> str:
    """Kendall's tau of a table and over how many rows."""
    tau, rows = order(paper_rows(table), column, records)
    everything = sum(column in row.values for row in paper_rows(table))
    if math.isnan(tau):
        return f"Order: {rows} of {everything} rows measured, too few for Kendall's τ."
    return f"Order: Kendall's τ = {tau:.2f} over the {rows} of {everything} rows that are measured."


def protocol_block(
    table: int, column: Column, protocol: Protocol, records: Sequence[Record], *, rows: bool = True
) -> str:
    """One column of a table, its gaps and its order, from the records of one protocol.

    Args:
        rows: False leaves out the table of the rows itself.
    """
    printed = any(column in row.values for row in paper_rows(table))
    parts = [
        f"**{_column_name(column)}.** Ours: {protocol}.",
        rows_table(table, column, records) if rows else "",
        gaps_table(table, column, records),
        order_sentence(table, column, records) if printed else "",
    ]
    return "\n\n".join(filter(None, parts))


def column_block(
    table: int, column: Column, records: Sequence[Record], *, rows: bool = True
) -> str:
    """One column of a table under each protocol that has records; see `protocol_block`."""
    found = by_protocol(table, column, records)
    blocks = [protocol_block(table, column, *each, rows=rows) for each in found.items()]
    return "\n\n".join(blocks) or f"**{_column_name(column)}.** Ours: {NOTHING}."


def printed_table(table: int, columns: Sequence[Column]) -> str:
    """The paper's numbers in columns that have none of ours."""
    lines = [[row.name, *map(row.shown, columns)] for row in paper_rows(table)]
    return markdown_table(["row", *map(_column_name, columns)], lines)


def _column_name(column: Column) -> str:
    name, ratio = column
    return name if ratio is None else f"{name}, ratio {ratio:g}"


def table_block(table: int, records: Sequence[Record]) -> str:
    """All of one table on the results page.

    What is measured on the published images comes first, then, folded, what is on others, and the
    paper's numbers in all other columns.
    """
    published, others, left = list[str](), list[str](), list[Column]()
    for column in COLUMNS[table]:
        found = by_protocol(table, column, records)
        for protocol, runs in found.items():
            parts = published if protocol.published_images else others
            parts.append(protocol_block(table, column, protocol, runs))
        if not any(protocol.published_images for protocol in found) and table != BEYOND:
            left.append(column)
    if others:
        others = ["<details><summary>On other images</summary>", *others, "</details>"]
    last = ["Not measured; the paper has:", printed_table(table, left)] if left else []
    return "\n\n".join([*published, *others, *last])


def options_table() -> str:
    """What `gcl train` takes for each row that is trained on CIFAR, beside data, ratio and seed.

    A row has a second line where a method has values of its own for the data of a column.
    """
    lines = []
    for table in (1, 3, 4, 5, BEYOND):
        place = "beyond" if table == BEYOND else str(table)
        for row in paper_rows(table):
            lines.append([row.name, place, _options(row.method, row.changes)])
            for column, values in OFFICIAL.get(str(row.method), {}).items():
                name = f"{row.name} on {_column_name(column)}"
                lines.append([name, place, _options(row.method, values)])
    return markdown_table(["row", "table", "options"], lines, texts=("table", "options"))


def _options(method: str | None, changes: Mapping[str, Any]) -> str:
    given = {"method": method, **changes}
    words = [f"--{name.replace('_', '-')} {own}" for name, own in given.items()]
    return f"`{' '.join(words)}`"


def published_table(records: Sequence[Record]) -> str:
    """Runs on the published images with a number in the paper's Table 1, or before re-training."""
    lines = []
    rows = [*paper_rows(1), *(row for row in paper_rows(5) if row.method == "gcl")]
    for column in CIFAR:
        for protocol, runs in by_protocol(1, column, records).items():
            for row in rows if protocol.published_images else ():
                found, printed = measure(row, column, runs), row.values.get(column)
                if found.top1 and printed:
                    name = f"{_column_name(column)}: {METHOD_LOOKS[str(row.method)].label}"
                    name += "" if protocol.preset == "official" else f", preset {protocol.preset}"
                    ours = (
                        with_interval([*of.values()], digits=2) for of in (found.top1, found.best)
                    )
                    lines.append([name, *ours, f"{printed:.2f}", found.epochs])
    return markdown_table(["", "ours, last epoch", "best on test", "paper", "epochs"], lines)


def page_blocks(results: Path) -> dict[str, dict[str, str]]:
    """What the marked places of each page have to hold, from the records in `results`."""
    measured = load_measured(results)
    ours = {"digits": digits_block(load_records(results / "digits.json"))}
    for name, block in CHOSEN.items():
        if (file := results / f"{name}.json").exists():
            ours[name] = block(load_records(file))
    ours |= {name: comparison(records) for name, records in cifar_records(results).items()}
    pages = {
        "README.md": {"found": found_table(results)},
        "results/README.md": {
            "published": published_table(measured),
            "options": options_table(),
            **{f"table{table}": table_block(table, measured) for table in COLUMNS},
        },
        "results/study.md": ours,
        "docs/recipes.md": protocol_blocks(results),
    }
    speed = {"bench": bench_table, "files": files_table}
    tables = {
        name: table(load_json(results / f"{name}.json"))
        for name, table in speed.items()
        if (results / f"{name}.json").exists()
    }
    if tables:
        pages["docs/speed.md"] = {f: f"```text\n{own}\n```" for f, own in tables.items()}
    return pages


def update_pages(root: Path, *, check: bool = False) -> dict[str, bool]:
    """Bring the tables of all pages in step with the records; whether each page already was.

    Args:
        root: the project's folder.
        check: only look, do not write.

    Raises:
        GCLError: a page lacks a place for a table.
    """
    pages = page_blocks(root / "results")
    return {page: update_page(root / page, of, check=check) for page, of in pages.items()}


def table1_dots(column: Column, records: Sequence[Record]) -> dict[str, list[PaperDot]]:
    """The two panels of `paper_dots`: Table 1 in percent, and each row's gap to cross-entropy.

    Ours stand there once for each protocol that has records.
    """
    found = by_protocol(1, column, records)
    runs_of = dict(zip(short_names(found), found.values(), strict=True))
    itself = (REFERENCES[1], REFERENCES[1])
    quoted = gaps(1, column, []) | {itself: Gap(0.0)}
    gaps_of = {n: gaps(1, column, runs) | {itself: Gap(0.0, 0.0)} for n, runs in runs_of.items()}
    accuracies, differences = [], []
    for row in paper_rows(1):
        look = METHOD_LOOKS.get(row.method or "")
        shown = row.name + ("¹" if row.quoted else ""), look.colour if look else WITHOUT_LOOK
        pair = (row.name, REFERENCES[1])
        top1: dict[str, tuple[float, float | None]] = {}
        gap_to: dict[str, tuple[float, float | None]] = {}
        for name, runs in runs_of.items():
            if values := list(measure(row, column, runs).top1.values()):
                middle, half = interval(values)
                top1[name] = middle, None if math.isnan(half) else half
                each = gaps_of[name][pair]
                if each.ours is not None:
                    gap_to[name] = each.ours, each.half
        accuracies.append(PaperDot(*shown, row.values.get(column), top1))
        differences.append(PaperDot(*shown, quoted[pair].paper, gap_to))
    return {"Top-1 (%)": accuracies, f"Gap to {REFERENCES[1]} (points)": differences}


def draw_table1(root: Path) -> None:
    """Draw Table 1 at ratio 100, the paper's numbers and ours, into `figures/table1`."""
    records = load_measured(root / "results")
    found = by_protocol(1, ABLATION, records)
    about = {
        "alt": "Table 1, CIFAR-10-LT at ratio 100: top-1 and gap to cross-entropy of each method, "
        "the paper's numbers as hollow circles, ours as filled marks where measured.",
        "ours": {
            str(protocol): sorted(
                {run["run"] for row in paper_rows(1) for run in records_of(row, ABLATION, runs)}
            )
            for protocol, runs in found.items()
        },
    }
    figure = paper_dots(table1_dots(ABLATION, records))
    save_figure(figure, root / "figures", "table1", about, dark=True)
