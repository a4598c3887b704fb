"""What the runs of the paper's Table 2 cost: each kind of step timed on made images.

A run sees the training images `epochs` times in each stage, and the test images after every epoch.
Images a second are timed here, on the device that is there, and hours are worked out from them.
Decoding is not in them: it runs beside the training (`docs/lists.md`).
"""

import itertools
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from gcl_core.data.augment import Augment, PadCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.images import MemoryImages
from gcl_core.data.lists import PUBLISHED
from gcl_core.data.streams import Streams
from gcl_core.hardware import channels_last, inference_batch, keep_freed_memory
from gcl_core.methods.recipes import RECIPES
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.methods.settings import Settings
from gcl_core.training.runs import RunFolder, versions
from gcl_core.training.stage import StageRun, parameter_groups
from gcl_core.training.step import make_step, step_kind
from gcl_core.training.two_stages import first_network, make_fabric, second_network

MADE = 64  # different images, whichever index is asked for


class MadeImages(MemoryImages):
    """Noise in place of photographs, of any number at no cost."""

    def __init__(self, pixels: Tensor, number: int) -> None:
        super().__init__(pixels)
        self.number = number

    def __len__(self) -> int:
        return self.number

    def on(self, device: torch.device) -> "MadeImages":
        """The same images on a device."""
        return MadeImages(self.pixels.to(device), self.number)

    def batches(
        self,
        steps: Sequence[Tensor],
        augment: Augment | None = None,
        draws: Sequence[tuple[Tensor, ...]] = (),
    ) -> Iterator[Tensor]:
        """Images (n, 3, H, W) for each step's indices; nothing is varied."""
        yield from (self.pixels[indices % len(self.pixels)] for indices in steps)


def made_images(side: int, number: int) -> MadeImages:
    """So many of them."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (MADE, 3, side, side), dtype=torch.uint8, generator=generator)
    return MadeImages(pixels, number)


def made_dataset(classes: int, side: int, batch: int, steps: int) -> LongTailedDataset:
    """Made images: each class once, the first one more often; as many test images as are timed."""
    number = max(classes + 1, 2 * batch * steps)
    labels = torch.arange(number).sub(number - classes).clamp(min=0)
    train = Split(made_images(side, number), labels)
    test = Split(made_images(side, batch * steps), torch.zeros(batch * steps, dtype=torch.int64))
    names = tuple(map(str, range(classes)))
    statistics = (0.5,) * 3, (0.25,) * 3
    return LongTailedDataset("made", names, train, test, *statistics, PadCrop(1, False))


def cost_of(settings: Settings, classes: int, steps: int, fabric: Fabric) -> list[dict[str, Any]]:
    """Images a second of each stage's training and of evaluation, and the most memory, in GB.

    A stage that trains nothing has None for its training.
    """
    side = settings.data.image_size or 224
    found: list[dict[str, Any]] = []
    prefix = None
    for number, stage in enumerate(settings.stages, 1):
        # A frozen backbone takes several batches at once: as many, or a multiple, are timed.
        together = max(1, inference_batch(fabric.device, (3, side, side)) // stage.batch_size)
        steps = -(-steps // together) * together
        data = made_dataset(classes, side, stage.batch_size, steps)
        streams = Streams.seeded(0, number, 0, fabric.device)
        if number == 1:
            network = first_network(settings, data, streams, fabric)
        else:
            network, prefix = second_network(network, stage, data, streams, fabric)
        channels_last(network.to(fabric.device))
        folder = RunFolder(Path(), {"made": number}, {})
        part = StageRun(number, stage, data, network, prefix, streams, folder, fabric)
        found.append(
            {
                "training": _training_rate(part, steps),
                "evaluation": _rate(part.evaluate, len(data.test), fabric),
                "gb": _most_memory(fabric),
            }
        )
    return found


def _training_rate(part: StageRun, steps: int) -> float | None:
    weights = parameter_groups(part.trained)
    if not weights:
        return None
    optimizer = torch.optim.SGD(weights, 1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    module, stepper = part.fabric.setup(part.trained, optimizer)
    step = make_step(step_kind("eager", part.fabric), part.fabric, module, stepper, [])
    batches, criterion = part.epoch(part.stage.epochs - 1)
    module.train()
    several = iter(batches)

    def work() -> None:
        for batch in itertools.islice(several, steps):
            step(criterion, batch)

    work()  # makes momentum and workspaces
    return _rate(work, steps * part.stage.batch_size, part.fabric)


def _rate(work: Callable[[], object], images: int, fabric: Fabric) -> float:
    _wait(fabric)
    began = time.perf_counter()
    work()
    _wait(fabric)
    return round(images / (time.perf_counter() - began), 2)


def _wait(fabric: Fabric) -> None:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()


def _most_memory(fabric: Fabric) -> float:
    if fabric.device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def hours_of(settings: Settings, rates: Sequence[dict[str, Any]], train: int, test: int) -> float:
    """Hours of a whole run from the images a second of its stages."""
    seconds = 0.0
    for stage, rate in zip(settings.stages, rates, strict=True):
        seen = stage.epochs if rate["training"] else 0
        seconds += seen * train / rate["training"] if seen else 0
        seconds += max(seen, 1) * test / rate["evaluation"]
    return seconds / 3600


def measure_costs(
    *,
    kinds: Sequence[str] = tuple(PUBLISHED),
    methods: Sequence[str] = tuple(RECIPES["imagenet_lt"]),
    steps: int = 10,
    batch_size: int | None = None,
    accelerator: str = "auto",
    **changes: Any,
) -> dict[str, Any]:
    """The cost of every cell of Table 2 as plain values; `gcl_core.results.protocol` shows them.

    Args:
        kinds, methods: which cells.
        steps: timed ones of each stage, after as many that are not.
        batch_size: instead of the recipes', where the memory is small.
        changes: further settings by flat name.
    """
    cells = []
    for kind in kinds:
        data = PUBLISHED[kind]
        for method in methods:
            # How long a step takes does not depend on the weights that there are.
            own = {"weights": "none", **changes}
            if batch_size:
                own |= dict.fromkeys(("batch_size", "stage2_batch_size"), batch_size)
            if METHODS[method].stage2 is None:
                own.pop("stage2_batch_size", None)
            settings = resolve(kind, method, accelerator=accelerator, **own)
            fabric = make_fabric(accelerator, settings.precision)
            if fabric.device.type == "cpu":
                keep_freed_memory()
            rates = cost_of(settings, data.classes, steps, fabric)
            hours = round(hours_of(settings, rates, data.images["train"], data.images["test"]), 1)
            cells.append({"dataset": kind, "method": method, "stages": rates, "hours": hours})
    return {"versions": versions(), "steps": steps, "batch_size": batch_size, "cells": cells}
