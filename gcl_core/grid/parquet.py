"""Results of a grid in one parquet file: one row for each finished cell of training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet

from gcl_core.errors import GCLError
from gcl_core.files import atomic_write
from gcl_core.grid.cells import Cell
from gcl_core.grid.steps import Job, state_of
from gcl_core.results.records import ACCURACIES, plain_settings, record_of

FORMAT = 1
MARK = b"gcl_results_format"


def records_of(jobs: Iterable[Job], *, history: bool = False) -> list[dict[str, Any]]:
    """The run records of all finished cells of training, in the order of the grid.

    Raises:
        GCLError: a damaged file.
    """
    return [
        record_of(cell.settings, job.folders, cell.method, cell.preset, history=history)
        for cell, job in _finished(jobs)
    ]


def save_results(file: Path, jobs: Iterable[Job]) -> int:
    """Write a row for each finished cell of training, whole or not at all; returns their number.

    A row has the method and preset, every setting by its flat name (empty where the method has no
    such setting), the accuracies of the last epoch in percent, the best on test (optimistic), the
    run's folder, and `version_` columns.

    Raises:
        GCLError: a damaged file of a run.
        OSError: the file cannot be written.
    """
    rows = [_row(cell, job) for cell, job in _finished(jobs)]
    names = dict.fromkeys(name for row in rows for name in row)
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    table = table.replace_schema_metadata({MARK: str(FORMAT)})
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, buffer.getvalue().to_pybytes())
    return len(rows)


def load_results(file: Path) -> pandas.DataFrame:
    """What `save_results` wrote.

    Raises:
        GCLError: the file is missing, damaged or of another version.
    """
    try:
        table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        line = str(error).splitlines()[0]
        raise GCLError(f"cannot read {file}: {line}; collect it again") from error
    found = (table.schema.metadata or {}).get(MARK, b"none").decode()
    if found != str(FORMAT):
        raise GCLError(
            f"{file} has results of format {found}, this version reads {FORMAT}; collect it again"
        )
    return table.to_pandas()


def _finished(jobs: Iterable[Job]) -> list[tuple[Cell, Job]]:
    return [
        (job.cell, job)
        for job in jobs
        if isinstance(job.cell, Cell) and state_of(job).kind == "done"
    ]


def _row(cell: Cell, job: Job) -> dict[str, Any]:
    kept = record_of(cell.settings, job.folders, cell.method, cell.preset)
    best = kept["best_on_test"] or {}
    return {
        "method": cell.method,
        "preset": cell.preset,
        **plain_settings(cell.settings),
        "dataset": kept["dataset"],  # its name: the setting may be a place on a machine
        **{key: kept[key] for key in (*ACCURACIES, "per_class")},
        "best_on_test": best.get("top1"),
        "best_epoch": best.get("epoch"),
        "epochs_by_stage": kept["epochs"],
        "run": kept["run"],
        "results_version": kept["identity"]["results_version"],
        **{f"version_{k.replace('-', '_')}": v for k, v in kept["versions"].items()},
    }
