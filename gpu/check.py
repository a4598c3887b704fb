"""What a GPU does here: every method, equal bits of eager and captured steps, steps a second.

    python check.py GRID OUT.json ACCELERATOR

What is known is written after each part, so that a time limit loses the last one only.
"""

import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import joblib
import torch
import yaml

from gcl_core import METHODS, resolve
from gcl_core.files import atomic_json, load_tensors
from gcl_core.training.runs import versions
from gcl_core.training.side_by_side import side_by_side
from gcl_core.training.two_stages import run

TOGETHER = (1, 3, 8)  # runs on the card at a time


def check_method(method: str, dataset: str, accelerator: str) -> str:
    """Say "equal" or "differs" of eager and captured steps' weights, or why it does not run."""
    torch.set_num_threads(1)
    small = {"n_max": 100, "imbalance_ratio": 10, "epochs": 3}
    small |= {"stage2_epochs": 2} if METHODS[method].stage2 else {}
    settings = resolve(dataset, method, "official", accelerator=accelerator, **small)
    weights = []
    try:
        for step in ("eager", "captured" if accelerator == "gpu" else "eager"):
            with tempfile.TemporaryDirectory() as place:
                words = {"accelerator": accelerator, "progress": "none", "step": step}
                folders = run(settings, Path(place), **words).folders
                states = [load_tensors(each.checkpoint_file)["module"] for each in folders]
                weights.append([weight for state in states for weight in state.values()])
    except Exception as error:  # of any kind: the others are to be seen too
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return "equal" if all(map(torch.equal, *weights)) else "differs"


def steps_per_second(dataset: str, accelerator: str, step: str, precision: str, seed: int) -> float:
    """Of the last of three epochs of GCL's first stage."""
    torch.set_num_threads(1)
    words = {"precision": precision, "seed": seed, "epochs": 3}
    settings = resolve(dataset, "gcl", "official", accelerator=accelerator, **words)
    with tempfile.TemporaryDirectory() as place:
        words = {"accelerator": accelerator, "progress": "none", "step": step}
        done = run(settings, Path(place), **words)
        with (done.path / "timing.csv").open() as file:
            seconds = float(list(csv.DictReader(file))[-1]["train_seconds"])
    return len(done.dataset.train) / settings.stage1.batch_size / seconds


def main(grid: str, out: str, accelerator: str) -> int:
    """Check and measure; returns the exit status, 1 where a method fails or differs."""
    dataset = yaml.safe_load(Path(grid).read_text())["dataset"]
    workers = min(8, joblib.cpu_count())
    found: dict[str, Any] = {"versions": versions(), "methods": {}, "steps_per_second": {}}
    began = time.monotonic()

    def write() -> None:
        atomic_json(Path(out), found | {"seconds": round(time.monotonic() - began, 1)})

    tasks = [joblib.delayed(check_method)(method, dataset, accelerator) for method in METHODS]
    for method, answer in zip(METHODS, side_by_side(tasks, workers), strict=True):
        found["methods"][method] = answer
        print(f"{method}: {answer}", flush=True)
        write()
    for together in TOGETHER if accelerator == "gpu" else TOGETHER[:1]:
        for step in ("captured", "eager") if accelerator == "gpu" else ("eager",):
            for precision in ("bfloat16", "float32"):
                case = (dataset, accelerator, step, precision)
                rates = [joblib.delayed(steps_per_second)(*case, n) for n in range(together)]
                name = f"{together} x {step} {precision}"
                total = round(sum(side_by_side(rates, together)), 1)
                found["steps_per_second"][name] = total
                print(f"{name}: {total} steps/s", flush=True)
                write()
    return int(any(answer != "equal" for answer in found["methods"].values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
