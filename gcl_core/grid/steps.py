"""What a grid has to do, step by step, how far each cell is, and how long the rest will take.

A step is the work of one run folder: a stage of training, or a notebook. Cells that differ only in
stage 2 share the step of stage 1.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from gcl_core.data.dataset import Described
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.errors import GCLError
from gcl_core.files import load_json
from gcl_core.grid.cells import Cell, NotebookCell, refuse_twins
from gcl_core.grid.failures import failure_of
from gcl_core.hardware import device_kind
from gcl_core.methods.rebalance import REBALANCERS
from gcl_core.methods.settings import Settings
from gcl_core.training.runs import RESULTS_VERSION, RunFolder
from gcl_core.training.two_stages import run_folders

STATES = ("done", "running", "interrupted", "failed", "left")


@dataclass(frozen=True)
class Step:
    """The work of one run folder.

    Attributes:
        folder: of the run.
        work: what `gcl_core.training.two_stages.run` is to run, without a stage 2 in the step of
            stage 1; or the notebook to execute.
        after: the step that has to be done before.
        device: "cpu" or "gpu".
    """

    folder: RunFolder
    work: Settings | NotebookCell
    after: "Step | None" = None
    device: str = "cpu"

    @property
    def key(self) -> str:
        """Name of the folder; equal for equal work."""
        return self.folder.path.name

    @property
    def epochs(self) -> int:
        """Epochs that it trains in all."""
        if isinstance(self.work, NotebookCell):
            return 0
        return self.work.stages[-1].trained_epochs


@dataclass(frozen=True)
class Job:
    """A cell and its steps, the last of which has its result."""

    cell: Cell | NotebookCell
    steps: tuple[Step, ...]

    @property
    def folders(self) -> tuple[RunFolder, ...]:
        return tuple(step.folder for step in self.steps)


@dataclass(frozen=True)
class State:
    """How far a cell is: one of `STATES`, and what there is to say about it."""

    kind: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


def jobs_of(
    cells: Iterable[Cell | NotebookCell], runs: Path, accelerator: str = "auto"
) -> list[Job]:
    """The steps of every cell; one that several cells need is the same object in all of them.

    Reads each data set once, as a run's folder is named by its images.

    Args:
        accelerator: "cpu", "gpu" or "auto"; see `gcl_core.hardware.device_kind`. Runs of a GPU have
            folders of their own, which "gpu" finds on a machine without one too.

    Raises:
        GCLError: data that are missing or do not fit, or two cells that are the same run.
    """
    runs = runs.absolute()
    described: dict[DataSettings, Described] = {}
    steps: dict[str, Step] = {}
    jobs = []
    for cell in cells:
        if isinstance(cell, NotebookCell):
            wanted = [Step(_notebook_folder(cell, runs), cell)]
        else:
            data = cell.settings.data
            if data not in described:
                try:
                    described[data] = load_dataset(data).described
                except GCLError as error:
                    raise GCLError(f"{cell.name}: {error}") from error
            device = device_kind(accelerator, cell.settings.network)
            wanted = _training(cell, described[data], runs, device)
        own: list[Step] = []
        for step in wanted:
            after = own[0] if own else None
            own.append(steps.setdefault(step.key, replace(step, after=after)))
        jobs.append(Job(cell, tuple(own)))
    refuse_twins([(job.cell.name, job.steps[-1].key) for job in jobs])
    return jobs


def state_of(job: Job) -> State:
    """How far a cell is, from the files of its folders.

    Raises:
        GCLError: a damaged file.
    """
    if job.folders[-1].is_finished:
        return State("done")
    for step in job.steps:
        if step.folder.in_use:
            return State("running", _progress(step))
    for step in job.steps:
        if failure := failure_of(step.folder):
            place = "stage 1 failed: " if step is not job.steps[-1] else ""
            return State("failed" if failure.lasts else "interrupted", place + failure.text)
    for step in reversed(job.steps):
        if step.folder.epochs_done:
            if step.folder.is_finished:
                return State("left", "stage 1 is done")
            return State("interrupted", _progress(step))
    return State("left")


def steps_left(jobs: Iterable[Job]) -> list[Step]:
    """Steps without a result, each once, of all cells that are neither done nor failed."""
    ended = ("done", "failed")
    steps = {s.key: s for job in jobs if state_of(job).kind not in ended for s in job.steps}
    return [step for step in steps.values() if not step.folder.is_finished]


class Rates:
    """Seconds of training for each image, from the `timing.csv` of every run in a folder.

    A rate is that of the runs with the same network, precision, kind of stage and, if there are
    some, the same objective.
    """

    def __init__(self, runs: Path) -> None:
        found: dict[tuple[Any, ...], list[float]] = {}
        for file in runs.glob("*/timing.csv"):
            try:
                kind, objective, rate = _measured(file)
            # No reason to stop: what a full disk or another version has left says nothing here.
            except (GCLError, OSError, LookupError, TypeError, ValueError):
                continue
            for key in (kind, (*kind, objective)):
                found.setdefault(key, []).append(rate)
        self.rates = {key: median(each) for key, each in found.items()}

    def seconds(self, step: Step) -> float | None:
        """What is left of a step; None without a run to predict from. Evaluation is not in it."""
        if isinstance(step.work, NotebookCell):
            return None
        left = max(0, step.epochs - step.folder.epochs_done)
        if not left:
            return 0.0
        kind, objective = _kind(step.folder.identity)
        rate = self.rates.get((*kind, objective), self.rates.get(kind))
        return None if rate is None else rate * left * _images(step.folder.identity)


def predicted(steps: Sequence[Step], rates: Rates, workers: int) -> tuple[float, int]:
    """Seconds that so many workers need for the steps, and how many steps are not in that."""
    costs = {step.key: rates.seconds(step) for step in steps}
    known = {key: seconds for key, seconds in costs.items() if seconds is not None}
    chains = [
        known.get(step.key, 0.0) + (known.get(step.after.key, 0.0) if step.after else 0.0)
        for step in steps
    ]
    total = max([sum(known.values()) / workers, *chains])
    return total, len(costs) - len(known)


def _training(cell: Cell, images: Described, runs: Path, device: str) -> list[Step]:
    first, *second = run_folders(cell.settings, images, runs, device=device)
    made = [Step(first, replace(cell.settings, stage2=None), device=device)]
    made += [Step(folder, cell.settings, device=device) for folder in second]
    return made


def _notebook_folder(cell: NotebookCell, runs: Path) -> RunFolder:
    from gcl_core.course.execution import fingerprint

    parameters = dict(cell.parameters)
    made_of = fingerprint(cell.notebook, parameters)
    identity = {"notebook": cell.notebook.name, "made_of": made_of, "parameters": parameters}
    return RunFolder(runs, identity, {"notebook": cell.notebook.name})


def _progress(step: Step) -> str:
    if isinstance(step.work, NotebookCell):
        return "notebook"
    stage = 1 if step.after is None else 2
    return f"stage {stage}, epoch {step.folder.epochs_done} of {step.epochs}"


def _images(identity: dict[str, Any]) -> int:
    return sum(identity["images"]["class_counts"])


def _measured(file: Path) -> tuple[tuple[Any, ...], Any, float]:
    identity = load_json(file.parent / "settings.json")["identity"]
    if identity["results_version"] != RESULTS_VERSION:
        raise GCLError("of another version")
    with file.open() as stream:
        seconds = [float(row["train_seconds"]) for row in csv.DictReader(stream)]
    return (*_kind(identity), median(seconds) / _images(identity))


def _kind(identity: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Network, precision and kind of stage of a folder; and its objective."""
    stage = identity.get("stage2") or identity["stage1"]
    on_images = stage["rebalance"] is None
    if recorded := stage["rebalance"]:
        kind = REBALANCERS[recorded["name"]]
        known = {field.name for field in fields(kind)}  # a folder may be older than a field
        on_images = kind(**{name: recorded[name] for name in known & recorded.keys()}).on_images
    return (
        (identity["network"], identity["precision"], "stage2" in identity, on_images),
        stage["objective"]["name"],
    )
