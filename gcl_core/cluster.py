"""The steps of a grid on Dask distributed: a cluster of this machine, or one that is running.

A worker is a process with one thread for tasks. A task is one step; it is handed out when the step
that it needs is done and a worker is free, so that no worker waits for another, and the death of a
worker is laid to the one step that it was at.
"""

import logging
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from typing import Any

import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, wait
from tqdm import tqdm

from gcl_core.errors import GCLError
from gcl_core.grid import NotebookCell
from gcl_core.runs import RESULTS_VERSION
from gcl_core.steps import Step

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10  # for a scheduler to answer
LOOK_SECONDS = 2.0  # between two looks for workers that have come
DEATHS = 3  # of a worker in one step before the step is given up: Dask's own default


def execute(
    steps: Sequence[Step],
    finished: Callable[[Step, str | None, int], None],
    *,
    workers: int,
    threads: int = 1,
    scheduler: str | None = None,
    accelerator: str = "auto",
) -> None:
    """Do all steps, each after the one that it needs; a step that fails stops no other.

    What failed is kept in `error.json` of its folder. Steps after it are left out.

    Args:
        finished: is told of every step as it ends, of what it failed with, else None, and how many
            workers there are.
        workers: processes of the cluster on this machine.
        threads: threads that torch uses in each worker.
        scheduler: address of a running cluster, instead of one on this machine.

    Raises:
        GCLError: the scheduler does not answer or went away, or a worker has another version.
    """
    waiting = {step.key: step for step in steps}
    running: dict[Future[Any], Step] = {}
    known: set[str] = set()
    with _client(min(workers, len(steps)), scheduler) as client:
        while waiting or running:
            with _answering(scheduler):
                present = client.nthreads()
                free = max(0, sum(present.values()) - len(running))
                for step in [s for s in waiting.values() if _ready(s, waiting, running)][:free]:
                    del waiting[step.key]
                    call = (step, threads, accelerator)
                    running[client.submit(do, *call, key=_key(step), pure=False)] = step
                ended = _ended(running)
            if gone := known - present.keys():
                log.info("%d workers went away; others go on with what they were at", len(gone))
            known = set(present)
            for step, answer in ended:
                failure = _failure(step, answer)
                if failure is not None:
                    waiting = {k: s for k, s in waiting.items() if not _needs(s, step)}
                finished(step, failure, max(1, len(known)))


def do(step: Step, threads: int, accelerator: str) -> str | None:
    """Do a step, in a worker; returns the first line of what it failed with, which is kept."""
    torch.set_num_threads(threads)
    # Its own is a semaphore of the system, which a worker that is killed would leave behind.
    tqdm.set_lock(threading.RLock())
    try:
        _train_or_execute(step, accelerator)
    except Exception as error:  # of any kind: the other steps have nothing to do with it
        kind, line = type(error).__name__, _first_line(error)
        try:
            step.folder.fail(kind, line, traceback.format_exc())
        except (GCLError, OSError) as second:
            return f"{kind}: {line} (not kept: {_first_line(second)})"
        return f"{kind}: {line}"
    return None


def _train_or_execute(step: Step, accelerator: str) -> None:
    if isinstance(step.work, NotebookCell):
        _execute_notebook(step, step.work)
        return
    from gcl_core.dataset import load_dataset
    from gcl_core.training import run, stage1_folder, stage2_folder

    dataset = load_dataset(step.work.data)
    folder = stage1_folder(step.work, dataset, step.folder.path.parent)
    if step.work.stage2 is not None:
        folder = stage2_folder(step.work.stage2, folder)
    if folder.path != step.folder.path:
        raise GCLError(
            "images or version of gcl_core on the worker are not those that the grid was read with"
        )
    runs = step.folder.path.parent
    run(step.work, runs, accelerator=accelerator, progress="none", dataset=dataset)


