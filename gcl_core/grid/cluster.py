"""The steps of a grid on Dask distributed: a cluster of this machine, or one that is running.

Dask starts the processes and replaces those that die, carries steps to them and tells when one has
ended. What it lacks, and what is here:

- Dask hands a task that can run to a worker at once, even to a busy one, and blames the death of a
  worker on all tasks that were handed to it. Told everything at the start, it gives up a third of a
  grid because of one step that kills its worker. So a worker gets a step when it is idle, and a
  death is counted for that step alone. (Only Dask's own queue would wait for idle workers, and it
  takes no task that is restricted to some of them.)
- The same results need the same version of gcl_core and one thread for tasks. Workers of a running
  cluster are checked when they come.
- What goes wrong is told in one line, and kept in the folder of the run.
"""

import asyncio
import logging
import math
import tempfile
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, get_worker
from tqdm import tqdm

from gcl_core.errors import GCLError
from gcl_core.grid.cells import NotebookCell
from gcl_core.grid.failures import forget_failure, keep_failure
from gcl_core.grid.steps import Step
from gcl_core.hardware import take_gpu
from gcl_core.training.runs import RESULTS_VERSION

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10  # for a scheduler to answer
LOOK_SECONDS = 2.0  # between two looks for workers that have come
ALONE_SECONDS = 60.0  # without any worker on this machine: Dask replaces one in a few
STARTS = 3  # of the workers of this machine before the grid is given up
DEATHS = 3  # of a worker in one step before the step is given up: Dask's own default


def execute(
    steps: Sequence[Step],
    finished: Callable[[Step, str | None, int], None],
    *,
    workers: int,
    threads: int = 1,
    scheduler: str | None = None,
    seconds: float = math.inf,
) -> None:
    """Do all steps, each after the one that it needs; a step that fails stops no other.

    What failed is kept in `error.json` of its folder. Steps after it are left out.

    Args:
        finished: is told of every step as it ends, of what it failed with, else None, and how many
            workers there are.
        workers: processes of the cluster on this machine.
        threads: threads that torch uses in each worker.
        scheduler: address of a running cluster, instead of one on this machine.
        seconds: after them the workers of this machine are ended, whatever they are at.

    Raises:
        GCLError: the scheduler does not answer or went away, a worker that is there at the start is
            unfit, or on this machine no worker is left.
    """
    end = time.monotonic() + seconds
    ready, dependants = _queued(steps)
    running: dict[Future[Any], tuple[Step, str]] = {}
    ended: SimpleQueue[Future[Any]] = SimpleQueue()
    deaths: Counter[str] = Counter()
    with _client(min(workers, len(steps)), scheduler) as client:
        crew = _Crew(client, scheduler)
        while ready or running:
            if time.monotonic() > end:
                log.info("the time is over; the same command continues after the last saved epochs")
                break
            with _answering(scheduler):
                tasks = crew.look()
                lost = _lost(running, tasks)
                deaths.update(step.key for step in lost)
                ready.extendleft(step for step in lost if deaths[step.key] <= DEATHS)
                busy = {address for _, address in running.values()}
                idle = [each for each, its in tasks.items() if not its and each not in busy]
                for address in idle[: len(ready)]:
                    step = ready.popleft()
                    key = f"gcl-{step.folder.path}-{deaths[step.key]}"
                    call = (do, step, threads)
                    future = client.submit(*call, key=key, pure=False, workers=[address])
                    running[future] = step, address
                    future.add_done_callback(ended.put)
                answers = _answers(running, ended)
            answers += [(s, deaths[s.key]) for s in lost if deaths[s.key] > DEATHS]
            for step, answer in answers:
                failure = _failure(step, answer)
                after = dependants.pop(step.key, [])
                if failure is None:
                    ready.extendleft(reversed(after))
                finished(step, failure, max(1, len(tasks)))


def _queued(steps: Sequence[Step]) -> tuple[deque[Step], dict[str, list[Step]]]:
    """Steps that can be done at once, and by the key of another step those that need it first."""
    keys = {step.key for step in steps}
    ready: deque[Step] = deque()
    dependants: dict[str, list[Step]] = {}
    for step in steps:
        if step.after is not None and step.after.key in keys:
            dependants.setdefault(step.after.key, []).append(step)
        else:
            ready.append(step)
    return ready, dependants


