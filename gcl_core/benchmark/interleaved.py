"""Candidates that are timed side by side: each in a process of its own, all by turns.

Every candidate lives in a process of its own and works for a short slice when it is told to; the
slices are interleaved round by round, since the speed of a machine drifts. Quoted are medians over
the rounds, and for ratios the median of the ratios within a round.
"""

import collections
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import nn

from gcl_core.data.epoch import FrozenFeatures, TrainingImages
from gcl_core.hardware import best_precision, channels_last, keep_freed_memory
from gcl_core.networks.models import build_network
from gcl_core.networks.network import Network
from gcl_core.training.progress import Progress
from gcl_core.training.stage import train_epoch
from gcl_core.training.step import make_step, step_kind
from gcl_core.training.two_stages import make_fabric

Job = Callable[[], Any]
"""What a candidate does in one slice."""
Make = Callable[[Fabric], Job]
"""Makes a job for a device; a function that can be pickled."""


class Spent(NamedTuple):
    """Seconds of one slice: by the clock, and of the processor in the candidates' own processes."""

    wall: float
    cpu: float = 0.0


def elapsed(
    action: Callable[[], object],
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds until the device has done an action, from when it has done all before."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    began = clock()
    action()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - began


class Workers:
    """Processes that each hold one candidate, warmed up, and work when told to."""

    def __init__(self, accelerator: str) -> None:
        self.accelerator = accelerator
        methods = multiprocessing.get_all_start_methods()
        self.context = multiprocessing.get_context(
            "forkserver" if "forkserver" in methods else None
        )
        self.context.set_forkserver_preload([__name__])
        self.processes: list[tuple[Any, Connection]] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process, connection in self.processes:
            connection.close()  # which ends it, unless it is in the middle of something
            process.join(10)
            process.kill()
            process.join()

    def start(self, make: Make, threads: int) -> Connection:
        """Start a process with so many CPU threads for a job; returns when it is warm."""
        connection = self._started(make, threads)
        self.time(connection)
        return connection

    def _started(self, make: Make, threads: int) -> Connection:
        ours, theirs = self.context.Pipe()
        told = (make, threads, self.accelerator, theirs)
        process = self.context.Process(target=_serve, args=told)
        process.start()
        theirs.close()
        self.processes.append((process, ours))
        ours.recv()
        return ours

    def time(self, *connections: Connection) -> Spent:
        """Seconds until all of the jobs, started together, have done one slice."""
        began = time.perf_counter()
        for connection in connections:
            connection.send(None)
        cpu = sum(connection.recv()[1] for connection in connections)
        return Spent(time.perf_counter() - began, cpu)

    def measure(self, make: Make, threads: int) -> Any:
        """What a job returns, done once."""
        connection = self._started(make, threads)
        connection.send(None)
        return connection.recv()[0]


def _serve(make: Make, threads: int, accelerator: str, connection: Connection) -> None:
    torch.set_num_threads(threads)
    fabric = make_fabric(accelerator, best_precision(accelerator))
    work = make(fabric)
    connection.send("ready")
    while True:
        try:
            connection.recv()
        except EOFError:  # the other side is done
            return
        began = time.process_time()
        answer = work()
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        connection.send((answer, time.process_time() - began))


def rate_of(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """Median over the rounds."""
    return round(statistics.median(row[name] for row in rows), 1)


def ratio_of(rows: Sequence[Mapping[str, float]], name: str, base: str, digits: int = 2) -> float:
    """Median over the rounds of the ratio to another one."""
    return round(statistics.median(row[name] / row[base] for row in rows), digits)


def trainer(fabric: Fabric, module: nn.Module, batches: TrainingImages | FrozenFeatures) -> Job:
    """Epochs of cross-entropy, as a stage trains them."""
    optimizer = torch.optim.SGD(
        module.parameters(), 0.1, momentum=0.9, weight_decay=2e-4, fused=True
    )
    trained, stepper = fabric.setup(module, optimizer)
    bar = Progress("none", "", 0, 1, len(batches))
    criterion = nn.CrossEntropyLoss()
    step = make_step(step_kind("auto", fabric), fabric, trained, stepper, [])
    return lambda: train_epoch(step, criterion, batches, bar)


def new_network(fabric: Fabric, name: str, classes: int) -> Network:
    """A network with a linear classifier, on the device."""
    if fabric.device.type == "cpu":
        keep_freed_memory()
    return channels_last(build_network(name, classes, "linear").to(fabric.device))


def drain(batches: Iterable[object]) -> None:
    """Make all batches, and keep none."""
    collections.deque(batches, maxlen=0)
