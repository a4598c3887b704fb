"""The numbers printed in the paper's Tables 1 to 5, and which run records belong to which row.

`BEYOND` is a table of our own, in the same form: rows that the paper has no numbers of. All others
are top-1 accuracies in percent on the test images, one number each, without a spread. `quoted`
rows are the paper's own quotations of other papers (its footnote 1).
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gcl_core.data.imbalance import long_tailed_counts
from gcl_core.data.lists import PUBLISHED
from gcl_core.methods.recipes import COMMON
from gcl_core.methods.registry import METHODS, resolve

Column = tuple[str, float | None]
"""Data set as the paper calls it, and imbalance ratio; None where the data are as they are."""

CIFAR: tuple[Column, ...] = tuple(
    (name, ratio) for name in ("CIFAR-10-LT", "CIFAR-100-LT") for ratio in (200.0, 100.0, 50.0)
)
LARGE: tuple[Column, ...] = tuple((PUBLISHED[kind].title, None) for kind in COMMON)
ABLATION: Column = ("CIFAR-10-LT", 100.0)  # Tables 3 to 5: their 82.68 is that of Table 1
BEYOND = 6  # the cloud against hard margins of the same mean


@dataclass(frozen=True)
class PaperRow:
    """One row of a table of the paper.

    Attributes:
        table: 1 to 5, or `BEYOND`.
        label: as printed, without the mark of the footnote.
        method: what this study calls it; None where the text does not say which method it is.
        values: top-1 in percent by column; a column that the row has a dash in is not there.
        changes: flat settings by which the row differs from the method.
        quoted: whether the paper quotes the numbers from another paper.
    """

    table: int
    label: str
    method: str | None
    values: Mapping[Column, float]
    changes: Mapping[str, Any] = field(default_factory=dict)
    quoted: bool = False

    @property
    def name(self) -> str:
        """The label without the number and the year of its reference."""
        return re.sub(r" \[\d+\]| \(\d{4}\)", "", self.label)

    def shown(self, column: Column) -> str:
        """The number of a column with the mark of the footnote, `82.06` or `80.60¹`; `-`: none."""
        number = self.values.get(column)
        return "-" if number is None else f"{number:.2f}{'¹' * self.quoted}"


def _mislas(head: float, tail: float, factor: float, batch_norm: str) -> dict[str, Any]:
    return {
        "stage2_smooth_head": head,
        "stage2_smooth_tail": tail,
        "stage2_rebalance_head_lr_factor": factor,
        "stage2_rebalance_batch_norm": batch_norm,
    }


# Flat settings that the methods' own code has for data other than CIFAR-10 at ratio 100; it has
# none for ratio 200.
OFFICIAL: dict[str, dict[Column, dict[str, Any]]] = {
    "mislas": {
        ("CIFAR-10-LT", 50.0): _mislas(0.2, 0.0, 0.2, "frozen"),
        ("CIFAR-100-LT", 100.0): _mislas(0.4, 0.1, 0.2, "shifted"),
        ("CIFAR-100-LT", 50.0): _mislas(0.3, 0.0, 0.1, "shifted"),
    },
    "tde": {("CIFAR-100-LT", ratio): {"stage2_rebalance_alpha": 1.5} for ratio in (100.0, 50.0)},
}


def _row(
    table: int, label: str, method: str | None, *numbers: float | None, quoted: bool = False
) -> PaperRow:
    pairs = zip({1: CIFAR, 2: LARGE}[table], numbers, strict=True)
    values = {column: number for column, number in pairs if number is not None}
    return PaperRow(table, label, method, values, quoted=quoted)


def _ablation(table: int, label: str, number: float, method: str, **changes: Any) -> PaperRow:
    return PaperRow(table, label, method, {ABLATION: number}, changes)


def _clouds(label: str, number: float, **sizes: Any) -> PaperRow:
    """A row of Table 3: the strategy is that of both stages."""
    second = {f"stage2_{key}": value for key, value in sizes.items()}
    return _ablation(3, label, number, "gcl_crt", **sizes, **second)


# tau is `matched_tau` of the class counts of CIFAR-10-LT at ratio 100.
_MARGIN: dict[str, Any] = {"objective": "logit_adjustment", "scale": 30.0, "tau": 0.865}

_TDE = (None, 80.60, 83.60, None, 44.15, 50.31)
_MIXUP_CRT = (73.06, 79.15, 84.21, 41.73, 45.12, 50.86)
_HYBRID = (None, 81.40, 85.36, None, 46.72, 51.87)

ROWS: tuple[PaperRow, ...] = (
    _row(1, "CE loss", "ce", 65.68, 70.70, 74.81, 34.84, 38.43, 43.9),
    _row(1, "CE loss + mixup [33] (2018)", "ce_mixup", 65.84, 72.96, 79.48, 35.84, 40.01, 45.16),
    _row(1, "LDAM-DRW [2] (2019)", "ldam_drw", 73.52, 77.03, 81.03, 38.91, 42.04, 47.62),
    _row(1, "De-confound-TDE [24] (2020)", "tde", *_TDE, quoted=True),
    _row(1, "CE loss + mixup + cRT [10] (2020)", "ce_mixup_crt", *_MIXUP_CRT),
    _row(1, "BBN [40] (2020)", "bbn", 73.47, 79.82, 81.18, 37.21, 42.56, 47.02),
    # Of the two forms in Wang et al. (2021) the printed numbers are those of the first.
    _row(1, "Contrastive learning [30] (2021)", "hybrid_sc", *_HYBRID, quoted=True),
    _row(1, "MisLAS [39] (2021)", "mislas", 77.31, 82.06, 85.16, 42.33, 47.50, 52.62),
    _row(1, "GCL", "gcl_crt", 79.03, 82.68, 85.46, 44.88, 48.71, 53.55),
    _row(2, "CE loss", "ce", 44.51, 63.80, 27.13),
    _row(2, "CE loss + mixup [33] (2018)", "ce_mixup", 45.66, 65.77, 29.51),
    _row(2, "LDAM-DRW [2] (2019)", "ldam_drw", 48.80, 68.00, None, quoted=True),
    _row(2, "OLTR [16] (2019)", "oltr", None, None, 35.9, quoted=True),
    _row(2, "Decoupling [10] (2020)", None, 47.70, 69.49, 37.62),  # which of these four?
    _row(2, "CE loss + cRT", "ce_crt", None, None, None),
    _row(2, "CE loss + LWS", "ce_lws", None, None, None),
    _row(2, "CE loss + τ-nor.", "ce_tau_norm", None, None, None),
    _row(2, "CE loss + NCM", "ce_ncm", None, None, None),
    _row(2, "CE loss + mixup + cRT [10] (2020)", "ce_mixup_crt", 51.68, 70.16, 38.51),
    _row(2, "Logit adjustment [17] (2021)", "logit_adjustment", 51.11, 66.36, None, quoted=True),
    _row(2, "DisAlign [35] (2021)", "disalign", 52.91, 70.06, 39.30, quoted=True),
    _row(2, "MisLAS [39] (2021)", "mislas", 52.11, 71.57, 40.15),
    _row(2, "GCL", "gcl_crt", 54.88, 72.01, 40.64),
    _clouds("cos.", 79.21, strategy="cosine"),
    _clouds("pow. diff. (e:1/3)", 80.80, strategy="power", exponent=1 / 3),
    _clouds("pow. diff. (e:1/4)", 82.31, strategy="power", exponent=1 / 4),
    _clouds("log. diff.", 82.68, strategy="log"),
    _ablation(4, "IB + cRT", 80.41, "gcl_crt", stage2_sampler="instance"),
    _ablation(4, "CB + cRT", 82.43, "gcl_crt", stage2_sampler="class"),
    _ablation(4, "EN + cRT", 82.47, "gcl_crt", stage2_sampler="effective"),
    _ablation(4, "CBEN + cRT", 82.68, "gcl_crt", stage2_sampler="cben"),
    _ablation(5, "w/o RT", 80.52, "gcl"),
    _ablation(5, "CBEN + LWS", 82.25, "gcl_crt", stage2_rebalance="lws"),
    _ablation(5, "CBEN + τ-nor.", 82.16, "gcl_crt", stage2_rebalance="tau_norm"),
    _ablation(5, "CBEN + cRT", 82.68, "gcl_crt", stage2_rebalance="crt"),
    PaperRow(BEYOND, "cloud", "gcl", {}),
    PaperRow(BEYOND, "margin", "gcl", {}, _MARGIN),
    PaperRow(BEYOND, "cloud + stage 2", "gcl_crt", {}),
    PaperRow(BEYOND, "margin + stage 2", "gcl_crt", {}, _MARGIN),
)

CIFAR_IMAGES = ("cifar10", "cifar100")  # what records of the published images call them
OTHER = " (other images)"  # ends the name of data whose images are not those that were published
# What the records call the data, in the paper's words and in ours.
DATA = {
    "cifar10": ("CIFAR-10-LT", "CIFAR-10"),
    "cifar100": ("CIFAR-100-LT", "CIFAR-100"),
    f"cifar10{OTHER}": ("CIFAR-10-LT", f"CIFAR-10{OTHER}"),
    f"cifar100{OTHER}": ("CIFAR-100-LT", f"CIFAR-100{OTHER}"),
    "folder:cifar10-jpeg": ("CIFAR-10-LT", "CIFAR-10, JPEG re-encoded"),
}
DATA |= {kind: (data.title, data.title) for kind, data in PUBLISHED.items()}
FULL_CLASSES = {"CIFAR-10-LT": (5000, 10), "CIFAR-100-LT": (500, 100)}  # images, classes

OFF = (None, False, 0, "frozen")  # defaults that do nothing; "frozen": batch normalisation, stage 2


def paper_rows(table: int) -> list[PaperRow]:
    """The rows of one table, in its order."""
    return [row for row in ROWS if row.table == table]


def records_of(
    row: PaperRow, column: Column, records: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The records that are runs of a row on the data of a column, whatever name they go by."""
    return [r for r in records if column_of(r) == column and belongs(r, row)]


