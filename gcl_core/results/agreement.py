"""Our records beside the paper's tables: means, gaps with their error bars, verdicts by rule.

The data differ from the paper's (re-encoded images, fewer epochs), so that what is compared is the
gap between two rows and the order of all rows; `results/README.md` says the rules in words.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev, variance
from typing import Any

from scipy.stats import kendalltau

from gcl_core.analysis.intervals import t_factor
from gcl_core.data.lists import PUBLISHED
from gcl_core.results.printed import (
    BEYOND,
    CIFAR_IMAGES,
    DATA,
    Column,
    PaperRow,
    paper_rows,
    records_of,
)
from gcl_core.results.records import epochs_text, load_records

Record = Mapping[str, Any]

NOTHING = "not measured"
RECORD_FILES = ("cifar*.json", *(f"{kind}*.json" for kind in PUBLISHED))  # the paper's data
REFERENCES = {
    1: "CE loss",
    2: "CE loss",
    3: "log. diff.",
    4: "CBEN + cRT",
    5: "w/o RT",
    BEYOND: "cloud",
}
# Besides each row against the table's reference: what stage 2 adds, and what GCL adds to rivals.
MORE_GAPS = {
    **dict.fromkeys(
        (1, 2),
        (
            ("CE loss + mixup + cRT", "CE loss + mixup"),
            ("GCL", "CE loss + mixup + cRT"),
            ("GCL", "MisLAS"),
        ),
    ),
    5: (("CBEN + cRT", "CBEN + LWS"), ("CBEN + cRT", "CBEN + τ-nor.")),
    BEYOND: (("margin + stage 2", "cloud + stage 2"),),
}


@dataclass(frozen=True)
class Protocol:
    """What runs must have in common to be compared.

    Attributes:
        dataset: as the records name it.
        preset: "paper", or "official" for that and its shorter forms.
        epochs: of stage 1.
        precision: of the training.
    """

    dataset: str
    preset: str
    epochs: int
    precision: str

    @property
    def published_images(self) -> bool:
        """Whether accuracies can be compared with the paper's, not only gaps between rows."""
        return self.dataset in (*CIFAR_IMAGES, *PUBLISHED)

    def __str__(self) -> str:
        epochs = f"{self.epochs} epochs in stage 1"
        return f"{DATA[self.dataset][1]}; {epochs}; preset {self.preset}; {self.precision}"


@dataclass(frozen=True)
class Measured:
    """The runs of one row.

    Attributes:
        top1, best: top-1 in percent by seed, of the last epoch and of the one best on test.
        epochs: of the stages, as text.
    """

    top1: Mapping[int, float] = field(default_factory=dict)
    best: Mapping[int, float] = field(default_factory=dict)
    epochs: str = ""

    @property
    def mean(self) -> float | None:
        """Over the seeds, in percent; None without any."""
        return mean(self.top1.values()) if self.top1 else None


@dataclass(frozen=True)
class Gap:
    """The difference of two rows, first minus second, in points.

    Attributes:
        paper, ours: the paper's difference and ours; None where a row has no number.
        error: standard error of ours; None where nothing tells it.
        freedom: degrees of freedom of the error.
        source: where the error is from.
        spread: standard deviation of a single run, which the paper's two runs are taken to have
            as well; 0 takes the paper's gap as exact.
    """

    paper: float | None
    ours: float | None = None
    error: float | None = None
    freedom: float = math.inf
    source: str = ""
    spread: float = 0.0

    @property
    def half(self) -> float | None:
        """Half of the 95 % t interval of ours."""
        return None if self.error is None else t_factor(self.freedom) * self.error

    @property
    def verdict(self) -> str:
        """The verdict by rule, in words."""
        if self.ours is None:
            return NOTHING
        if self.paper is None:
            return "the paper has none"
        product = self.ours * self.paper
        if self.error is None or self.half is None:
            sign = "same sign" if product > 0 else "other sign" if product < 0 else "no gap"
            return f"{sign}; one run each cannot tell more"
        apart = t_factor(self.freedom) * math.hypot(self.error, math.sqrt(2) * self.spread)
        near = abs(self.ours - self.paper) <= apart
        if abs(self.ours) <= self.half:
            return "within the noise" + ("" if near else ", the paper's gap is not")
        if product <= 0:
            return "opposite, which luck can be" if near else "opposite"
        if near:
            return "agrees"
        return "same order, " + ("larger" if abs(self.ours) > abs(self.paper) else "smaller")


def load_measured(results: Path) -> list[dict[str, Any]]:
    """All run records of data that the paper has, from a folder of record files."""
    files = sorted(file for pattern in RECORD_FILES for file in results.glob(pattern))
    return [record for file in files for record in load_records(file)]


def by_protocol(
    table: int, column: Column, records: Sequence[Record]
) -> dict[Protocol, list[Record]]:
    """The records of each protocol that a table's column has any of, the longest training first."""
    by: dict[Protocol, list[Record]] = {}
    for record in records:
        by.setdefault(protocol_of(record), []).append(record)
    rows = paper_rows(table)
    found = [p for p, of in by.items() if any(records_of(row, column, of) for row in rows)]
    order = sorted(found, key=lambda p: (-p.epochs, p.dataset, p.preset, p.precision))
    return {protocol: by[protocol] for protocol in order}


