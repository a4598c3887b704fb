"""Image files decoded ahead of time, by threads or by processes; the pixels are the same."""

import multiprocessing
import os
import shutil
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gcl_core.data.augment import ResizedCrop
from gcl_core.data.image_files import middle, read_rgb
from gcl_core.errors import GCLError, MachineError

SHARED = Path("/dev/shm")  # where Linux has the memory that processes share
AHEAD = 2  # tasks that each process or thread has ready, or is at work on


@dataclass(frozen=True)
class Task:
    """Some images of a batch: their files, and what was drawn for each of them.

    Attributes:
        files: paths.
        size: width and height of what is made of each.
        augment: what is cut; None: the middle.
        draws: eight numbers for each image, for `augment`.
        share: of the shorter side that the middle has.
    """

    files: list[str]
    size: tuple[int, int]
    augment: ResizedCrop | None = None
    draws: list[list[float]] = field(default_factory=list)
    share: float = 1.0

    @property
    def bytes(self) -> int:
        """Of all its pixels."""
        return 3 * self.size[0] * self.size[1] * len(self.files)

    def image(self, number: int, kept: dict[str, Image.Image] | None = None) -> np.ndarray | str:
        """(H, W, 3) uint8 of one image, or what is wrong with its file.

        Args:
            kept: whole images by file; those that are missing are added.
        """
        file = self.files[number]
        whole = None if kept is None else kept.get(file)
        if whole is None:
            try:
                whole = read_rgb(file, self.size)
            except GCLError as error:
                return str(error)
            if kept is not None:
                kept[file] = whole
        if self.augment is None:
            return middle(whole, self.size, self.share)
        return np.asarray(self.augment.cut(whole, self.size, self.draws[number]))

    def batch(self, images: Iterable[np.ndarray | str]) -> "Decoded":
        """What `image` gave of each of them, together."""
        width, height = self.size
        pixels, problems = np.zeros((len(self.files), height, width, 3), np.uint8), {}
        for number, each in enumerate(images):
            if isinstance(each, str):
                problems[number] = each
            else:
                pixels[number] = each
        return torch.from_numpy(pixels), problems


Decoded = tuple[Tensor, dict[int, str]]
"""(n, H, W, 3) uint8, and by number what is wrong with the files of images that are missing."""


class Threads:
    """As many threads as PyTorch has.

    Args:
        keep: whether images that are decoded once stay in memory.
    """

    def __init__(self, keep: bool = False) -> None:
        self.kept: dict[str, Image.Image] | None = {} if keep else None

    def map(self, tasks: Iterable[Task]) -> Iterator[Decoded]:
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            begun: deque[tuple[Task, Iterator[np.ndarray | str]]] = deque()
            for task in tasks:
                numbers = range(len(task.files))
                begun.append((task, pool.map(lambda i, of=task: of.image(i, self.kept), numbers)))
                if len(begun) > AHEAD * threads:
                    before, images = begun.popleft()
                    yield before.batch(images)
            for before, images in begun:
                yield before.batch(images)


class Processes:
    """Processes of PyTorch's DataLoader, each of which decodes whole tasks.

    They are started when the first task is asked for, serve one pass over images after another,
    and end when nobody has this object any more. They are told a task's files and draws, and know
    nothing else, so that their memory does not grow with the data. They are not forked from this
    process, whose threads may hold locks at that moment; so a script that starts them keeps its
    work under `if __name__ == "__main__":`.

    Args:
        number: how many.
        pinned: whether images come in memory that a GPU can copy by itself.
    """

    def __init__(self, number: int, pinned: bool) -> None:
        self.number, self.pinned = number, pinned
        self._idle: list[DataLoader[Any]] = []

    def map(self, tasks: Iterable[Task]) -> Iterator[Decoded]:
        """The images of some tasks; several such passes at once have processes of their own.

        Raises:
            MachineError: a process has ended, or there is too little shared memory.
        """
        loader = self._idle.pop() if self._idle else self._started()
        assert isinstance(loader.sampler, _Queue)
        loader.sampler.tasks = self._that_fit(tasks)
        try:
            yield from loader
        # Of the loader, or of a start in which one dies: what is wrong with a file is not raised.
        except (EOFError, OSError, RuntimeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise MachineError(
                f"a process that decodes images has ended ({reason}), perhaps "
                "for want of memory; the same command goes on after the last checkpoint, with less "
                "memory if --workers is smaller, without such processes if it is 0"
            ) from error
        self._idle.append(loader)

    def _started(self) -> DataLoader[Any]:
        methods = multiprocessing.get_all_start_methods()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # more than cores
            return DataLoader(
                _Decoding(),
                batch_size=None,
                sampler=_Queue(),
                num_workers=self.number,
                prefetch_factor=AHEAD,
                persistent_workers=True,
                pin_memory=self.pinned,
                multiprocessing_context="forkserver" if "forkserver" in methods else "spawn",
                generator=torch.Generator(),  # else it would move the global one
                worker_init_fn=_end_with_parent,
            )

    def _that_fit(self, tasks: Iterable[Task]) -> Iterator[Task]:
        largest = 0
        for task in tasks:
            if task.bytes > largest:
                largest = task.bytes
                if problem := too_little_shared_memory(self.number, largest):
                    raise MachineError(problem)
            yield task


Decoder = Threads | Processes
"""Decodes tasks in their order; the next ones are on their way before they are asked for."""


def too_little_shared_memory(processes: int, task_bytes: int) -> str:
    """What to say if tasks of so many bytes do not fit the processes' shared memory; else ""."""
    if not SHARED.exists():  # as on macOS, where it has no limit of its own
        return ""
    needed, free = (AHEAD * processes + 1) * task_bytes, shutil.disk_usage(SHARED).free
    if needed <= free:
        return ""
    return (
        f"{processes} workers need {needed / 2**20:.0f} MB of shared memory, {SHARED} has "
        f"{free / 2**20:.0f} MB: a smaller --workers (0: none, threads decode), or a larger "
        f"{SHARED} (docker run --shm-size)"
    )


def _end_with_parent(number: int) -> None:
    """End this process when the one that started it has ended, however it did.

    PyTorch looks whether the parent in the system's sense is there, which is the fork server, and
    that one waits for the processes it forked.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class _Queue:
    """The tasks of a pass, for a DataLoader that outlives it."""

    tasks: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


class _Decoding(Dataset[Decoded]):
    """What a process does: its "index" is a task."""

    def __getitem__(self, task: Task) -> Decoded:
        pixels, problems = task.batch(task.image(i) for i in range(len(task.files)))
        # Here, as the queue's own thread, which would do it else, loses what it cannot share.
        return pixels.share_memory_(), problems