def column_of(record: Mapping[str, Any]) -> Column | None:
    """The column that a record's data belong to; None for data that the paper does not have.

    Re-encoded images count as the data set that they were made from: who shows them says so.
    """
    name, _ = DATA.get(record["dataset"], (None, ""))
    ratio, counts = record["imbalance_ratio"], record["identity"]["images"]["class_counts"]
    if record["dataset"] in PUBLISHED:
        data = PUBLISHED[record["dataset"]]
        whole = ratio is None and (sum(counts), len(counts)) == (data.images["train"], data.classes)
        return (data.title, None) if whole else None
    if name is None or ratio is None:
        return None
    return (name, ratio) if counts == long_tailed_counts(*FULL_CLASSES[name], ratio) else None


def belongs(record: Mapping[str, Any], row: PaperRow) -> bool:
    """Whether a record's settings are those of a row, under the preset and epochs of the record.

    Classifier, backbone and every value of both stages are compared, but no name: a run of
    `gcl_crt` is a row of Tables 1, 3, 4 and 5. Data, seed and precision are not compared. A stage
    that trained nothing has 0 epochs in the record; its settings have those of the preset.

    A record may be older than a setting. A value that it lacks is taken to agree only where the
    setting's default leaves things as they were before there was the setting (`OFF`, or a late
    field) and the row keeps that default; what the record has and the settings no longer have must
    be off there, too.
    """
    if row.method not in METHODS:
        return False
    column = column_of(record)
    official = OFFICIAL.get(row.method, {}).get(column, {}) if column else {}
    changes = (*row.changes.items(), *official.items())
    kind = record["dataset"].removesuffix(OTHER)
    parts = _parts(kind, row.method, record["preset"], changes, *record["epochs"])
    return all(_agrees(part, record["identity"].get(name)) for name, part in parts.items())


