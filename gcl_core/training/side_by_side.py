"""Work side by side, one process for each core, such as runs, each in its own folder."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
import torch
from joblib.externals.loky.process_executor import BrokenProcessPool

from gcl_core.errors import MachineError
from gcl_core.hardware import usable_cores
from gcl_core.methods.settings import Settings
from gcl_core.training.two_stages import Run, run


def side_by_side(tasks: Iterable[Any], workers: int | None = None) -> Iterator[Any]:
    """The results of tasks of `joblib.delayed`, in their order, each as soon as it is there.

    Args:
        workers: processes; None is one for each core, 1 is none besides this one.

    Raises:
        MachineError: one of the processes was killed.
    """
    parallel = joblib.Parallel(n_jobs=workers or usable_cores(), return_as="generator")
    try:
        yield from parallel(tasks)
    except BrokenProcessPool as error:
        raise MachineError(
            "a process was killed, perhaps for want of memory; the same command goes on with what "
            "is left, with fewer workers in less memory"
        ) from error


def run_many(
    settings: Sequence[Settings],
    runs: Path,
    *,
    workers: int | None = None,
    keep: Collection[int] = (),
) -> list[Run]:
    """`run` of each of the settings, in their order; finished runs are only read.

    Runs that share a stage 1 train it once: whoever comes second waits for the first.

    Args:
        workers: see `side_by_side`. Each has one thread: small networks gain more from several runs
            side by side than from several threads in one.
        keep: see `gcl_core.training.two_stages.run`.

    Raises:
        GCLError: as `run` and `side_by_side`.
    """
    tasks = [joblib.delayed(run_on_one_thread)(each, runs, keep) for each in settings]
    return list(side_by_side(tasks, workers))


def run_on_one_thread(settings: Settings, runs: Path, keep: Collection[int] = ()) -> Run:
    """`run` without a word; the number of threads is put back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(settings, runs, progress="none", keep=keep)
    finally:
        torch.set_num_threads(threads)