class _Crew:
    """The workers that steps are given to: of a running cluster only those that are fit."""

    def __init__(self, client: Client, scheduler: str | None) -> None:
        self.client, self.scheduler = client, scheduler
        self.fit: set[str] = set()
        self.unfit: set[str] = set()
        self.seen = time.monotonic()
        if scheduler is None:
            return
        present = client.nthreads()
        if not present:
            log.info("the scheduler has no workers yet; waiting for them")
        checked = _checked(client, present)
        for reason in filter(None, checked.values()):
            raise GCLError(reason)
        self.fit = set(checked)

    def look(self) -> dict[str, Sequence[Any]]:
        """The fit workers that are there, and which tasks each of them has; tells who came or went.

        Raises:
            GCLError: on this machine none has been there for `ALONE_SECONDS`.
        """
        tasks: dict[str, Sequence[Any]] = self.client.processing()
        if gone := self.fit - tasks.keys():
            log.info("workers that went away: %d; others go on with what they were at", len(gone))
        self.fit &= tasks.keys()
        self.unfit &= tasks.keys()
        new = tasks.keys() - self.fit - self.unfit
        checked = _checked(self.client, new) if new and self.scheduler else dict.fromkeys(new)
        for address, reason in checked.items():
            (self.fit if reason is None else self.unfit).add(address)
            if reason is not None:
                log.info("left out: %s", reason)
        if self.fit or self.scheduler is not None:
            self.seen = time.monotonic()
        elif time.monotonic() - self.seen > ALONE_SECONDS:
            raise GCLError(
                "no worker is left on this machine, and none is started again; "
                "the same command continues after the last saved epochs"
            )
        return {address: each for address, each in tasks.items() if address in self.fit}


def _checked(client: Client, workers: Iterable[str]) -> dict[str, str | None]:
    """Why workers of a running cluster cannot be used, None if they can; of those that answer."""
    threads = client.nthreads()
    versions = client.run(results_version, workers=list(workers), on_error="return")
    found: dict[str, str | None] = {}
    for address, version in versions.items():
        number = threads.get(address, 1)
        if isinstance(version, OSError):
            continue  # it has gone again; the next look tells
        if number != 1:
            found[address] = f"worker {address} has {number} threads; start it with --nthreads 1"
        elif isinstance(version, Exception):  # whatever importing can end with there
            line = _first_line(version)
            found[address] = f"worker {address} cannot import gcl_core: {line}"
        elif version != RESULTS_VERSION:
            found[address] = (
                f"worker {address} has results version {version}, not {RESULTS_VERSION}; "
                "install the same gcl_core there"
            )
        else:
            found[address] = None
    return found


def do(step: Step, threads: int) -> str | None:
    """Do a step, in a worker; returns the first line of what it failed with, which is kept."""
    torch.set_num_threads(threads)
    if step.device == "gpu" and isinstance(name := get_worker().name, int):
        take_gpu(name)  # of this machine's workers, which are numbered; others were given theirs
    # By default tqdm makes a semaphore of the system, which a killed worker would leave behind.
    tqdm.set_lock(threading.RLock())
    try:
        forget_failure(step.folder)
        _train_or_execute(step)
    except Exception as error:  # of any kind: the other steps have nothing to do with it
        kind, line = type(error).__name__, _first_line(error)
        try:
            keep_failure(step.folder, kind, line, traceback.format_exc())
        except (GCLError, OSError) as second:
            return f"{kind}: {line} (not kept: {_first_line(second)})"
        return f"{kind}: {line}"
    return None


def _train_or_execute(step: Step) -> None:
    if isinstance(step.work, NotebookCell):
        _execute_notebook(step, step.work)
        return
    from gcl_core.data.load import load_dataset
    from gcl_core.training.two_stages import run, run_folders

    dataset = load_dataset(step.work.data)
    runs = step.folder.path.parent
    folders = run_folders(step.work, dataset.described, runs, device=step.device)
    if folders[-1].path != step.folder.path:
        raise GCLError(
            "images or version of gcl_core on the worker are not those that the grid was read with"
        )
    run(step.work, runs, accelerator=step.device, progress="none", dataset=dataset)


