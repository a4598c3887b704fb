"""The command line of grids: `python -m gcl_core grid {plan,run,status,collect} FILE`."""

import argparse
import logging
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcl_core.errors import GCLError

if TYPE_CHECKING:
    from gcl_core.grid.steps import Job, State, Step

log = logging.getLogger(__name__)


def add_grid(grid: argparse.ArgumentParser, positive: Callable[[str], int]) -> None:
    """Add the grid's commands to the parser of `grid`; each sets `run`."""
    actions = grid.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("file", type=Path, metavar="FILE", help="the grid, a YAML file")
        added.add_argument(
            "--runs", type=Path, default=Path("runs"), help="folder of all runs (runs)"
        )
        added.add_argument("--dataset", help="instead of the file's")
        added.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "gpu"))
        return added

    def workers(added: argparse.ArgumentParser) -> None:
        number = added.add_mutually_exclusive_group()
        number.add_argument(
            "--workers", type=positive, help="processes (as many as fill the cores; one a GPU)"
        )
        number.add_argument("--per-gpu", type=positive, help="processes on each GPU (1)")
        added.add_argument(
            "--threads",
            type=positive,
            default=1,
            help="CPU threads of each (1: small networks gain more from processes); the last bits "
            "depend on them",
        )

    plan = action("plan", _plan, "validate every cell; show what is done, what is left, how long")
    workers(plan)
    run = action("run", _run, "train what is left, on this machine or on a Dask cluster")
    workers(run)
    where = run.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask cluster")
    where.add_argument(
        "--minutes",
        type=positive,
        help="stop after them; the same command continues (this machine's workers only)",
    )
    run.add_argument("--retry-failed", action="store_true", help="try failed cells again")
    action("status", _status, "show how far every cell is")
    collect = action("collect", _collect, "write the results of all finished cells to one file")
    collect.add_argument(
        "--out", type=Path, help="a parquet file, one row a cell (results.parquet)"
    )
    collect.add_argument("--records", type=Path, help="a JSON file of run records to add to")


def _jobs(options: argparse.Namespace) -> "list[Job]":
    from gcl_core.grid.cells import cells_of
    from gcl_core.grid.steps import jobs_of

    cells = cells_of(options.file, dataset=options.dataset, accelerator=options.accelerator)
    return jobs_of(cells, options.runs, options.accelerator)


def _workers(options: argparse.Namespace, steps: "Sequence[Step]") -> int:
    """Processes on this machine."""
    from gcl_core.hardware import gpus

    on_gpu = any(step.device == "gpu" for step in steps)
    if options.per_gpu and not on_gpu:
        raise GCLError("--per-gpu is for runs on a GPU, and none is left here; take --workers")
    if options.workers:
        return int(options.workers)
    if on_gpu:
        return (options.per_gpu or 1) * max(1, gpus())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // options.threads)


def _listing(jobs: "Sequence[Job]", states: "Sequence[State]") -> str:
    from gcl_core.grid.steps import STATES

    width = max(len(job.cell.name) for job in jobs)
    lines = [f"{j.cell.name:{width}}  {s}" for j, s in zip(jobs, states, strict=True)]
    counts = Counter(state.kind for state in states)
    total = ", ".join(f"{counts[kind]} {kind}" for kind in STATES if counts[kind])
    return "\n".join([*lines, f"{len(jobs)} cells: {total}"])


def _show(jobs: "Sequence[Job]") -> "list[State]":
    from gcl_core.grid.steps import state_of

    states = [state_of(job) for job in jobs]
    print(_listing(jobs, states))
    return states


def _status(options: argparse.Namespace) -> None:
    _show(_jobs(options))


def _plan(options: argparse.Namespace) -> None:
    from gcl_core.grid.steps import steps_left

    jobs = _jobs(options)
    _show(jobs)
    if steps := steps_left(jobs):
        workers = _workers(options, steps)
        with_them = "one worker" if workers == 1 else f"{workers} workers"
        print(f"{_time_left(steps, options.runs, workers)} of training left with {with_them}")


def _time_left(steps: "Sequence[Step]", runs: Path, workers: int) -> str:
    from gcl_core.grid.steps import Rates, predicted

    seconds, unknown = predicted(steps, Rates(runs), workers)
    if unknown == len(steps):
        return "an unknown time (no run to predict from)"
    clock = f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
    return f"{clock} and {unknown} steps of unknown time" if unknown else clock


def _run(options: argparse.Namespace) -> int:
    from gcl_core.grid.failures import forget_failure
    from gcl_core.grid.steps import state_of, steps_left

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


def _execute(options: argparse.Namespace, todo: "list[Job]", steps: "list[Step]") -> None:
    from gcl_core.grid.cluster import execute
    from gcl_core.grid.steps import steps_left
    from gcl_core.hardware import gpus

    if not options.scheduler and not gpus() and any(step.device == "gpu" for step in steps):
        raise GCLError("there is no GPU here; --accelerator cpu runs the grid without one")
    ended, told = 0, -math.inf
    ending = defaultdict(list)  # by the key of a step: jobs that end with its success, its failure
    for job in todo:
        for step in job.steps:
            ending[step.key, "failure"].append(job)
        ending[job.steps[-1].key, "success"].append(job)

    def finished(step: "Step", failure: str | None, workers: int) -> None:
        nonlocal ended, told
        ends = ending[step.key, "failure" if failure else "success"]
        for job in ends:
            ended += 1
            log.info("%d/%d %s: %s", ended, len(todo), job.cell.name, failure or _outcome(job))
        # All runs are read for it, so it takes at most a twentieth of the time.
        if ends and ended < len(todo) and (began := time.monotonic()) > told:
            log.info("  %s left", _time_left(steps_left(todo), options.runs, workers))
            told = time.monotonic() + 20 * (time.monotonic() - began)

    execute(
        steps,
        finished,
        workers=_workers(options, steps),
        threads=options.threads,
        scheduler=options.scheduler,
        seconds=60 * options.minutes if options.minutes else math.inf,
    )


def _outcome(job: "Job") -> str:
    result = job.folders[-1].result or {}
    return f"top-1 {result['top1']:.2f} %" if "top1" in result else "done"


def _collect(options: argparse.Namespace) -> None:
    from gcl_core.grid.parquet import records_of, save_results
    from gcl_core.results.records import add_records

    jobs = _jobs(options)
    if options.out or not options.records:
        file = options.out or Path("results.parquet")
        print(f"{file}: {save_results(file, jobs)} of {len(jobs)} cells")
    if options.records:
        records = records_of(jobs, history=True)
        others = add_records(options.records, records) - len(records)
        beside = f", beside {others} of runs that are not here" if others else ""
        print(f"{options.records}: {len(records)} of {len(jobs)} cells{beside}")