@functools.cache
def _parts(
    dataset: str, method: str, preset: str, changes: tuple[tuple[str, Any], ...], *epochs: int
) -> dict[str, Any]:
    """The parts of a method's settings that count, by their names in a record's identity."""
    settings = resolve(dataset, method, preset, **dict(changes))
    parts: dict[str, Any] = {"head": settings.head, "network": settings.network}
    for number, stage in enumerate((settings.stage1, settings.stage2)):
        if stage is not None and number < len(epochs) and epochs[number]:
            stage = dataclasses.replace(stage, epochs=epochs[number])
        parts[f"stage{number + 1}"] = stage
    return parts


def _agrees(part: Any, recorded: Any) -> bool:
    """Whether a part of the settings is what a record holds of it as plain values."""
    if not dataclasses.is_dataclass(part):
        return _same(part, recorded)
    if not isinstance(recorded, Mapping) or recorded.get("name") != getattr(part, "name", None):
        return False
    known = {f.name: f for f in dataclasses.fields(part)}
    for name, about in known.items():
        here = getattr(part, name)
        if name in recorded:
            if not _agrees(here, recorded[name]):
                return False
        elif here != about.default or not (about.metadata.get("late") or here in OFF):
            return False
    return all(recorded[name] in OFF for name in recorded.keys() - known.keys() - {"name"})


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON keeps them; numbers up to rounding, so that 0.333333333333 is a third."""
    if isinstance(one, tuple) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)
