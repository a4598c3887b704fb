"""The processes of one run: how they start, what they add up, and how they end together.

The process that the user started is the first, rank 0. It starts the others with its own command
line; LOCAL_RANK, MASTER_ADDR and MASTER_PORT tell each who it is. Where these are set already, as
by torchrun, nothing is started.
"""

import contextlib
import functools
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
from torch import Tensor, nn

from gcl_core.errors import GCLError, MachineError

log = logging.getLogger(__name__)

# How long a process waits for another in one operation; the default of PyTorch's Gloo.
PATIENCE = timedelta(minutes=30)
LOOK_SECONDS = 0.2  # between two looks at whether the others are alive
GRACE_SECONDS = 3.0  # for an error to be told by the process that it belongs to
GLOO = ("/gloo/", "pair closure")  # what its errors say
CONTINUES = "the same command continues after the last saved epoch"


def several() -> bool:
    """Whether this is one of several processes of a run."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized()


def summed(values: Tensor) -> Tensor:
    """The sum over all processes of a run, on the device of the values; of one: as they are."""
    if not several():
        return values
    on_gpu = torch.distributed.get_backend() == "nccl"
    total = values.to(torch.device("cuda") if on_gpu else "cpu", copy=True)
    torch.distributed.all_reduce(total)
    return total.to(values.device)


def same_buffers(module: nn.Module) -> None:
    """Give a module the buffers of rank 0 in every process.

    Each has seen its share of the images only, and so has its running statistics of batch
    normalisation. A checkpoint has those of rank 0.
    """
    if several():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


@contextlib.contextmanager
def together(number: int) -> Iterator[None]:
    """Start the other processes of a run; end all of them as soon as one has ended with an error.

    One that waits for another in an operation does so for `PATIENCE` at most.

    Raises:
        MachineError: another process has ended, or did not answer.
    """
    others, over = _others(number), threading.Event()
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if number > 1:
        threading.Thread(target=_watch, args=(others, over), daemon=True).start()
    try:
        yield
    except BaseException as error:
        over.set()
        _end(others)
        if (what := _of_another(error)) is not None:
            raise MachineError(f"another process of this run {what}; {CONTINUES}") from error
        if rank and isinstance(error, GCLError | OSError):
            time.sleep(GRACE_SECONDS)  # where rank 0 has the same error it ends this process now
            log.error("process %d of %d: %s", rank, number, error)
        raise
    finally:
        over.set()


def _of_another(error: BaseException) -> str | None:
    """What another process has done, if an error is of talking to it; Gloo has none of its own."""
    told = str(error)
    if not isinstance(error, torch.distributed.DistError) and not any(t in told for t in GLOO):
        return None
    late = re.search("time(d )?out", told, re.IGNORECASE)
    return (
        f"has not answered for {PATIENCE / timedelta(minutes=1):g} minutes" if late else "has ended"
    )


@functools.cache  # a script may run one after another: all its processes do
def _others(number: int) -> Sequence["subprocess.Popen[bytes]"]:
    if number == 1 or "LOCAL_RANK" in os.environ:
        return ()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ.update(place | {"LOCAL_RANK": "0"})
    command = [sys.executable, *sys.orig_argv[1:]]
    return [
        subprocess.Popen(command, env=os.environ | {"LOCAL_RANK": str(rank)})
        for rank in range(1, number)
    ]


def _end(others: Sequence["subprocess.Popen[bytes]"]) -> None:
    for other in others:
        other.kill()


def _watch(others: Sequence["subprocess.Popen[bytes]"], over: threading.Event) -> None:
    """End this process when another has ended: rank 0 when one of the others has, they with it."""
    parent = os.getppid()
    while not over.wait(LOOK_SECONDS):
        if not others and os.getppid() != parent:
            os._exit(1)
        if any(other.poll() for other in others):
            _end(others)
            # Rank 0 is told by the operation it is in, unless that is one of its own.
            if not over.wait(GRACE_SECONDS):
                log.critical("gcl: another process of this run has ended; %s", CONTINUES)
                os._exit(1)
