"""Photographs in files: how fast they are decoded and trained on, beside timm's training script.

The photographs are made, in JPEG files; compared are the loader and the step of timm's script.
"""

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from gcl_core.benchmark.cost import made_images
from gcl_core.benchmark.interleaved import (
    Job,
    Workers,
    drain,
    new_network,
    rate_of,
    ratio_of,
    trainer,
)
from gcl_core.data.augment import ResizedCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.epoch import TrainingImages
from gcl_core.data.file_images import FileImages, Reading
from gcl_core.data.lists import IMAGENET_MEAN, IMAGENET_STD
from gcl_core.data.samplers import InstanceBalancedSampler
from gcl_core.data.streams import Streams
from gcl_core.data.workers import Processes, Threads
from gcl_core.errors import GCLError
from gcl_core.hardware import (
    best_precision,
    channels_last,
    device_kind,
    keep_freed_memory,
    usable_cores,
)
from gcl_core.networks.models import check_network
from gcl_core.networks.pretrained import PREFIX
from gcl_core.training.runs import versions

PHOTOGRAPHS = 64  # different files, read again and again, so that no disk is measured
PHOTOGRAPH = (500, 375)  # pixels, as most of ImageNet's
CLASSES = 1000


@dataclass(frozen=True)
class Work:
    """What a candidate does in one slice: steps of a batch each.

    Attributes:
        workers: processes that decode; 0: threads.
        folder: holds the files.
    """

    steps: int
    batch: int
    network: str
    side: int
    workers: int
    folder: str

    @property
    def images(self) -> int:
        """Of one slice."""
        return self.steps * self.batch


def benchmark_files(
    rounds: int = 3,
    accelerator: str = "auto",
    *,
    steps: int = 100,
    batch_size: int = 256,
    network: str = "timm:resnet50",
    image_size: int = 224,
    workers: int | None = None,
) -> dict[str, Any]:
    """Decoding alone, training alone and both, ours and timm's, as plain values.

    A slice begins as an epoch does, with nothing decoded yet: its first batch is waited for.

    Args:
        rounds: how often every candidate works for its slice.
        accelerator: "cpu", "gpu" or "auto".
        steps, batch_size: of one slice.
        network: one of timm's, `timm:NAME`.
        image_size: of its input.
        workers: processes that decode; None: as `train` has them.

    Raises:
        GCLError: timm is missing, or has no such network.
    """
    if not network.startswith(PREFIX):
        raise GCLError(
            f"network {network!r} is none of timm's, with which this compares: timm:NAME"
        )
    check_network(network)
    if workers is None:
        workers = usable_cores() if device_kind(accelerator, network) == "gpu" else 0
    cores, candidates = torch.get_num_threads(), tuple(JOBS)
    with tempfile.TemporaryDirectory() as folder:
        _made_photographs(Path(folder))
        work = Work(steps, batch_size, network, image_size, workers, folder)
        with Workers(accelerator) as processes:
            started = {
                name: processes.start(partial(job, work), cores) for name, job in JOBS.items()
            }
            spent = [{n: processes.time(c) for n, c in started.items()} for _ in range(rounds)]
    rows = [{name: work.images / each.wall for name, each in row.items()} for row in spent]
    rates = {name: rate_of(rows, name) for name in candidates}
    cpu = {
        name: round(statistics.median(1e3 * row[name].cpu / work.images for row in spent), 2)
        for name in candidates
    }
    busy = {of: ratio_of(rows, f"{of} both", f"{of} training", 4) for of in ("our", "timm's")}
    ratios = {
        part: ratio_of(rows, f"our {part}", f"timm's {part}")
        for part in ("decoding", "training", "both")
    }
    told = {k: own for k, own in dataclasses.asdict(work).items() if k != "folder"}
    about = {"versions": versions(), "threads": cores, "rounds": rounds, **told}
    about["precision"] = best_precision(device_kind(accelerator, network))
    return about | {
        "images_per_s": rates,
        "cpu_ms_per_image": cpu,
        "waiting": {of: round(max(0.0, 1 - share), 3) for of, share in busy.items()},
        "ratios": ratios,
        "rows": rows,
    }


def files_table(found: dict[str, Any]) -> str:
    """The measurements of `benchmark_files` as text."""
    who = f"{found['workers']} processes decode" if found["workers"] else "threads decode"
    device = found["versions"]["gpu"] or f"CPU, {found['threads']} threads"
    lines = [
        f"{found['network']} at {found['side']} px, batch {found['batch']}, {found['precision']}; "
        f"{device}; {who}; medians of {found['rounds']} interleaved rounds",
        f"{'':12}{'images/s':>22}{'':8}{'CPU ms an image':>22}",
        f"{'':12}{'ours':>11}{'timm':>11}{'ratio':>8}{'ours':>11}{'timm':>11}",
    ]
    for part, ratio in found["ratios"].items():
        names = f"our {part}", f"timm's {part}"
        rates = "".join(f"{found['images_per_s'][name]:11.1f}" for name in names)
        cpu = "".join(f"{found['cpu_ms_per_image'][name]:11.2f}" for name in names)
        lines.append(f"{part:12}{rates}{ratio:8.2f}{cpu}")
    shares = (f"{100 * share:10.1f}%" for share in found["waiting"].values())
    return "\n".join([*lines, f"{'waiting':12}{''.join(shares)}"])


