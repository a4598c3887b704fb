"""Methods whose settings are chosen on a validation part, and what the test part then says."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from gcl_core.analysis.intervals import with_interval
from gcl_core.data.imbalance import class_groups
from gcl_core.data.load import load_dataset
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.figures.photographs import photographs
from gcl_core.figures.saving import save_figure
from gcl_core.figures.series import over_seeds
from gcl_core.methods.registry import resolve
from gcl_core.results.markdown import markdown_table
from gcl_core.results.records import load_records
from gcl_core.results.tables import paired

Record = Mapping[str, Any]
FILE, FIGURE = "clothes.json", "clothes"
SAME_MEAN = "gcl with objective logit_adjustment"
NAMES = {"ce with sampler class": "ce, balanced classes", SAME_MEAN: "gcl, the cloud's mean"}

HEADINGS = ("method", "top-1", "mean of classes", "many", "medium", "few", "macro F1")
ACCURACIES = ("top1", "class_mean", "many", "medium", "few", "macro_f1")


def label(record: Record, shared: Container[str] = ("schedule",)) -> str:
    """The method of a record, and what it has of another kind, but for what is shared."""
    changes = {name: own for name, own in record["changes"].items() if name not in shared}
    kinds = [
        f"{name} {given}"
        for name, given in changes.items()
        if isinstance(given, str) or name == "layer_decay"
    ]
    name = " with ".join([record["method"], *kinds])
    return NAMES.get(name, name)


def chosen(records: Sequence[Record]) -> dict[str, dict[int, Record]]:
    """Of each method and split (data seed), the run with the best validation part: by label.

    Best is the largest sum of top-1 and class mean there, after the last epoch; of equal ones the
    first. The test part has no say. Each has its `class_mean` on the test part, too.
    """
    every = [each["changes"] for each in records]
    first = every[0] if len(every) > 1 else {}
    common = [name for name in first if all(own.get(name) == first[name] for own in every)]
    splits: dict[tuple[str, int], list[Record]] = {}
    for each in records:
        name = label(each, ("schedule", *common))
        splits.setdefault((name, each["data_seed"]), []).append(each)
    best: dict[str, dict[int, Record]] = {}
    for (name, split), runs in splits.items():
        run = max(runs, key=lambda each: sum(each["validation"].values()))
        own = mean(value for value in run["per_class"] if value is not None)
        best.setdefault(name, {})[split] = {**run, "class_mean": own}
    return best


def chosen_table(records: Sequence[Record]) -> str:
    """A row for each method, means over the splits with 95 % t intervals."""
    rows = []
    for name, splits in chosen(records).items():
        cells = [[run[each] for run in splits.values()] for each in ACCURACIES]
        rows.append([name, *map(with_interval, cells)])
    return markdown_table(HEADINGS, rows)


def gain(records: Sequence[Record], method: str, base: str) -> str:
    """One method minus another, split by split, as a line of Markdown."""
    found = chosen(records)
    pair = found[method].values(), found[base].values()
    gains = [with_interval(paired(*pair, name, by="data_seed"), "+") for name in ACCURACIES]
    parts = ", ".join(
        f"{heading} {each}" for heading, each in zip(HEADINGS[1:], gains, strict=True)
    )
    return f"`{method}` − `{base}`, split by split: {parts}."


def few_by_class(run: Record) -> float:
    """Mean accuracy of the few-shot classes, in percent; `few` counts their test images alike."""
    few = class_groups(run["identity"]["images"]["class_counts"])["few"]
    return mean(value for j in few if (value := run["per_class"][j]) is not None)


def few_line(records: Sequence[Record]) -> str:
    """`few_by_class` of CE and GCL, and what GCL gains over CE and over its cloud's mean."""
    name, shown, bases = "few_by_class", ("ce", "gcl"), ("ce", NAMES[SAME_MEAN])
    found = {
        method: [{**run, name: few_by_class(run)} for run in splits.values()]
        for method, splits in chosen(records).items()
    }
    values = {method: [run[name] for run in found[method]] for method in shown}
    cells = [f"`{method}` {with_interval(own)}" for method, own in values.items()]
    for base in bases:
        points = paired(found["gcl"], found[base], name, by="data_seed")
        cells.append(f"`gcl` − `{base}` {with_interval(points, '+')}")
    return f"As the mean of its classes few is: {', '.join(cells)}."


def chosen_block(records: Sequence[Record]) -> str:
    """The table of photographs, and what GCL gains over CE, and over its cloud's mean."""
    pairs = ("gcl", "ce"), ("gcl", NAMES[SAME_MEAN]), ("ce_crt", "ce"), ("gcl_crt", "ce_crt")
    gains = [gain(records, *pair) for pair in pairs]
    return "\n\n".join([chosen_table(records), *gains, few_line(records)])


def tuning_block(records: Sequence[Record]) -> str:
    """How much of a network is trained: the table, and accuracies by epoch where all of it is."""
    curves = []
    for name, splits in chosen(records).items():
        for run in splits.values():
            if run["changes"].get("trains") == "all":
                (rows,) = run["history"]
                by_epoch = [f"{float(r['top1']):.1f} ({float(r['few']):.1f})" for r in rows]
                curves.append(f"{name}: {', '.join(by_epoch)}")
    after = f"Top-1 (few-shot) after each epoch: {'; '.join(curves)}."
    return f"{chosen_table(records)}\n\n{after}"


def draw_clothes(root: Path) -> None:
    """Draw photographs, counts and accuracy by class of CE and GCL into `figures/clothes`."""
    records = load_records(root / "results" / FILE)
    found = chosen(records)
    shown = {name: list(found[name].values()) for name in ("ce", "gcl")}
    series = [
        over_seeds(METHOD_LOOKS[name], [run["per_class"] for run in runs])
        for name, runs in shown.items()
    ]
    dataset = load_dataset(resolve("clothes", "ce").data)
    runs = {name: [run["run"] for run in of] for name, of in shown.items()}
    save_figure(photographs(dataset, series), root / "figures", FIGURE, {"runs": runs}, dark=True)
