"""What was found, in short: the README's one table, and the lines that a study ends with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcl_core.analysis.intervals import interval, with_interval
from gcl_core.results.chosen import FILE, chosen
from gcl_core.results.markdown import markdown_table
from gcl_core.results.records import load_records
from gcl_core.results.tables import by_method, cifar_records, paired

Records = Sequence[dict[str, Any]]
# Cross-entropy; its classifier re-trained on balanced classes, after mixup where that is recorded;
# GCL, re-trained too.
COLUMNS = {"CE": ("ce",), "CE + cRT": ("ce_mixup_crt", "ce_crt"), "GCL + cRT": ("gcl_crt",)}
CIFAR_ROWS = {
    "cifar10": "CIFAR-10-LT, ratio 100",
    "cifar10-jpeg-official": "the same, JPEG re-encoded",
}


def found_table(results: Path) -> str:
    """One row for each set of images: top-1 and few-shot accuracy of `COLUMNS`.

    Last epoch, percent; mean and half of the 95 % t interval, one run alone without; `-` for none.
    """
    rows: dict[str, Mapping[str, Sequence[Mapping[str, Any]]]] = {}
    if (results / FILE).exists():
        splits = chosen(load_records(results / FILE))
        rows["photographs of clothes"] = {name: [*of.values()] for name, of in splits.items()}
    digits = load_records(results / "digits.json")
    for ratio in _ratios(digits):
        rows[f"handwritten digits, ratio {ratio:g}"] = _at(ratio, digits)
    cifar = cifar_records(results)
    rows |= {CIFAR_ROWS[file]: by_method(cifar[file]) for file in CIFAR_ROWS if file in cifar}
    headings = [f"{name}, {what}" for name in COLUMNS for what in ("top-1", "few-shot")]
    lines = []
    for name, runs in rows.items():
        shown = [next((runs[m] for m in of if m in runs), []) for of in COLUMNS.values()]
        cells = [
            with_interval([run[key] for run in each]) for each in shown for key in ("top1", "few")
        ]
        lines.append([name, *cells, str(max(map(len, shown)))])
    return markdown_table(["images", *headings, "runs"], lines)


def found_lines(records: Records) -> list[str]:
    """Sentences on runs of digits: cross-entropy, what GCL with cRT gains, and at what price.

    Differences are of the same seed, with half of their 95 % t interval.
    """
    ratios = _ratios(records)
    most = ratios[0]
    runs = _at(most, records)
    ce = {key: with_interval([run[key] for run in runs["ce"]]) for key in ("many", "few")}
    gain = {key: _gain(records, most, "ce", key) for key in ("few", "many", "top1")}
    lines = [
        f"At ratio {most:g} cross-entropy recognises {ce['many']} % of the test images of frequent "
        f"classes, {ce['few']} % of rare ones.",
        f"GCL with cRT, in points over that, on rare classes: {gain['few']}.",
        f"On frequent classes: {gain['many']}.",
        f"On all images: {gain['top1']}.",
    ]
    if "ce_mixup_crt" in runs:
        gains = (f"{_gain(records, each, 'ce_mixup_crt')} at ratio {each:g}" for each in ratios)
        lines.append(f"Over cross-entropy with mixup and cRT, on all images: {'; '.join(gains)}.")
    return lines


def _gain(records: Records, ratio: float, base: str, key: str = "top1") -> str:
    """`+9.4 ± 4.3`, and a word where the interval has zero in it."""
    runs = _at(ratio, records)
    values = paired(runs["gcl_crt"], runs[base], key)
    middle, half = interval(values)
    luck = " (may be luck: the interval has zero in it)" if abs(middle) <= half else ""
    return with_interval(values, "+") + luck


def _ratios(records: Records) -> list[float]:
    return sorted({run["imbalance_ratio"] for run in records}, reverse=True)


def _at(ratio: float, records: Records) -> dict[str, list[dict[str, Any]]]:
    return by_method(run for run in records if run["imbalance_ratio"] == ratio)
