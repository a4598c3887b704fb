"""What the runs of the paper's Table 2 cost: each kind of step counted and timed on made images.

A run sees the training images `epochs` times in each stage, and the test images after every epoch.
Seconds of an image are measured here, on the device that is there, and multiplied out
(`gcl_core.results.protocol`). Decoding is not in them: it runs beside the training.
"""

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gcl_core.benchmark.interleaved import elapsed
from gcl_core.data.augment import Augment, PadCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.images import MemoryImages
from gcl_core.data.lists import PHOTOGRAPH_SIDE, PUBLISHED
from gcl_core.data.streams import Streams
from gcl_core.hardware import channels_last, device_kind, inference_batch, keep_freed_memory
from gcl_core.methods.recipes import RECIPES
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.methods.settings import Settings, to_dict
from gcl_core.training.evaluation import frozen
from gcl_core.training.runs import RunFolder, versions
from gcl_core.training.stage import StageRun, parameter_groups
from gcl_core.training.step import make_step, step_kind
from gcl_core.training.two_stages import first_network, make_fabric, second_network

log = logging.getLogger(__name__)
MADE = 64  # different images, whichever index is asked for
SMALL_SIDE = 32


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
    """Made images: each class once, the first one more often; two test images."""
    number = max(classes + 1, 2 * batch * steps)
    labels = torch.arange(number).sub(number - classes).clamp(min=0)
    train = Split(made_images(side, number), labels)
    test = Split(made_images(side, 2), torch.zeros(2, dtype=torch.int64))
    names = tuple(map(str, range(classes)))
    statistics = (0.5,) * 3, (0.25,) * 3
    return LongTailedDataset("made", names, train, test, *statistics, PadCrop(1, False))


Numbers = dict[str, float | None]


def cost_of(
    settings: Settings, classes: int, steps: int, fabric: Fabric, known: dict[str, Numbers]
) -> list[Numbers]:
    """What an image costs in each stage, and what the weights need.

    training, evaluation: seconds; of the processor on a CPU. A stage that trains nothing has None
    for its training.
    gflop, gflop_test: 10^9 operations of convolutions and matrix products, two a multiplication.
    saved_mb: what one image's outputs of layers keep for the backward pass.
    weights_gb: weights, their gradients and momentum in float32.
    gb: the most that was taken on a GPU; None on a CPU.

    Args:
        classes: of the data.
        steps: timed ones.
        known: what is known of first stages, which several methods have in common; it is added to.
    """
    side = settings.data.image_size or PHOTOGRAPH_SIDE
    found: list[Numbers] = []
    prefix = None
    for number, stage in enumerate(settings.stages, 1):
        # A frozen backbone takes several batches at once: as many, or a multiple, are timed.
        together = max(1, inference_batch(fabric.device, (3, side, side)) // stage.batch_size)
        steps = -(-steps // together) * together
        data = made_dataset(classes, side, stage.batch_size, steps)
        streams = Streams.seeded(0, number, 0, fabric.device)
        if number == 1:
            network = first_network(settings, data, streams, fabric)
        else:  # class means may be of small images: what they are matters to no time
            small = made_dataset(classes, SMALL_SIDE, stage.batch_size, 1)
            network, prefix = second_network(network, stage, small, streams, fabric)
        channels_last(network.to(fabric.device))
        folder = RunFolder(Path(), {"made": number}, {})
        part = StageRun(number, stage, data, network, prefix, streams, folder, fabric)
        same = json.dumps([classes, settings.network, settings.head, to_dict(stage)])
        if number == 1 and same in known:
            found.append(known[same])
            continue
        if fabric.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        numbers = _training(part, steps, together) | _evaluation(part, steps)
        most = torch.cuda.max_memory_allocated() / 1e9 if fabric.device.type == "cuda" else None
        found.append(known.setdefault(same, _rounded(numbers | {"gb": most})))
    return found


def _rounded(numbers: Numbers) -> Numbers:
    return {name: n if n is None else float(f"{n:.4g}") for name, n in numbers.items()}


def _training(part: StageRun, steps: int, together: int) -> Numbers:
    weights = parameter_groups(part.trained)
    if not weights:
        return dict.fromkeys(("training", "gflop", "saved_mb", "weights_gb"))
    optimizer = torch.optim.SGD(weights, 1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    module, stepper = part.fabric.setup(part.trained, optimizer)
    step = make_step(step_kind("eager", part.fabric), part.fabric, module, stepper, [])
    batches, criterion = part.epoch(part.stage.epochs - 1)
    module.train()
    several, size = iter(batches), part.stage.batch_size

    def work(number: int) -> None:
        for batch in itertools.islice(several, number):
            step(criterion, batch)

    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.ndim > 1 and len(tensor) == size:  # of images, not weights in bfloat16
            saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    # The first steps, which make momentum and workspaces too, are counted.
    counter, hooks = FlopCounterMode(display=False), torch.autograd.graph.saved_tensors_hooks
    with counter, hooks(keep, lambda tensor: tensor):
        work(together)
    work(steps - together)
    every = sum(own.numel() for own in part.network.parameters())
    trained = sum(own.numel() for group in weights for own in group["params"])
    images = together * size
    return {
        "training": _seconds(lambda: work(steps), part.fabric) / (steps * size),
        "gflop": counter.get_total_flops() / 1e9 / images,
        "saved_mb": sum(saved.values()) / 1e6 / images,
        "weights_gb": 4 * (every + 2 * trained) / 1e9,
    }


def _evaluation(part: StageRun, steps: int) -> Numbers:
    images = part.stage.batch_size * steps
    looked = Split(
        made_images(part.dataset.test.images.shape[1], images), torch.zeros(images).long()
    )
    part.evaluate()  # which keeps the features of its few test images, where they are kept
    with FlopCounterMode(display=False) as counter:
        part.evaluate(looked)
    seconds = _seconds(lambda: part.evaluate(looked), part.fabric)
    if part.prefix is None:  # once for all test images, of which there are few here
        seconds -= _seconds(lambda: frozen(part.network.backbone, part.fabric), part.fabric)
    return {
        "evaluation": seconds / images,
        "gflop_test": counter.get_total_flops() / 1e9 / images,
    }


def _seconds(work: Callable[[], object], fabric: Fabric) -> float:
    """By the clock on a GPU; of the processor on a CPU, which others may be using too."""
    clock = time.perf_counter if fabric.device.type == "cuda" else time.process_time
    return elapsed(work, fabric.device, clock)


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
    cells, known = [], dict[str, Numbers]()
    for kind, method in itertools.product(kinds, methods):
        # How long a step takes does not depend on the weights that there are.
        own = {"weights": "none", **changes}
        if batch_size:
            own |= dict.fromkeys(("batch_size", "stage2_batch_size"), batch_size)
        if METHODS[method].stage2 is None:
            own.pop("stage2_batch_size", None)
        settings = resolve(kind, method, accelerator=accelerator, **own)
        fabric = make_fabric(device_kind(accelerator, settings.network), settings.precision)
        if fabric.device.type == "cpu":
            keep_freed_memory()
        stages = cost_of(settings, PUBLISHED[kind].classes, steps, fabric, known)
        cells.append({"dataset": kind, "method": method, "stages": stages})
        log.info("%s, %s: measured", kind, method)
    about = {"versions": versions(), "precision": settings.precision}
    return about | {"steps": steps, "batch_size": batch_size, "cells": cells}
