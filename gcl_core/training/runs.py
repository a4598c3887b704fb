"""A run's folder: named by the hash of what it computes, written atomically, by one process.

runs/<hash>/settings.json    what is computed, and with which versions
            metrics.csv      one row an epoch; the same bytes whenever the same run is repeated
            timing.csv       seconds and kind of step of each epoch; these differ
            checkpoint.pt    everything that is needed to go on after the last epoch that was saved
            kept-0012.pt     weights and accuracies after epoch 12, where they were asked for
            result.json      the result; its presence means that the run is finished
            model.pt         what predictions need (`gcl_core.inference.saved`); in the last stage's
            error.json       why a grid could not finish the run (`gcl_core.grid.failures`)
"""

import csv
import hashlib
import io
import json
import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import torch

from gcl_core.errors import GCLError, MachineError
from gcl_core.files import (
    atomic_json,
    atomic_save,
    atomic_write,
    load_json,
    load_tensors,
    remove_leftovers,
)

log = logging.getLogger(__name__)

# Raised whenever the same settings would give other results, so that no old run passes for a new.
RESULTS_VERSION = 2
# Several processes may look at a lock at once. Each holds it for less than this.
LOOK_SECONDS = 0.1
WAIT_SECONDS = 10.0  # for a folder, before whoever waits too is told


class RunFolder:
    """The folder of one stage of one run.

    Args:
        runs: the folder that holds all runs.
        identity: everything that decides the result, as plain values.
        about: what a reader wants to know besides, such as the name of the data set.
    """

    def __init__(self, runs: Path, identity: dict[str, Any], about: dict[str, Any]) -> None:
        self.about = about
        self.identity = json.loads(json.dumps({"results_version": RESULTS_VERSION, **identity}))
        self.path = runs / identity_hash(self.identity)

    @property
    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, else None.

        Raises:
            GCLError: the file is damaged.
        """
        return load_json(self.path / "result.json") if self.is_finished else None

    @property
    def is_finished(self) -> bool:
        """Whether there is a result."""
        return (self.path / "result.json").exists()

    @property
    def in_use(self) -> bool:
        """Whether a process is working on the run; False where the folder can only be read."""
        if not (self.path / ".lock").exists():
            return False
        lock = filelock.FileLock(self.path / ".lock")
        try:
            with lock.acquire(timeout=LOOK_SECONDS, poll_interval=0.01):
                return False
        except filelock.Timeout:
            return True
        except PermissionError:
            return False

    @property
    def epochs_done(self) -> int:
        """Rows of `metrics.csv` as it is now."""
        file = self.path / "metrics.csv"
        return max(0, len(file.read_text().splitlines()) - 1) if file.exists() else 0

    @contextmanager
    def opened(self, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Make the folder ready and keep every other process out of it until the block ends.

        A finished one is left as it is, and may be one that can only be read.

        Args:
            waiting: called every `WAIT_SECONDS` while another process has the folder.

        Raises:
            GCLError: the folder belongs to other settings, or (a MachineError) cannot be written.
        """
        if self.is_finished:
            self._claim()
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                log.info("%s: another process is working on this run; waiting for it", self.path)
                while not lock.is_locked:
                    waiting()
                    with suppress(filelock.Timeout):
                        lock.acquire(timeout=WAIT_SECONDS)
        except OSError as error:
            raise MachineError(
                f"cannot use run folder {self.path}: {error.strerror or error}"
            ) from error
        try:
            remove_leftovers(self.path)
            self._claim()
            yield
        finally:
            lock.release()

    def _claim(self) -> None:
        file = self.path / "settings.json"
        if file.exists():
            found = load_json(file)
            if not isinstance(found, dict) or found.get("identity") != self.identity:
                raise GCLError(
                    f"{self.path} holds a run of other settings; choose another --runs folder "
                    "or move this one away"
                )
        elif any(p.name != ".lock" for p in self.path.iterdir()):
            raise GCLError(f"{self.path} holds files but no settings.json; move it away")
        else:
            atomic_json(
                file, {"about": self.about, "identity": self.identity, "versions": versions()}
            )

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoint.pt"

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None if there is none.

        Raises:
            GCLError: the file is damaged or belongs to another run; it is left as it is.
        """
        return self._own(self.checkpoint_file) if self.checkpoint_file.exists() else None

    def _own(self, file: Path) -> dict[str, Any]:
        state = load_tensors(file)
        if state.get("run") != self.path.name:
            raise GCLError(f"{file} is not a checkpoint of this run; move it away and run again")
        return state

    def save_checkpoint(self, checkpoint: dict[str, Any], timings: list[dict[str, Any]]) -> None:
        """Replace the checkpoint, then append to `metrics.csv` and `timing.csv`.

        Args:
            checkpoint: what `load_checkpoint` shall give; its "history" has a row for each epoch.
            timings: rows of the epochs since the last checkpoint.
        """
        atomic_save(self.checkpoint_file, {"run": self.path.name, **checkpoint})
        self._append("metrics.csv", checkpoint["history"][-len(timings) :] if timings else [])
        self._append("timing.csv", timings)

    def keep(self, epoch: int, state: dict[str, Any]) -> None:
        """Write what is to be looked at again after an epoch."""
        atomic_save(self._kept_file(epoch), {"run": self.path.name, **state})

    def load_kept(self, epoch: int) -> dict[str, Any]:
        """What `keep` wrote after an epoch.

        Raises:
            GCLError: that epoch was not kept; the message names those that were. Or the file is
                damaged or belongs to another run.
        """
        file = self._kept_file(epoch)
        if not file.exists():
            kept = sorted(int(p.stem.split("-")[1]) for p in self.path.glob("kept-*.pt"))
            there = ", ".join(map(str, kept)) or "none"
            raise GCLError(f"{self.path} has nothing of epoch {epoch}; kept: {there}")
        return self._own(file)

    def _kept_file(self, epoch: int) -> Path:
        return self.path / f"kept-{epoch:04d}.pt"

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Write all of `metrics.csv`, one row an epoch."""
        if history:
            text = io.StringIO()
            writer = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
            atomic_write(self.path / "metrics.csv", text.getvalue().encode())

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        file = self.path / name
        new = not file.exists() or file.stat().st_size == 0  # a full disk leaves it empty
        with file.open("a") as stream:
            writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)

    @cached_property
    def metrics(self) -> list[dict[str, str]]:
        """Rows of `metrics.csv`, as text; none where nothing was trained."""
        if not (self.path / "metrics.csv").exists():
            return []
        with (self.path / "metrics.csv").open() as stream:
            return list(csv.DictReader(stream))

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result, which ends the run."""
        atomic_json(self.path / "result.json", result)


def identity_hash(identity: dict[str, Any]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def versions() -> dict[str, Any]:
    """Versions and circumstances that can change the last digits of a result."""
    packages = ("gcl-core", "torch", "torchvision", "lightning-fabric", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }
