"""Tables from run records, and the places in Markdown files that hold them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from gcl_core.analysis.intervals import with_interval
from gcl_core.errors import GCLError
from gcl_core.figures.charts import record_curves
from gcl_core.figures.saving import save_figure
from gcl_core.files import atomic_write
from gcl_core.methods.registry import METHODS
from gcl_core.results.markdown import as_text, markdown_table
from gcl_core.results.records import ACCURACIES, epochs_text, load_records

CURVES = ("ce", "ce_mixup_crt", "gcl_crt")  # a few methods, so that none hides another
# Imbalance ratio and precision of the tables of CIFAR; their files, and each one's preset.
SHOWN = (100.0, "bfloat16")
CIFAR_FILES = {
    "cifar10": "official",
    "cifar100": "official",
    "cifar10-jpeg-official": "official",
    "cifar10-jpeg-short": "short",
}
Records = Iterable[Mapping[str, Any]]
HEADINGS = ("top-1", "many", "medium", "few")


def mean_and_spread(values: Sequence[float | None], digits: int = 1) -> str:
    """`79.1 ± 1.2`: mean and sample standard deviation; one value stands alone; `-` for none."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.{digits}f}"
    return f"{mean(known):.{digits}f} ± {stdev(known):.{digits}f}"


def differences(
    pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], key: str
) -> list[float | None]:
    """First minus second result of each pair; None where the data have no such group."""
    values = [(one[key], other[key]) for one, other in pairs]
    return [None if None in pair else pair[0] - pair[1] for pair in values]


def paired(runs: Records, others: Records, key: str, by: str = "seed") -> list[float]:
    """`differences` of the records of equal seeds, without those of a group that is not there."""
    ours, theirs = ({each[by]: each for each in side} for side in (runs, others))
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    return [value for value in differences(pairs, key) if value is not None]


def by_method(records: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The records of each method, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in records:
        found.setdefault(each["method"], []).append(each)
    return found


def comparison(records: Sequence[dict[str, Any]]) -> str:
    """One row for each data set, ratio, method and length of training, in the records' order.

    Last-epoch accuracy on the test images in percent, mean and half of the 95 % t interval.
    """
    groups: dict[Any, list[dict[str, Any]]] = {}
    varies = {key: len({each[key] for each in records}) > 1 for key in ("preset", "dataset")}
    for each in records:
        name = each["method"]
        name += f" ({each['preset']})" if varies["preset"] else ""
        name += f" on {as_text(each['dataset'])}" if varies["dataset"] else ""
        groups.setdefault((each["imbalance_ratio"], name, tuple(each["epochs"])), []).append(each)
    rows = []
    for (ratio, name, _), group in groups.items():
        digits = 1 if group[0]["dataset"] == "digits" else 2  # 500 or 10,000 test images
        cells = [with_interval([r[key] for r in group], digits=digits) for key in ACCURACIES]
        tops = [(r["best_on_test"] or {}).get("top1") for r in group]
        best = with_interval(tops, digits=digits)
        epochs = epochs_text(group[0]["epochs"])
        rows.append([name, _ratio_text(ratio), *cells, best, epochs, str(len(group))])
    last = ["best on test (optimistic)", "epochs", "runs"]
    return markdown_table(["method", "ratio", *HEADINGS, *last], rows)


def paired_gain(records: Sequence[dict[str, Any]], method: str, base: str) -> str:
    """Gain of a method over another seed by seed, with its 95 % t interval, for each ratio."""
    lines = []
    for ratio in dict.fromkeys(r["imbalance_ratio"] for r in records):
        of = by_method(r for r in records if r["imbalance_ratio"] == ratio)
        ours, others = (of.get(name, []) for name in (method, base))
        gains = [with_interval(paired(ours, others, key), "+") for key in ACCURACIES]
        parts = ", ".join(f"{h} {g}" for h, g in zip(HEADINGS, gains, strict=True))
        lines.append(f"`{method}` − `{base}` at ratio {_ratio_text(ratio)}, seed by seed: {parts}.")
    return "  \n".join(lines)


def _ratio_text(ratio: float | None) -> str:
    return "none" if ratio is None else f"{ratio:g}"


def cifar_records(results: Path) -> dict[str, list[dict[str, Any]]]:
    """The records of `SHOWN`, of methods as they are declared, in their order, by file."""
    order = {method: i for i, method in enumerate(METHODS)}

    def shown(preset: str, record: dict[str, Any]) -> bool:
        about = record["preset"], record["imbalance_ratio"], record["identity"]["precision"]
        return not record["changes"] and about == (preset, *SHOWN)

    return {
        name: sorted(
            (record for record in load_records(file) if shown(preset, record)),
            key=lambda record: order[record["method"]],
        )
        for name, preset in CIFAR_FILES.items()
        if (file := results / f"{name}.json").exists()
    }


def digits_block(records: Sequence[dict[str, Any]]) -> str:
    """The comparison on digits, and what GCL with cRT gains over CE, plain and re-balanced."""
    gains = [paired_gain(records, "gcl_crt", base) for base in ("ce", "ce_mixup_crt")]
    return "\n\n".join([comparison(records), *gains])


def update_page(page: Path, blocks: Mapping[str, str], *, check: bool = False) -> bool:
    """Bring the marked places of a Markdown file in step; returns whether they already were.

    Args:
        page: the file; what is not in a marked place stays as it is.
        blocks: what each place has to hold, by its name: it is the text between
            `<!-- name -->` and `<!-- end name -->`.
        check: only look, do not write.

    Raises:
        GCLError: a place is not there.
    """
    before = after = page.read_text(encoding="utf-8")
    for name, content in blocks.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        above, opened, rest = after.partition(start)
        _, closed, below = rest.partition(end)
        if not (opened and closed):
            raise GCLError(f"no place for the table {name!r}: {start.strip()} is missing")
        after = f"{above}{start}{content}\n{end}{below}"
    if not check and after != before:
        atomic_write(page, after.encode())
    return after == before


def draw_records(root: Path) -> None:
    """Draw `CURVES` on CIFAR-10 into `figures/`, of the first file that has them all."""
    for name, every in cifar_records(root / "results").items():
        records = [record for record in every if record["method"] in CURVES]
        if {record["method"] for record in records} == set(CURVES):
            kept = ("method", "preset", "about", "identity")
            about = {"runs": {r["run"]: {key: r[key] for key in kept} for r in records}}
            figure = "cifar10" if name == "cifar10" else "cifar10-jpeg"
            save_figure(record_curves(records), root / "figures", figure, about, dark=True)
            return