def _execute_notebook(step: Step, cell: NotebookCell) -> None:
    import papermill

    from gcl_core.study import execute_notebook

    folder = step.folder
    known = papermill.inspect_notebook(cell.notebook)
    # Its runs are shared with all others, and it has one worker to itself.
    place = {"runs": str(folder.path.parent), "workers": 1}
    parameters = {name: given for name, given in place.items() if name in known}
    parameters |= {k: list(v) if isinstance(v, tuple) else v for k, v in cell.parameters}
    with folder.opened():
        if folder.result is None:
            execute_notebook(cell.notebook, folder.path / cell.notebook.name, parameters)
            folder.finish({"notebook": cell.notebook.name})


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _key(step: Step) -> str:
    return f"gcl-{step.folder.path.parent}-{step.key}"


def _needs(step: Step, other: Step) -> bool:
    return step.after is not None and step.after.key == other.key


def _ready(step: Step, waiting: dict[str, Step], running: dict[Future[Any], Step]) -> bool:
    return not any(_needs(step, other) for other in (*waiting.values(), *running.values()))


def _ended(running: dict[Future[Any], Step]) -> list[tuple[Step, Any]]:
    """Steps that have ended, taken out of `running`, with what `do` returned or an exception.

    Waits for one, but not for long: workers may have come.
    """
    if not running:
        time.sleep(LOOK_SECONDS)
        return []
    try:
        done = wait(list(running), LOOK_SECONDS, "FIRST_COMPLETED").done
    except TimeoutError:
        return []
    return [(running.pop(future), future.exception() or future.result()) for future in done]


def _failure(step: Step, answer: Any) -> str | None:
    """What a step failed with; kept here if the worker did not live to do it."""
    if not isinstance(answer, BaseException):
        return answer
    kind, line = type(answer).__name__, _first_line(answer)
    if isinstance(answer, KilledWorker):
        line = f"{answer.allowed_failures + 1} workers died at it"
    step.folder.fail(kind, line, "")
    return f"{kind}: {line}"


@contextmanager
def _answering(scheduler: str | None) -> Iterator[None]:
    try:
        yield
    except (CancelledError, OSError, TimeoutError) as error:
        raise GCLError(
            f"the scheduler {scheduler or 'of this machine'} went away ({type(error).__name__}); "
            "the same command continues after the last saved epochs"
        ) from error


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gcl-dask-"))
        stack.enter_context(
            dask.config.set(
                {
                    "temporary-directory": folder,
                    "distributed.comm.timeouts.connect": ANSWER_SECONDS,
                    "distributed.scheduler.allowed-failures": DEATHS,
                }
            )
        )
        if scheduler is None:
            scheduler_or_cluster: Any = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    # No dashboard; the rest of Dask's web server, which cannot be left out, at a
                    # free port.
                    dashboard_address=None,
                    scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                    memory_limit=0,  # as for a run without Dask; it would stop workers early
                    silence_logs=logging.CRITICAL,
                    local_directory=folder,
                    preload=["gcl_core.worker"],
                )
            )
        else:
            scheduler_or_cluster = scheduler
        try:
            client = Client(scheduler_or_cluster, timeout=ANSWER_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            raise GCLError(
                f"no scheduler answers at {scheduler} ({_first_line(error)}); "
                "start one with: dask scheduler"
            ) from error
        stack.enter_context(client)
        if scheduler is not None:
            _check_workers(client)
        yield client


def _check_workers(client: Client) -> None:
    """Refuse workers that run several tasks at once, or another gcl_core."""
    threads = client.nthreads()
    if not threads:
        log.info("the scheduler has no workers yet; waiting for them")
    for address, number in threads.items():
        if number != 1:
            raise GCLError(f"worker {address} has {number} threads; start it with --nthreads 1")
    try:
        versions = client.run(results_version)
    except Exception as error:  # whatever importing can end with there
        raise GCLError(f"a worker cannot import gcl_core: {_first_line(error)}") from error
    for address, version in versions.items():
        if version != RESULTS_VERSION:
            raise GCLError(
                f"worker {address} has results version {version}, not {RESULTS_VERSION}; "
                "install the same gcl_core there"
            )


def results_version() -> int:
    """That of the process it is called in."""
    return RESULTS_VERSION


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask tells every coming and going; what matters of it is told here in other words."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
