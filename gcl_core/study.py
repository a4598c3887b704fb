"""The whole study on the embedded digits: comparison, notebooks, figures, table."""

import logging
import re
import time
from pathlib import Path

import joblib
import nbformat
from tqdm.auto import tqdm

from gcl_core.course.execution import accepted, execute_notebook, fingerprint, made_of
from gcl_core.files import atomic_write
from gcl_core.grid.cells import Cell, cells_of
from gcl_core.grid.steps import jobs_of
from gcl_core.results.records import record, save_records
from gcl_core.results.tables import digits_block
from gcl_core.training.progress import watched
from gcl_core.training.side_by_side import run_each, side_by_side

log = logging.getLogger(__name__)
EPOCH_SECONDS = 0.04  # of the digits network on one core, roughly


class Overall:
    """How far the whole study is: one bar where somebody sees it move, lines in a log.

    Args:
        expected: seconds that what is left will roughly take.
    """

    def __init__(self, expected: float) -> None:
        self.expected, self.passed, self.began = expected, 0.0, time.monotonic()
        self.bar = tqdm(
            total=expected,
            disable=not (expected and watched()),
            smoothing=0,
            leave=False,
            bar_format="{percentage:3.0f} % |{bar}| {elapsed}, about {remaining} left: {desc}",
        )

    def advance(self, expected: float, what: str) -> None:
        """A part of so many expected seconds is done."""
        if not expected:  # there already: it says nothing of how fast this machine is
            return
        self.passed += expected
        self.bar.n = self.passed  # `update` would show a part only 0.1 s after the one before
        self.bar.set_description_str(what)
        if self.bar.disable:
            took = time.monotonic() - self.began
            left = int(took * (self.expected / self.passed - 1))
            share = 100 * self.passed / self.expected
            log.info("%3.0f %%, about %d:%02d left: %s", share, left // 60, left % 60, what)


def study(root: Path, out: Path, runs: Path, *, workers: int | None = None) -> str:
    """Run everything on Digits-LT that is not there yet, and return the summary that is printed.

    Writes `results/digits.json`, `results.md`, `figures/` and the executed `notebooks/` into `out`.
    With `out` the project itself its committed copies are renewed.

    Args:
        root: the project's folder, which holds `notebooks/` and `grids/digits.yaml`. The seed of a
            run of that grid is also the seed of its split, so that the spread holds both.
        out, runs: folders for the output and for all runs.
        workers: processes at a time; None is one for each core.

    Raises:
        GCLError: a notebook that fails, or is given a parameter that it does not have; a process
            that was killed.
    """
    cells = [c for c in cells_of(root / "grids" / "digits.yaml") if isinstance(c, Cell)]
    parameters = {"runs": str(runs), "figures": str(out / "figures")}
    sources = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    books = {out / "notebooks" / s.name: (s, accepted(s, parameters)) for s in sources}

    processes = workers or joblib.cpu_count()
    trained = [seconds / processes for seconds in _training_seconds(cells, runs)]
    executed = [
        0.0 if made_of(target) == fingerprint(*made_from) else _stated_seconds(made_from[0])
        for target, made_from in books.items()
    ]
    log.info(
        "%d runs, %d of them to train; %d notebooks, %d of them to execute: about %.0f minutes",
        *(len(trained), sum(map(bool, trained)), len(executed), sum(map(bool, executed))),
        (sum(trained) + sum(executed)) / 60,
    )
    overall = Overall(sum(trained) + sum(executed))
    records = []
    done = run_each([cell.settings for cell in cells], runs, workers=workers)
    for run, cell, seconds in zip(done, cells, trained, strict=True):
        records.append(record(run, cell.method, cell.preset))
        overall.advance(seconds, cell.name)
    save_records(out / "results" / "digits.json", records)
    table = digits_block(records)
    # Side by side, as much of a notebook (its kernel's start, t-SNE, drawing) keeps one core busy.
    tasks = [joblib.delayed(execute_notebook)(s, t, given) for t, (s, given) in books.items()]
    for _, target, seconds in zip(side_by_side(tasks, workers), books, executed, strict=True):
        overall.advance(seconds, target.name)
    overall.bar.close()
    if out.resolve() != root.resolve():
        atomic_write(out / "results.md", (table + "\n").encode())
    lines = ["", "Notebooks:", *(f"  {target}" for target in books), f"Figures: {out / 'figures'}"]
    return "\n".join([*lines, "", "Digits-LT, last epoch, test accuracy in percent:", "", table])


def _training_seconds(cells: list[Cell], runs: Path) -> list[float]:
    """What is left to train of each cell, in rough seconds; a shared stage 1 counts once."""
    counted: set[str] = set()
    result = []
    for job in jobs_of(cells, runs):
        left = [s for s in job.steps if s.key not in counted and not s.folder.is_finished]
        counted |= {step.key for step in left}
        result.append(EPOCH_SECONDS * sum(max(1, step.epochs) for step in left))
    return result


def _stated_seconds(notebook: Path) -> float:
    """The time that a notebook says it takes; a minute if it says nothing."""
    text = " ".join(cell.source for cell in nbformat.read(notebook, 4).cells)
    stated = re.search(r"takes (\d+) seconds", " ".join(text.split()))
    return float(stated[1]) if stated else 60.0
