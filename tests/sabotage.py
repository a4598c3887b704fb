"""What can happen to a process in the middle of a run; each is done inside it."""

import contextlib
import ctypes
import errno
import functools
import importlib
import itertools
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from gcl_core import files, processes
from gcl_core.cli import main
from gcl_core.errors import GCLError
from gcl_core.training import runs, stage


def set_threads(variable: str | None) -> None:
    """Two threads, or as many as OMP_NUM_THREADS says where it is to be set."""
    os.environ.pop("OMP_NUM_THREADS", None)
    if variable is not None:
        os.environ["OMP_NUM_THREADS"] = variable
    torch.set_num_threads(int(variable or 2))


def die_at_write(number: int, moment: str) -> None:
    """SIGKILL at the file that is the `number`-th to get its name, "before" or "after" it does."""
    replace, done = os.replace, []

    def replace_or_die(source, target):
        done.append(target)
        if len(done) == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if len(done) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    files.os.replace = replace_or_die


def wait_at_write(number: int, flag: str) -> None:
    """At the `number`-th file, wait until the file `flag` is there."""
    replace, done = os.replace, []

    def replace_later(source, target):
        done.append(target)
        while len(done) == number and not os.path.exists(flag):
            time.sleep(0.005)
        replace(source, target)

    files.os.replace = replace_later


def checkpoints_apart(seconds: str, number: int = 0) -> None:
    """Another interval between checkpoints, and, if there is a number, `die_at_write` before it."""
    os.environ["GCL_CHECKPOINT_SECONDS"] = os.environ["GCL_CHECKPOINT_STEP_SECONDS"] = seconds
    if number:
        die_at_write(number, "before")


def die_after_a_step(number: int) -> None:
    """A checkpoint after every step, and SIGKILL after the `number`-th file."""
    os.environ["GCL_CHECKPOINT_STEP_SECONDS"] = "0"
    die_at_write(number, "after")


def full_disk_at_write(number: int) -> None:
    """From the `number`-th file on, there is no space left."""
    fsync, done = os.fsync, []

    def fsync_or_fail(descriptor):
        done.append(descriptor)
        if len(done) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    files.os.fsync = fsync_or_fail


def small_files_only(size: int, die: bool = False) -> None:
    """No file may grow beyond `size` bytes: the system's own "File too large", or death there."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if die else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# Every change of a file


def _each_change(tell: Callable[[str], None]) -> None:
    """Call `tell(EVENT)` before this process changes a file or folder, or synchronises one."""
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    changes = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link"}

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and arguments[2] & writes
        if event in changes or (opened and not str(arguments[0]).startswith("/dev/")):
            tell(event)

    fsync = os.fsync

    def tell_and_sync(descriptor: int) -> None:
        tell("fsync")
        fsync(descriptor)

    os.fsync = tell_and_sync
    sys.addaudithook(heard)


def count_changes(file: Path) -> None:
    """Write as many bytes to a file as there are changes of others."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def count(event: str) -> None:
        os.write(descriptor, b".")

    _each_change(count)


def die_at_change(number: int) -> None:
    """SIGKILL before the `number`-th change, for this process and those that it has started."""
    done = itertools.count(1)

    def die_with_all(event: str) -> None:
        if next(done) == number:
            for each in [*psutil.Process().children(recursive=True), psutil.Process()]:
                each.kill()

    _each_change(die_with_all)


def no_space_from_change(number: int) -> None:
    """From the `number`-th change on there is no space left for what needs some."""
    done = itertools.count(1)

    def refuse(event: str) -> None:
        if next(done) >= number and event in ("open", "os.mkdir", "fsync"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _each_change(refuse)


def no_network() -> None:
    """Nothing but this machine can be reached."""
    assert not ctypes.CDLL(None).unshare(0x40000000)  # CLONE_NEWNET; os.unshare is of Python 3.12
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


# Several processes


class Fork:
    """Another process of a run, forked from this one: what a `Popen` of its command would be."""

    def __init__(self, rank, arguments, broken):
        self.code = None
        self.pid = os.fork()
        if not self.pid:
            os.environ["LOCAL_RANK"] = str(rank)
            logging.root.setLevel(logging.WARNING)
            broken.get(rank, lambda: None)()
            os._exit(main(arguments))

    def poll(self):
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def fork_the_others(arguments, broken, patience=60.0, grace=0.5):
    """Let rank 0 fork the others, which costs no start; `broken` is what to do in which rank."""

    def others(number):
        if "LOCAL_RANK" in os.environ:
            return ()
        os.environ.update(place | {"LOCAL_RANK": "0"})
        forks = [Fork(rank, arguments, broken) for rank in range(1, number)]
        broken.get(0, lambda: None)()
        return forks

    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
    processes._others = functools.cache(others)
    processes.PATIENCE, processes.GRACE_SECONDS = timedelta(seconds=patience), grace
    runs.WAIT_SECONDS, stage.BETWEEN_LOOKS = 0.2, 1


def at_call(number, owner, name, action):
    """Do something at the `number`-th call of a function, before it: "module:Class", "name"."""
    module, _, kind = owner.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind) if kind else owner
    function, calls = getattr(owner, name), []

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            action()
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def sleep():
    time.sleep(1000)


def find_a_broken_image():
    raise GCLError("image 7 is broken")