def _made_photographs(folder: Path) -> None:
    """JPEG files as large as ImageNet's, about 110 kB each: clouds of all sizes, and some noise."""
    random = np.random.default_rng(0)
    (folder / "made").mkdir()
    for number in range(PHOTOGRAPHS):
        pixels = random.normal(0, 6, (PHOTOGRAPH[1], PHOTOGRAPH[0], 3))
        for side in (4, 16, 64):
            coarse = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            pixels += np.asarray(Image.fromarray(coarse).resize(PHOTOGRAPH)) / 3.0
        whole = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        whole.save(folder / "made" / f"{number}.jpg", quality=90)


def _file_batches(fabric: Fabric, work: Work, *, in_files: bool) -> TrainingImages:
    images: Any
    if in_files:
        processes = Processes(work.workers, fabric.device.type == "cuda")
        reading = Reading(decoder=processes if work.workers else Threads())
        every = sorted(map(str, Path(work.folder).rglob("*.jpg")))
        files = [every[i % PHOTOGRAPHS] for i in range(work.images)]
        images = FileImages(files, (work.side, work.side), reading=reading)
    else:
        images = made_images(work.side, work.images)
    labels = torch.arange(work.images) % CLASSES
    train, names = Split(images, labels), tuple(map(str, range(CLASSES)))
    data = LongTailedDataset(
        "files", names, train, train, IMAGENET_MEAN, IMAGENET_STD, ResizedCrop()
    )
    streams = Streams.seeded(0, 1, 0, fabric.device)
    order = InstanceBalancedSampler(labels, generator=streams.order)
    return TrainingImages(data, order, work.batch, streams, fabric.device)


def _our_decoding(work: Work, fabric: Fabric) -> Job:
    return partial(drain, _file_batches(fabric, work, in_files=True))


def _our_training(work: Work, fabric: Fabric, *, in_files: bool = False) -> Job:
    batches = _file_batches(fabric, work, in_files=in_files)
    return trainer(fabric, new_network(fabric, work.network, CLASSES), batches)


def _timms_decoding(work: Work, fabric: Fabric) -> Job:
    return partial(drain, _timms_loader(fabric.device, work))


def _timms_loader(device: torch.device, work: Work) -> Iterable[tuple[Tensor, Tensor]]:
    """Training images as timm's script reads them by default, but for half of its resampling."""
    data: Any = import_module("timm.data")
    on_gpu, size = device.type == "cuda", (3, work.side, work.side)
    how: dict[str, Any] = {"is_training": True, "use_prefetcher": on_gpu}
    transform = data.create_transform(size, color_jitter=0.4, interpolation="bilinear", **how)
    whole: Dataset[Any] = data.ImageDataset(work.folder, transform=transform)
    repeated: Dataset[Any] = ConcatDataset([whole] * -(-work.images // PHOTOGRAPHS))
    some = Subset(repeated, range(work.images))
    own = {"num_workers": work.workers, "persistent_workers": work.workers > 0}
    loader: Iterable[tuple[Tensor, Tensor]] = data.create_loader(
        some, size, work.batch, device=device, pin_memory=on_gpu, **own, **how
    )
    return loader


def _timms_training(work: Work, fabric: Fabric, *, in_files: bool = False) -> Job:
    """The step of timm's script with --channels-last, --amp in bfloat16 and SGD."""
    models, optim = (import_module(f"timm.{part}") for part in ("models", "optim"))
    device = fabric.device
    if device.type == "cuda":  # as that script has it; `make_fabric` asked for repeatable bits
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
    else:
        keep_freed_memory()
    model: nn.Module = models.create_model(work.network.removeprefix(PREFIX), num_classes=CLASSES)
    channels_last(model.to(device).train())
    optimizer = optim.create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=5e-4, momentum=0.9)
    loader = _timms_loader(device, work) if in_files else [_noise(device, work)] * work.steps

    def epoch() -> None:
        for inputs, target in loader:
            inputs = inputs.to(device, memory_format=torch.channels_last)
            with fabric.autocast():
                loss = F.cross_entropy(model(inputs), target.to(device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def _noise(device: torch.device, work: Work) -> tuple[Tensor, Tensor]:
    images = torch.randn(work.batch, 3, work.side, work.side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    return images, torch.arange(work.batch, device=device) % CLASSES


JOBS: dict[str, Callable[[Work, Fabric], Job]] = {
    "our decoding": _our_decoding,
    "timm's decoding": _timms_decoding,
    "our training": _our_training,
    "timm's training": _timms_training,
    "our both": partial(_our_training, in_files=True),
    "timm's both": partial(_timms_training, in_files=True),
}
