"""The whole study on the embedded digits: comparison, notebooks, figures, table."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from tqdm.auto import tqdm

from gcl_core.bars import watched
from gcl_core.course.execution import (
    accepted,
    execute_notebook,
    execution_of,
    fingerprint,
    notebooks_in,
)
from gcl_core.files import atomic_write
from gcl_core.grid.cells import Cell, cells_of
from gcl_core.grid.steps import jobs_of
from gcl_core.hardware import usable_cores
from gcl_core.results.found import found_lines
from gcl_core.results.records import record, save_records
from gcl_core.results.tables import digits_block
from gcl_core.training.side_by_side import run_on_one_thread, side_by_side

log = logging.getLogger(__name__)
EPOCH_SECONDS = 0.04  # of the digits network on one core, roughly
BAR = "{percentage:3.0f} % |{bar}| {elapsed}, {desc}"
TRUST = 30  # seconds of the plan that count as already seen, so that the first parts decide little


@dataclass(frozen=True)
class Part:
    """A run or a notebook, the rough seconds that it will take (0: it is there), and its task."""

    name: str
    seconds: float
    task: Any


def study(root: Path, out: Path, runs: Path, *, workers: int | None = None) -> str:
    """Run everything on Digits-LT that is not there yet; returns what was found and where to look.

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
    share = 1 / (workers or usable_cores())
    training = _training(cells, runs, share)
    sources = notebooks_in(root / "notebooks")
    targets = [out / source.relative_to(root) for source in sources]
    parameters = {"runs": str(runs), "figures": str(out / "figures")}
    reading = _reading(sources, targets, parameters, share)
    parts = [*training, *reading]
    for line in _plan(training, reading):
        log.info("%s", line)
    done = list(_followed(parts, side_by_side((part.task for part in parts), workers)))
    runs_of = zip(done, cells, strict=False)
    records = [record(r.settings, r.folders, c.method, c.preset) for r, c in runs_of]
    save_records(out / "results" / "digits.json", records)
    away = out.resolve() != root.resolve()
    table = out / ("results.md" if away else "results/study.md")
    if away:
        atomic_write(table, (digits_block(records) + "\n").encode())
    seeds = len({each["seed"] for each in records})
    return "\n".join(
        [
            "",
            f"What was found on handwritten digits, in percent of the test images (mean of {seeds} "
            "seeds and half of its 95 % t interval):",
            *(f"  {number}. {line}" for number, line in enumerate(found_lines(records), 1)),
            "Where to look:",
            f"  notebooks, {targets[0].name} first: {targets[0]}",
            *(f"    {target}" for target in targets[1:]),
            f"  figures: {out / 'figures'}",
            f"  all methods and ratios in a table: {table}",
        ]
    )


def _plan(training: Sequence[Part], reading: Sequence[Part]) -> Iterator[str]:
    """What is left to do, and about how long it takes: all runs in a line, each notebook in one."""
    left = sum(part.seconds > 0 for part in training)
    runs = Part(f"{left} of {len(training)} runs", sum(p.seconds for p in training), None)
    parts = [part for part in (runs, *reading) if part.seconds]
    total = _clock(sum(part.seconds for part in parts))
    yield f"To do, in about {total} minutes:" if parts else "Nothing is left to do."
    yield from (f"{_clock(part.seconds):>7}  {part.name}" for part in parts)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _followed(parts: Sequence[Part], results: Iterable[Any]) -> Iterator[Any]:
    """The results; how far they are is one bar where somebody sees it move, lines in a log."""
    total, passed, began = sum(part.seconds for part in parts), 0.0, time.monotonic()

    def left() -> str:
        slower = (time.monotonic() - began + TRUST) / (passed + TRUST)  # than the plan says
        return f"about {_clock(slower * (total - passed))} left"

    hidden = not (total and watched())
    with tqdm(total=total, desc=left(), disable=hidden, leave=False, bar_format=BAR) as bar:
        for part, result in zip(parts, results, strict=True):
            yield result
            if not part.seconds:  # it says nothing of how fast this machine is
                continue
            passed += part.seconds
            bar.n = passed  # `update` would show a part only 0.1 s after the one before
            text = f"{left()}: {part.name}"
            bar.set_description_str(text)
            if hidden:
                log.info("%3.0f %%, %s", 100 * passed / total, text)


def _training(cells: Sequence[Cell], runs: Path, share: float) -> list[Part]:
    """The runs, with what is left to train of each; a shared stage 1 counts once.

    Args:
        share: seconds for each second of one core: 1 / n where n parts run at a time.
    """
    counted: set[str] = set()
    parts = []
    for cell, job in zip(cells, jobs_of(cells, runs), strict=True):
        left = [s for s in job.steps if s.key not in counted and not s.folder.is_finished]
        counted |= {step.key for step in left}
        seconds = share * EPOCH_SECONDS * sum(max(1, step.epochs) for step in left)
        parts.append(
            Part(cell.name, seconds, joblib.delayed(run_on_one_thread)(cell.settings, runs))
        )
    return parts


def _reading(
    sources: Sequence[Path], targets: Sequence[Path], parameters: dict[str, Any], share: float
) -> list[Part]:
    """The notebooks, with the time that each says it took when it was last executed."""
    parts = []
    for source, target in zip(sources, targets, strict=True):
        own, made_of = accepted(source, parameters), execution_of(target).get("made_of")
        needed = made_of is None or made_of != fingerprint(source, own)
        seconds = share * execution_of(source).get("core_seconds", 60) if needed else 0.0
        parts.append(
            Part(target.name, seconds, joblib.delayed(execute_notebook)(source, target, own))
        )
    return parts
