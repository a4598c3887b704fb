"""Results of a grid in one parquet file: one row for each finished cell of training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from gcl_core.files import atomic_write
from gcl_core.grid.cells import Cell
from gcl_core.grid.steps import Job, state_of
from gcl_core.results.records import ACCURACIES, plain_settings, record


def records_of(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """The run records of all finished cells of training, with their epochs, in the grid's order.

    Raises:
        GCLError: a damaged file.
    """
    return [
        record(cell.settings, job.folders, cell.method, cell.preset, history=True)
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
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, buffer.getvalue().to_pybytes())
    return len(rows)


def _finished(jobs: Iterable[Job]) -> list[tuple[Cell, Job]]:
    return [
        (job.cell, job)
        for job in jobs
        if isinstance(job.cell, Cell) and state_of(job).kind == "done"
    ]


def _row(cell: Cell, job: Job) -> dict[str, Any]:
    kept = record(cell.settings, job.folders, cell.method, cell.preset)
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
