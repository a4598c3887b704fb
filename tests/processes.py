"""The command line in processes of their own.

`Forked` is forked from a server that has imported everything already, so that a run starts in
moments and a test can kill it, interrupt it or change something in it first. `python` is the whole
thing, `python -m gcl_core`, from nothing.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric.plugins.environments.lightning import find_free_network_port
from tqdm import tqdm

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["gcl_core.cli", "gcl_core.training.two_stages", "pytest"])


@dataclass(frozen=True)
class Outcome:
    """What is left of a process: its exit status (negative: the signal) and what it printed."""

    status: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line for the user; the process must have failed with it, last and alone."""
        lines = self.err.splitlines()
        assert self.status == 1, self
        assert [line for line in lines if line.startswith("gcl: ")] == lines[-1:], self.err
        assert "Traceback" not in self.err
        assert self.out == ""
        return lines[-1]


def python(*arguments: object, kill_at: str | None = None) -> Outcome:
    """`python -m gcl_core ARGUMENTS`, killed as soon as a line of its log begins with `kill_at`."""
    command = [sys.executable, "-m", "gcl_core", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if kill_at is not None and line.startswith(kill_at):
            process.kill()
    out, _ = process.communicate(timeout=120)
    return Outcome(process.returncode, out, "".join(lines))


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Return once the condition holds; fail if it does not come to."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class Forked:
    """`main(ARGUMENTS)` in a process of its own, after `sabotage()`.

    `sabotage` is a function of an importable module (or a partial of one); in the process,
    warnings are errors, as everywhere in the tests.
    """

    def __init__(self, *arguments: object, sabotage: Callable[[], None] | None = None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.files = [Path(self.folder.name) / name for name in ("out", "err")]
        for file in self.files:  # there even if it is killed before it comes to open them
            file.touch()
        words = [str(word) for word in arguments]
        environment = {"GCL_CACHE": os.environ["GCL_CACHE"]}
        self.process = SERVER.Process(target=_main, args=(words, self.files, environment, sabotage))
        self.process.start()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    @property
    def err(self) -> str:
        """What it has printed so far on its standard error."""
        return self.files[1].read_text()

    def finish(self, timeout: float = 120) -> Outcome:
        """Wait for its end."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running\n{self.err}"
        outcome = Outcome(self.process.exitcode, self.files[0].read_text(), self.err)
        self.folder.cleanup()
        return outcome


def forked(*arguments: object, sabotage: Callable[[], None] | None = None) -> Outcome:
    """`Forked`, to its end."""
    return Forked(*arguments, sabotage=sabotage).finish()


def in_each(number: int, function: Callable[..., None], *arguments: object) -> None:
    """`function(*arguments)` in each of several processes of one run; none may fail."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
    place |= {"GCL_CACHE": os.environ["GCL_CACHE"], "WORLD_SIZE": str(number)}
    started = []
    for rank in map(str, range(number)):
        environment = place | {"LOCAL_RANK": rank, "RANK": rank}
        call = (environment, function, arguments)
        started.append(SERVER.Process(target=_one_of_several, args=call))
        started[-1].start()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0] * number


def _one_of_several(
    environment: dict[str, str], function: Callable[..., None], arguments: Sequence[object]
) -> None:
    os.environ.update(environment)
    warnings.simplefilter("error")
    function(*arguments)


def _main(
    arguments: Sequence[str],
    files: Sequence[Path],
    environment: dict[str, str],
    sabotage: Callable[[], None] | None,
) -> None:
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.update(environment)
    warnings.simplefilter("error")
    # As in a terminal, even where the tests themselves run with Ctrl-C ignored (in the background).
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tqdm.set_lock(threading.RLock())  # its own would be left behind by a kill
    if sabotage is not None:
        sabotage()
    from gcl_core.cli import main

    sys.exit(main(arguments))
