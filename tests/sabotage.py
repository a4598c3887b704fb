"""What can happen to a process in the middle of a run; each is done inside it."""

import errno
import os
import resource
import signal
import time

import torch

from gcl_core import files


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


def small_files_only(size: int) -> None:
    """No file may grow beyond `size` bytes (for the system's own "File too large")."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