def _execute_notebook(step: Step, cell: NotebookCell) -> None:
    from gcl_core.course.execution import accepted, execute_notebook

    folder = step.folder
    # The notebook trains into the grid's folder of runs, in this one process.
    parameters = accepted(cell.notebook, {"runs": str(folder.path.parent), "workers": 1})
    parameters |= {k: list(v) if isinstance(v, tuple) else v for k, v in cell.parameters}
    with folder.opened():
        if not folder.is_finished:
            execute_notebook(cell.notebook, folder.path / cell.notebook.name, parameters)
            folder.finish({"notebook": cell.notebook.name})


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _lost(running: dict[Future[Any], tuple[Step, str]], present: Iterable[str]) -> list[Step]:
    """Steps whose worker is not there any more, taken out of `running`."""
    gone = [future for future, (_, address) in running.items() if address not in present]
    for future in gone:
        future.cancel()  # else Dask would go on with it if that worker came back
    return [running.pop(future)[0] for future in gone]


def _answers(
    running: dict[Future[Any], tuple[Step, str]], ended: "SimpleQueue[Future[Any]]"
) -> list[tuple[Step, Any]]:
    """Steps that have ended, taken out of `running`, with what `do` returned or an exception.

    Waits for one, but not for long: workers may have come.
    """
    answers = []
    with suppress(Empty):
        future = ended.get(timeout=LOOK_SECONDS)
        while True:
            if future in running:  # else its worker died, and the step is in another
                with suppress(TimeoutError):  # its worker died with the answer
                    answer = future.exception(LOOK_SECONDS) or future.result(LOOK_SECONDS)
                    answers.append((running.pop(future)[0], answer))
            future = ended.get_nowait()
    return answers


def _failure(step: Step, answer: Any) -> str | None:
    """What a step failed with; kept here if no worker lived to do it.

    Args:
        answer: what `do` returned, an exception, or how many workers died at the step.
    """
    died = answer.allowed_failures + 1 if isinstance(answer, KilledWorker) else answer
    if isinstance(died, int):
        kind, line = "KilledWorker", f"{died} workers died at it"
    elif isinstance(answer, BaseException):
        kind, line = type(answer).__name__, _first_line(answer)
    else:
        return answer
    keep_failure(step.folder, kind, line)
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


class _PromptClient(Client):
    """Gives up in time, whatever it is that answers, and closes itself if it cannot connect.

    Dask's own waits for ever for a greeting from what is no scheduler, such as its dashboard. Left
    open, it is closed by whatever thread collects it. If that is the thread of the next client's
    event loop, the closing waits for a lock that is held until this thread answers.
    """

    def start(self, **kwargs: Any) -> None:
        try:
            super().start(**kwargs)
        except BaseException:
            self.close()
            raise

    async def _start(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.wait_for(super()._start(*args, **kwargs), 2 * ANSWER_SECONDS)


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
                    # Dask gives a worker up that is not back by then, however slow its start.
                    "distributed.deploy.lost-worker-timeout": ALONE_SECONDS,
                }
            )
        )
        if scheduler is None:
            scheduler_or_cluster: Any = stack.enter_context(_local_cluster(workers, folder))
        else:
            scheduler_or_cluster = scheduler
        try:
            client = _PromptClient(scheduler_or_cluster, timeout=ANSWER_SECONDS)
        except (OSError, TimeoutError, TypeError, ValueError) as error:
            raise GCLError(
                f"no scheduler answers at {scheduler} ({_first_line(error)}); "
                "start one with: dask scheduler"
            ) from error
        stack.enter_context(client)
        yield client


def _local_cluster(workers: int, folder: str) -> LocalCluster:
    for starts_left in reversed(range(STARTS)):
        try:
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                # No dashboard; the rest of Dask's web server, which cannot be left out, at a free
                # port.
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                memory_limit=0,  # as for a run without Dask; it would stop workers early
                silence_logs=logging.CRITICAL,
                local_directory=folder,
                preload=["gcl_core.grid.worker"],
            )
        except (OSError, RuntimeError) as error:  # such as a worker that is killed while it starts
            if not starts_left:
                raise GCLError(
                    f"workers cannot be started on this machine ({_first_line(error)}); is there "
                    f"memory for {workers}, and room in {tempfile.gettempdir()}?"
                ) from error
            log.info("workers could not be started (%s); trying again", _first_line(error))
    raise AssertionError


def results_version() -> int:
    """The results version of the process that calls this, which is a worker."""
    return RESULTS_VERSION


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's log of every worker that comes or goes; ours says what a user needs of it."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
