"""The command line of grids: `python -m gcl_core grid {plan,run,status,collect} FILE`."""

import argparse
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from gcl_core import hardware
from gcl_core.bars import Bar, clock, watched
from gcl_core.errors import GCLError
from gcl_core.grid.cells import cells_of
from gcl_core.grid.failures import forget_failure
from gcl_core.grid.steps import (
    STATES,
    Job,
    Rates,
    State,
    Step,
    jobs_of,
    predicted,
    state_of,
    steps_left,
)
from gcl_core.results.records import add_records

log = logging.getLogger(__name__)


def _jobs(options: argparse.Namespace) -> list[Job]:
    cells = cells_of(options.file, dataset=options.dataset, accelerator=options.accelerator)
    return jobs_of(cells, options.runs, options.accelerator)


def _workers(options: argparse.Namespace, steps: Sequence[Step]) -> int:
    """Processes on this machine."""
    on_gpu = any(step.device == "gpu" for step in steps)
    if options.per_gpu and not on_gpu:
        raise GCLError("--per-gpu is for runs on a GPU, and none is left here; take --workers")
    if options.workers:
        return int(options.workers)
    if on_gpu:
        return (options.per_gpu or 1) * max(1, hardware.gpus())
    return max(1, hardware.usable_cores() // (options.threads or 1))


def _threads(options: argparse.Namespace, steps: Sequence[Step], workers: int) -> int:
    """CPU threads of each: beside a GPU of this machine its share of the cores, to decode images.

    On a CPU the last bits depend on their number.
    """
    on_gpus = not options.scheduler and all(step.device == "gpu" for step in steps)
    return options.threads or (max(1, hardware.usable_cores() // workers) if on_gpus else 1)


def _show(jobs: Sequence[Job]) -> list[State]:
    """Print how far each cell is, and how many are as far."""
    states = [state_of(job) for job in jobs]
    width = max(len(job.cell.name) for job in jobs)
    for job, state in zip(jobs, states, strict=True):
        print(f"{job.cell.name:{width}}  {state}")
    counts = Counter(state.kind for state in states)
    total = ", ".join(f"{counts[kind]} {kind}" for kind in STATES if counts[kind])
    print(f"{len(jobs)} cells: {total}")
    return states


def status(options: argparse.Namespace) -> None:
    """Print how far every cell is."""
    _show(_jobs(options))


def plan(options: argparse.Namespace) -> None:
    """Print how far every cell is, and how long the rest will take."""
    jobs = _jobs(options)
    _show(jobs)
    if steps := steps_left(jobs):
        workers = _workers(options, steps)
        with_them = "one worker" if workers == 1 else f"{workers} workers"
        print(f"{_time_left(steps, options.runs, workers)} of training left with {with_them}")


def _time_left(steps: Sequence[Step], runs: Path, workers: int) -> str:
    seconds, unknown = predicted(steps, Rates(runs), workers)
    if unknown == len(steps):
        return "an unknown time (no run to predict from)"
    return clock(seconds) + (f" and {unknown} steps of unknown time" if unknown else "")


def run(options: argparse.Namespace) -> int:
    """Do what is left; returns 0 if all cells are done."""
    jobs = _jobs(options)
    if options.retry_failed:
        for folder in {folder for job in jobs for folder in job.folders}:
            forget_failure(folder)
    kinds = [state_of(job).kind for job in jobs]
    done, failed = kinds.count("done"), kinds.count("failed")
    todo = [job for job, kind in zip(jobs, kinds, strict=True) if kind not in ("done", "failed")]
    log.info("%d cells, %d of them done", len(jobs), done)
    if failed:
        log.info("%d failed before and are left out; --retry-failed tries them again", failed)
    if todo:
        _execute(options, todo, steps_left(todo))
    states = _show(jobs)
    return 0 if all(state.kind == "done" for state in states) else 1


def _execute(options: argparse.Namespace, todo: list[Job], steps: list[Step]) -> None:
    from gcl_core.grid.cluster import execute

    if any(step.device == "gpu" for step in steps) and not (options.scheduler or hardware.gpus()):
        raise GCLError("there is no GPU here; --accelerator cpu runs the grid without one")
    ended, told = 0, -math.inf
    ending = defaultdict(list)  # by the key of a step: jobs that end with its success, its failure
    for job in todo:
        for step in job.steps:
            ending[step.key, "failure"].append(job)
        ending[job.steps[-1].key, "success"].append(job)

    def finished(step: Step, failure: str | None, workers: int) -> None:
        nonlocal ended, told
        ends = ending[step.key, "failure" if failure else "success"]
        for job in ends:
            ended += 1
            result = job.folders[-1].result or {}
            done = f"top-1 {result['top1']:.2f} %" if "top1" in result else "done"
            log.info("%d/%d %s: %s", ended, len(todo), job.cell.name, failure or done)
        cells.update(len(ends))
        # All runs are read for it, so it takes at most a twentieth of the time.
        if ends and ended < len(todo) and (began := time.monotonic()) > told:
            log.info("  %s left", _time_left(steps_left(todo), options.runs, workers))
            told = time.monotonic() + 20 * (time.monotonic() - began)

    workers = _workers(options, steps)
    # Lines go above the bar; a log has one for each cell, and needs no other.
    kind = "bar" if watched() else "none"
    with Bar("cells", len(todo), "cell", kind) as cells, logging_redirect_tqdm():
        execute(
            steps,
            finished,
            workers=workers,
            threads=_threads(options, steps, workers),
            scheduler=options.scheduler,
            seconds=60 * options.minutes if options.minutes else math.inf,
        )


def collect(options: argparse.Namespace) -> None:
    """Write the results of all finished cells."""
    from gcl_core.grid.parquet import records_of, save_results

    jobs = _jobs(options)
    if options.out or not options.records:
        file = options.out or Path("results.parquet")
        print(f"{file}: {save_results(file, jobs)} of {len(jobs)} cells")
    if options.records:
        records = records_of(jobs)
        others = add_records(options.records, records) - len(records)
        beside = f", beside {others} of runs that are not here" if others else ""
        print(f"{options.records}: {len(records)} of {len(jobs)} cells{beside}")
