"""What a GPU does here: every method, equal bits of eager and captured steps, steps a second.

    python check.py GRID OUT.json ACCELERATOR

What is known is written after each part, so that a time limit loses the last one only.
"""

import csv
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import torch

from gcl_core import METHODS, resolve
from gcl_core.data.dataset import LongTailedDataset
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.errors import GCLError
from gcl_core.files import atomic_json, load_tensors
from gcl_core.grid.cells import Cell, cells_of
from gcl_core.training.runs import versions
from gcl_core.training.side_by_side import side_by_side
from gcl_core.training.two_stages import run

UNKNOWN = "not reached"
# Runs on the card at a time, step and precision; the most wanted first.
SPEEDS = (
    (3, "captured", "bfloat16"),
    (1, "captured", "bfloat16"),
    (1, "eager", "bfloat16"),
    (8, "captured", "bfloat16"),
    (8, "eager", "bfloat16"),
    (1, "captured", "float32"),
    (1, "eager", "float32"),
)
EPOCHS = {"captured": 30, "eager": 6}  # some seconds


def check_method(method: str, source: str, images: LongTailedDataset, accelerator: str) -> str:
    """Say "equal" or "differs" of eager and captured steps' weights, or why it does not run.

    Without a GPU: of two runs with eager steps.
    """
    torch.set_num_threads(1)
    epochs = {"epochs": 3} | ({"stage2_epochs": 2} if METHODS[method].stage2 else {})
    weights = []
    try:
        settings = resolve(source, method, "official", accelerator=accelerator, **epochs)
        for step in ("eager", "captured" if accelerator == "gpu" else "eager"):
            with tempfile.TemporaryDirectory() as place:
                words: Any = {"accelerator": accelerator, "progress": "none", "step": step}
                folders = run(settings, Path(place), dataset=images, **words).folders
                states = [load_tensors(each.checkpoint_file)["module"] for each in folders]
                weights.append([weight for state in states for weight in state.values()])
    except Exception as error:  # of any kind: the others are to be seen too
        return said(error)
    return "equal" if all(map(torch.equal, *weights)) else "differs"


def speed(source: str, images: LongTailedDataset, accelerator: str, *case: Any) -> float | str:
    """Steps a second of all processes in sum, or why they do not run."""
    together, step, precision = case
    with tempfile.TemporaryDirectory() as place:
        what = (source, images, accelerator, step, precision, Path(place), together)
        tasks = [joblib.delayed(steps_per_second)(*what, number) for number in range(together)]
        try:
            return round(sum(side_by_side(tasks, together)), 1)
        except Exception as error:  # of any kind: the others are to be seen too
            return said(error)


def steps_per_second(
    source: str,
    images: LongTailedDataset,
    accelerator: str,
    step: str,
    precision: str,
    place: Path,
    together: int,
    number: int,
) -> float:
    """Of GCL's first stage in one process of several: the median of the middle half of its epochs.

    Raises:
        GCLError: the others are not there within a minute.
    """
    torch.set_num_threads(1)
    words: Any = {"precision": precision, "seed": number, "epochs": EPOCHS[step]}
    settings = resolve(source, "gcl", "official", accelerator=accelerator, **words)
    if accelerator == "gpu":
        torch.zeros((), device="cuda")  # takes a process seconds, the first time
    (place / f"{number}.ready").touch()
    end = time.monotonic() + 60
    while len(list(place.glob("*.ready"))) < together:
        if time.monotonic() > end:
            raise GCLError(f"{together} processes were not ready within a minute")
        time.sleep(0.01)
    words = {"accelerator": accelerator, "progress": "none", "step": step}
    done = run(settings, place, dataset=images, **words)
    with (done.path / "timing.csv").open() as file:
        seconds = [float(row["train_seconds"]) for row in csv.DictReader(file)]
    middle = seconds[len(seconds) // 4 : -(len(seconds) // 4)]
    return len(images.train) / settings.stage1.batch_size / median(middle)


def said(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def few_tests(data: DataSettings) -> LongTailedDataset:
    """A data set with a tenth of its test images, which are no part of what is looked at."""
    whole = load_dataset(data)
    return replace(whole, test=whole.test.subset(torch.arange(0, len(whole.test), 10)))


def main(grid: str, out: str, accelerator: str) -> int:
    """Check and measure; returns the exit status, 1 where a method fails or differs.

    Raises:
        GCLError: the grid or its images cannot be read.
        OSError: the file cannot be written.
    """
    cells = cells_of(Path(grid), accelerator=accelerator)
    data = next(cell.settings.data for cell in cells if isinstance(cell, Cell))
    few = few_tests(replace(data, n_max=100))
    images = few_tests(data) if accelerator == "gpu" else few
    speeds = [case for case in SPEEDS if accelerator == "gpu" or case[:2] == (1, "eager")]
    names = [f"{together} x {step} {precision}" for together, step, precision in speeds]
    found: dict[str, dict[str, Any]] = {
        "versions": versions(),
        "methods": dict.fromkeys(METHODS, UNKNOWN),
        "steps_per_second": dict.fromkeys(names, UNKNOWN),
    }
    began = time.monotonic()

    def tell(part: str, name: str, answer: Any) -> None:
        found[part][name] = answer
        print(f"{time.monotonic() - began:4.0f} s  {name}: {answer}", flush=True)
        atomic_json(Path(out), found | {"seconds": round(time.monotonic() - began, 1)})

    tasks = [joblib.delayed(check_method)(each, data.dataset, few, accelerator) for each in METHODS]
    answers = side_by_side(tasks, min(8, joblib.cpu_count()))
    for method, answer in zip(METHODS, answers, strict=True):
        tell("methods", method, answer)
    for name, case in zip(names, speeds, strict=True):
        tell("steps_per_second", name, speed(data.dataset, images, accelerator, *case))
    return int(any(answer != "equal" for answer in found["methods"].values()))


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except (GCLError, OSError) as error:
        sys.exit(f"check.py: {' '.join(str(error).split())}")
