"""The whole study on the embedded digits: comparison, notebooks, figures, table."""

import logging
from pathlib import Path

import joblib

from gcl_core.course.execution import accepted, execute_notebook
from gcl_core.files import atomic_write
from gcl_core.grid.cells import Cell, cells_of
from gcl_core.results.records import record, save_records
from gcl_core.results.tables import digits_block
from gcl_core.training.side_by_side import run_many

log = logging.getLogger(__name__)


def study(root: Path, out: Path, runs: Path, *, workers: int | None = None) -> str:
    """Run everything on Digits-LT that is not there yet, and return the summary that is printed.

    Writes `results/digits.json`, `results.md`, `figures/` and the executed `notebooks/` into `out`.
    With `out` the project itself its committed copies are renewed.

    Args:
        root: the project's folder, which holds `notebooks/` and `grids/digits.yaml`.
        out, runs: folders for the output and for all runs.
        workers: processes at a time; None is one for each core.

    Raises:
        GCLError: a notebook that fails, or is given a parameter that it does not have.
    """
    plan = root / "grids" / "digits.yaml"
    table = compare_on_digits(plan, out / "results", runs, workers=workers)
    parameters = {"runs": str(runs), "figures": str(out / "figures")}
    sources = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    targets = [out / "notebooks" / source.name for source in sources]
    # Side by side, as much of a notebook (its kernel's start, t-SNE, drawing) keeps one core busy.
    tasks = [
        joblib.delayed(execute_notebook)(source, target, accepted(source, parameters))
        for source, target in zip(sources, targets, strict=True)
    ]
    executed = []
    side_by_side = joblib.Parallel(n_jobs=workers or joblib.cpu_count(), return_as="generator")
    for target, renewed in zip(targets, side_by_side(tasks), strict=True):
        log.info("%s %s", target.name, "executed" if renewed else "is up to date")
        executed.append(f"  {target}")
    if out.resolve() != root.resolve():
        atomic_write(out / "results.md", (table + "\n").encode())
    lines = ["", "Notebooks:", *executed, f"Figures: {out / 'figures'}", ""]
    return "\n".join([*lines, "Digits-LT, last epoch, test accuracy in percent:", "", table])


def compare_on_digits(grid: Path, results: Path, runs: Path, *, workers: int | None = None) -> str:
    """Every cell of the study's grid; writes the records, returns the table.

    The seed of a run is also the seed of its split, so that the spread holds both. No cluster: the
    runs take seconds, and need no network.
    """
    cells = [cell for cell in cells_of(grid) if isinstance(cell, Cell)]
    log.info("%d runs on Digits-LT; finished ones are reused", len(cells))
    done = run_many([cell.settings for cell in cells], runs, workers=workers)
    records = [record(run, cell.method, cell.preset) for run, cell in zip(done, cells, strict=True)]
    save_records(results / "digits.json", records)
    return digits_block(records)
