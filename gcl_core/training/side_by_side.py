"""A few runs side by side: one process for each core, each run in its own folder."""

from collections.abc import Collection, Sequence
from pathlib import Path

import joblib
import torch

from gcl_core.methods.settings import Settings
from gcl_core.training.two_stages import Run, run


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
        workers: processes of one thread each; None is one for each core. Small networks gain more
            from several runs side by side than from several threads in one.
        keep: see `gcl_core.training.two_stages.run`.

    Raises:
        GCLError: as `run`.
    """
    if workers == 1:
        return [_one(each, runs, keep) for each in settings]
    workers = workers or joblib.cpu_count()
    tasks = (joblib.delayed(_one)(each, runs, keep) for each in settings)
    return joblib.Parallel(n_jobs=workers)(tasks)


def _one(settings: Settings, runs: Path, keep: Collection[int]) -> Run:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(settings, runs, progress="none", keep=keep)
    finally:
        torch.set_num_threads(threads)