def short_names(protocols: Iterable[Protocol]) -> list[str]:
    """`60 epochs` for each protocol, and what else of it not all of them have."""
    parts = [(f"{p.epochs} epochs", p.preset, p.precision, DATA[p.dataset][1]) for p in protocols]
    epochs, *others = zip(*parts, strict=True) if parts else ((),)
    told_apart = zip(epochs, *(each for each in others if len(set(each)) > 1), strict=True)
    return [", ".join(each) for each in told_apart]


def protocol_of(record: Record) -> Protocol:
    """What a record has in common with those that it may be compared with."""
    preset = "paper" if record["preset"] == "paper" else "official"
    precision = record["identity"]["precision"]
    return Protocol(record["dataset"], preset, record["epochs"][0], precision)


def measure(row: PaperRow, column: Column, records: Iterable[Record]) -> Measured:
    """The runs of a row on the data of a column; of two with one seed the later one."""
    found = records_of(row, column, records)
    epochs = dict.fromkeys(epochs_text(record["epochs"]) for record in found)
    best = {r["seed"]: r["best_on_test"]["top1"] for r in found if r["best_on_test"]}
    return Measured({r["seed"]: r["top1"] for r in found}, best, " / ".join(epochs))


def run_spread(records: Iterable[Record]) -> float | None:
    """Standard deviation of a single run's top-1, pooled over all settings that have two seeds.

    None where none has. Settings may be any, those of no table among them, at any ratio.
    """
    if not (several := _repeated(records)):
        return None
    squares = sum((len(values) - 1) * variance(values) for values in several)
    return math.sqrt(squares / run_freedom(records))


def run_freedom(records: Iterable[Record]) -> int:
    """Degrees of freedom of `run_spread`."""
    return sum(len(values) - 1 for values in _repeated(records))


def _repeated(records: Iterable[Record]) -> list[list[float]]:
    """Top-1 of each setting that has two seeds or more."""
    groups: dict[str, dict[int, float]] = {}
    for record in records:
        identity = {key: part for key, part in record["identity"].items() if key != "seed"}
        groups.setdefault(json.dumps(identity, sort_keys=True), {})[record["seed"]] = record["top1"]
    return [list(seeds.values()) for seeds in groups.values() if len(seeds) > 1]


def gap(
    one: Measured,
    other: Measured,
    paper: float | None,
    spread: float | None = None,
    freedom: int = 1,
) -> Gap:
    """The difference of two rows and its error bar.

    Seed by seed where two seeds or more have both rows, as they may share their stage 1 and always
    share the images; else the difference of the means.

    Args:
        one, other: runs of the two rows.
        paper: the paper's difference.
        spread: see `run_spread`; the error bar of rows with a single seed is made from it, and
            that of the paper's.
        freedom: see `run_freedom`.
    """
    if not (one.top1 and other.top1):
        return Gap(paper)
    single = spread or 0.0
    shared = sorted(one.top1.keys() & other.top1.keys())
    if len(shared) > 1:
        pairs = [one.top1[seed] - other.top1[seed] for seed in shared]
        error, source = stdev(pairs) / math.sqrt(len(pairs)), f"{len(pairs)} seeds, paired"
        return Gap(paper, mean(pairs), error, len(pairs) - 1, source, single)
    sides = [list(side.top1.values()) for side in (one, other)]
    ours = mean(sides[0]) - mean(sides[1])
    if all(len(side) > 1 for side in sides):
        parts = [variance(side) / len(side) for side in sides]
        # Welch and Satterthwaite's
        weights = sum(v**2 / (len(side) - 1) for v, side in zip(parts, sides, strict=True))
        own = sum(parts) ** 2 / weights if weights else sum(map(len, sides)) - 2
        source = f"{len(sides[0])} and {len(sides[1])} seeds"
        return Gap(paper, ours, math.sqrt(sum(parts)), own, source, single)
    if spread is None:
        return Gap(paper, ours, source="one seed")
    error = single * math.sqrt(sum(1 / len(side) for side in sides))
    return Gap(paper, ours, error, freedom, "one seed, borrowed", single)


def order(rows: Sequence[PaperRow], column: Column, records: Sequence[Record]) -> tuple[float, int]:
    """Kendall's tau-b of the paper's order and ours, and the number of rows that have both.

    NaN for fewer than three rows, or where all are equal.
    """
    pairs = [
        (row.values[column], ours)
        for row in rows
        if column in row.values and (ours := measure(row, column, records).mean) is not None
    ]
    if len(pairs) < 3:
        return math.nan, len(pairs)
    return float(kendalltau(*zip(*pairs, strict=True)).statistic), len(pairs)


def gaps(table: int, column: Column, records: Sequence[Record]) -> dict[tuple[str, str], Gap]:
    """The gaps of a table that the page shows, by their two rows; records are of one protocol."""
    rows, reference = {row.name: row for row in paper_rows(table)}, REFERENCES[table]
    luck = run_spread(records), run_freedom(records)
    runs = {name: measure(row, column, records) for name, row in rows.items()}
    pairs = [(name, reference) for name in rows if name != reference]
    result = {}
    for one, other in (*pairs, *MORE_GAPS.get(table, ())):
        numbers = [rows[name].values.get(column) for name in (one, other)]
        paper = None if None in numbers else numbers[0] - numbers[1]  # type: ignore[operator]
        result[one, other] = gap(runs[one], runs[other], paper, *luck)
    return result
