"""How fast the training loop is, beside the loop that a user would otherwise write.

Every candidate lives in a process of its own and works for a short slice when it is told to; the
slices are interleaved round by round, since the speed of a machine drifts. Quoted are medians over
the rounds, and for ratios the median of the ratios within a round. `benchmark` takes random images:
ResNet-32, batch 64, the class counts of CIFAR-10-LT at ratio 100. `benchmark_files` takes made
photographs in JPEG files, and compares with the loader and the step of timm's training script.
"""

import collections
import dataclasses
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from gcl_core.benchmark.cost import made_images
from gcl_core.benchmark.plain import plain_epoch, plain_loader
from gcl_core.data.augment import PadCrop, ResizedCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.epoch import FrozenFeatures, TrainingImages
from gcl_core.data.file_images import FileImages, Reading
from gcl_core.data.images import MemoryImages
from gcl_core.data.imbalance import long_tailed_counts
from gcl_core.data.lists import IMAGENET_MEAN, IMAGENET_STD
from gcl_core.data.samplers import ClassBalancedSampler, InstanceBalancedSampler
from gcl_core.data.sources import CIFAR_MEAN, CIFAR_STD
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
from gcl_core.losses.gcl import GCLLoss
from gcl_core.networks.models import build_network, check_network, resnet32
from gcl_core.networks.network import CosineClassifier, Network
from gcl_core.networks.pretrained import PREFIX
from gcl_core.training.evaluation import frozen
from gcl_core.training.progress import Progress
from gcl_core.training.runs import versions
from gcl_core.training.stage import train_epoch
from gcl_core.training.step import make_step, step_kind
from gcl_core.training.two_stages import make_fabric

COUNTS = tuple(long_tailed_counts(5000, 10, 100))
BATCH = 64
PHOTOGRAPHS = 64  # different files, read again and again, so that no disk is measured
PHOTOGRAPH = (500, 375)  # pixels, as most of ImageNet's
CLASSES = 1000
FORWARD_FLOP = 2 * 68.9e6  # of ResNet-32 on one 32x32 image; a training step is three times that

Job = Callable[[], object]


@dataclass(frozen=True)
class Work:
    """What a candidate does in one slice: steps of a batch each; the rest is of files only.

    Attributes:
        workers: processes that decode; 0: threads.
        folder: holds the files.
    """

    steps: int
    batch: int = BATCH
    network: str = ""
    side: int = 0
    workers: int = 0
    folder: str = ""

    @property
    def images(self) -> int:
        """Of one slice."""
        return self.steps * self.batch


class Spent(NamedTuple):
    """Seconds of one slice: by the clock, and of the processor in the candidates' own processes."""

    wall: float
    cpu: float = 0.0


def benchmark(rounds: int = 7, steps: int = 12, accelerator: str = "auto") -> dict[str, Any]:
    """All measurements as plain values; `bench_table` prints them.

    Args:
        rounds: how often every candidate works for its slice.
        steps: batches of one slice.
        accelerator: "cpu", "gpu" or "auto".
    """
    cores = torch.get_num_threads()
    with _Workers(accelerator, Work(steps)) as workers:
        stage1 = workers.start("reference stage 1", cores), workers.start("stage 1", cores)
        pair = workers.start("stage 1", 1), workers.start("stage 1", 1)
        stage2 = workers.start("reference stage 2", cores), workers.start("stage 2", cores)
        data = workers.start("data", cores)
        rows = []
        for _ in range(rounds):
            times = {
                "reference1": workers.time(stage1[0]),
                "fast1": workers.time(stage1[1]),
                "data": workers.time(data),
                "pair": workers.time(*pair),
                "reference2": workers.time(stage2[0]),
                "fast2": workers.time(stage2[1]),
            }
            rows.append({name: steps * BATCH / spent.wall for name, spent in times.items()})
            rows[-1]["pair"] *= 2
        loss = workers.measure("loss", cores)
        hardware = workers.measure("hardware", cores)

    rate, ratio = partial(_rate, rows), partial(_ratio, rows)
    images = sum(COUNTS)
    return {
        "versions": versions(),
        "images": images,
        "batch_size": BATCH,
        "threads": cores,
        "precision": best_precision(accelerator),
        "rounds": rounds,
        "stage1": {
            "reference_images_per_s": rate("reference1"),
            "images_per_s": rate("fast1"),
            "ratio": ratio("fast1", "reference1"),
            "seconds_per_epoch": round(images / rate("fast1"), 1),
            "data_share": ratio("fast1", "data"),
            "two_processes_images_per_s": rate("pair"),
            "two_processes_ratio": ratio("pair", "reference1"),
        },
        "stage2": {
            "reference_images_per_s": rate("reference2"),
            "images_per_s": rate("fast2"),
            "ratio": ratio("fast2", "reference2"),
            "seconds_per_epoch": round(images / rate("fast2"), 1),
            "seconds_of_30_epochs": round(30 * images / rate("fast2"), 1),
        },
        "gcl_loss": loss,
        "hardware": hardware
        | {
            "training_share_of_matmul_peak": round(
                3 * FORWARD_FLOP * rate("fast1") / (hardware["matmul_tflop_per_s"] * 1e12), 3
            )
        },
        "rows": rows,
    }


def _rate(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return round(statistics.median(row[name] for row in rows), 1)


def _ratio(rows: Sequence[Mapping[str, float]], name: str, base: str, digits: int = 2) -> float:
    return round(statistics.median(row[name] / row[base] for row in rows), digits)


def bench_table(result: dict[str, Any]) -> str:
    """The measurements of `benchmark` as text."""
    first, second = result["stage1"], result["stage2"]
    loss, hardware, images = result["gcl_loss"], result["hardware"], result["images"]
    plain1, plain2 = first["reference_images_per_s"], second["reference_images_per_s"]
    pair = first["two_processes_images_per_s"]
    rows = [
        ("stage 1, plain loop (PIL, float32)", plain1, 1, images / plain1),
        ("stage 1", first["images_per_s"], first["ratio"], first["seconds_per_epoch"]),
        ("stage 1, two one-thread runs", pair, first["two_processes_ratio"], 2 * images / pair),
        ("stage 2, plain loop (PIL, float32)", plain2, 1, images / plain2),
        ("stage 2", second["images_per_s"], second["ratio"], second["seconds_per_epoch"]),
    ]
    head = (
        f"ResNet-32, batch {result['batch_size']}, {images} images an epoch, "
        f"{result['threads']} threads, {result['precision']}, "
        f"medians of {result['rounds']} interleaved rounds"
    )
    lines = [head, f"{'':36}{'images/s':>9}{'ratio':>8}{'s/epoch':>9}"]
    lines += [f"{name:36}{rate:9.0f}{ratio:8.2f}{epoch:9.1f}" for name, rate, ratio, epoch in rows]
    share = hardware["training_share_of_matmul_peak"]
    return "\n".join(
        [
            *lines,
            f"stage 2, its 30 epochs: {second['seconds_of_30_epochs']:.0f} s",
            f"data: {100 * first['data_share']:.1f} % of stage 1",
            f"GCLLoss at (512, 8142): {loss['ratio']:8.2f} times cross-entropy "
            f"({loss['gcl_ms']:.1f} and {loss['cross_entropy_ms']:.1f} ms); "
            f"composed plainly {loss['plain_ratio']:.2f} times",
            f"hardware: {hardware['matmul_tflop_per_s']:.2f} TFLOP/s in a {result['precision']} "
            f"matrix product, of which stage 1 uses {100 * share:.1f} %; "
            f"memory copy {hardware['copy_gb_per_s']:.1f} GB/s",
        ]
    )


class _Workers:
    """Processes that each hold one candidate, warmed up, and work when told to."""

    def __init__(self, accelerator: str, work: Work) -> None:
        self.accelerator, self.work = accelerator, work
        methods = multiprocessing.get_all_start_methods()
        self.context = multiprocessing.get_context(
            "forkserver" if "forkserver" in methods else None
        )
        self.context.set_forkserver_preload([__name__])
        self.processes: list[tuple[Any, Connection]] = []

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process, connection in self.processes:
            connection.close()  # which ends it, unless it is in the middle of something
            process.join(10)
            process.kill()
            process.join()

    def start(self, job: str, threads: int) -> Connection:
        """Start a process for a job of `JOBS`; returns when it is warm."""
        ours, theirs = self.context.Pipe()
        told = (job, threads, self.accelerator, self.work, theirs)
        process = self.context.Process(target=_serve, args=told)
        process.start()
        theirs.close()
        self.processes.append((process, ours))
        ours.recv()
        return ours

    def time(self, *connections: Connection) -> Spent:
        """Seconds until all of the jobs, started together, have done one slice."""
        began = time.perf_counter()
        for connection in connections:
            connection.send(None)
        cpu = sum(connection.recv()[1] for connection in connections)
        return Spent(time.perf_counter() - began, cpu)

    def measure(self, job: str, threads: int) -> Any:
        """What a job of `MEASURES` returns."""
        connection = self.start(job, threads)
        connection.send(None)
        return connection.recv()[0]


def _serve(job: str, threads: int, accelerator: str, told: Work, connection: Connection) -> None:
    torch.set_num_threads(threads)
    plain = job.startswith("reference")
    fabric = make_fabric(accelerator, "float32" if plain else best_precision(accelerator))
    work: Callable[[], Any]
    if job in JOBS:
        work = JOBS[job](fabric, told)
        work()
    else:
        work = MEASURES[job](fabric)
    connection.send("ready")
    while True:
        try:
            connection.recv()
        except EOFError:  # the other side is done
            return
        began = time.process_time()
        answer = work()
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        connection.send((answer, time.process_time() - began))


def _random_dataset() -> LongTailedDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (sum(COUNTS), 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.repeat_interleave(torch.arange(10), torch.tensor(COUNTS))
    names = tuple(str(j) for j in range(10))
    train, none = Split(MemoryImages(images), labels), Split(MemoryImages(images[:0]), labels[:0])
    return LongTailedDataset(
        "random", names, train, none, CIFAR_MEAN, CIFAR_STD, PadCrop(4, flip=True)
    )


def _reference_loader(images: int) -> DataLoader[Any]:
    dataset = _random_dataset()
    draws = InstanceBalancedSampler(dataset.train.labels, num_samples=images)
    return plain_loader(dataset, BATCH, draws)


def _reference_stage1(fabric: Fabric, work: Work) -> Job:
    network = resnet32(10, "linear").to(fabric.device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    loader = _reference_loader(work.images)
    return lambda: plain_epoch(network, optimizer, loader, fabric.device)


def _reference_stage2(fabric: Fabric, work: Work) -> Job:
    network = resnet32(10, "linear").to(fabric.device).eval()
    optimizer = torch.optim.SGD(network.head.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    loader = _reference_loader(work.images)

    def epoch() -> None:
        for inputs, target in loader:
            inputs, target = inputs.to(fabric.device), target.to(fabric.device)
            with torch.no_grad():
                features = network.features(inputs)
            loss = F.cross_entropy(network.head(features), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def _batches(fabric: Fabric, sampler: type, images: int) -> TrainingImages:
    dataset = _random_dataset()
    streams = Streams.seeded(0, 1, 0, fabric.device)
    draws = sampler(dataset.train.labels, num_samples=images, generator=streams.order)
    return TrainingImages(dataset, draws, BATCH, streams, fabric.device)


def _trainer(fabric: Fabric, module: nn.Module, batches: TrainingImages | FrozenFeatures) -> Job:
    optimizer = torch.optim.SGD(
        module.parameters(), 0.1, momentum=0.9, weight_decay=2e-4, fused=True
    )
    trained, stepper = fabric.setup(module, optimizer)
    bar = Progress("none", "", 0, 1, len(batches))
    criterion = nn.CrossEntropyLoss()
    step = make_step(step_kind("auto", fabric), fabric, trained, stepper, [])
    return lambda: train_epoch(step, criterion, batches, bar)


def _network(fabric: Fabric, network: str = "resnet32", classes: int = 10) -> Network:
    if fabric.device.type == "cpu":
        keep_freed_memory()
    return channels_last(build_network(network, classes, "linear").to(fabric.device))


def _stage1(fabric: Fabric, work: Work) -> Job:
    return _trainer(
        fabric, _network(fabric), _batches(fabric, InstanceBalancedSampler, work.images)
    )


def _stage2(fabric: Fabric, work: Work) -> Job:
    network = _network(fabric)
    augmented = _batches(fabric, ClassBalancedSampler, work.images)
    batches = FrozenFeatures(augmented, frozen(network.backbone, fabric))
    return _trainer(fabric, CosineClassifier(64, 10).to(fabric.device), batches)


def _data(fabric: Fabric, work: Work) -> Job:
    keep_freed_memory()
    return partial(_drain, _batches(fabric, InstanceBalancedSampler, work.images))


def _drain(batches: Iterable[object]) -> None:
    collections.deque(batches, maxlen=0)


def _loss(fabric: Fabric) -> Callable[[], dict[str, float]]:
    """GCLLoss against `F.cross_entropy`, forward and backward, with iNaturalist's classes."""
    if fabric.device.type == "cpu":
        keep_freed_memory()  # as in a training; else clearing new pages takes most of the time
    generator = torch.Generator(fabric.device).manual_seed(0)
    cosine = torch.rand(512, 8142, device=fabric.device, generator=generator) * 2 - 1
    cosine.requires_grad_()
    target = torch.randint(8142, (512,), device=fabric.device, generator=generator)
    counts = torch.from_numpy(np.geomspace(1000, 2, 8142).astype(int))
    criterion = GCLLoss(counts, generator=generator).to(fabric.device)

    def plain() -> Tensor:
        noise = torch.empty_like(cosine).normal_(0, 1 / 3, generator=generator)
        cloud = 0.5 * criterion.cloud_sizes * noise.clamp(-1, 1).abs()
        return F.cross_entropy(30 * (cosine - cloud), target)

    candidates: dict[str, Callable[[], Tensor]] = {
        "cross_entropy": lambda: F.cross_entropy(cosine, target),
        "gcl": lambda: criterion(cosine, target),
        "plain": plain,
    }

    def seconds(candidate: Callable[[], Tensor]) -> float:
        cosine.grad = None
        began = time.perf_counter()
        candidate().backward()
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def work() -> dict[str, float]:
        rows = [{n: seconds(c) for n, c in candidates.items()} for _ in range(25)][5:]
        medians = {name: statistics.median(row[name] for row in rows) for name in candidates}

        def ratio(name: str) -> float:
            return round(statistics.median(row[name] / row["cross_entropy"] for row in rows), 2)

        return {
            "cross_entropy_ms": round(1e3 * medians["cross_entropy"], 2),
            "gcl_ms": round(1e3 * medians["gcl"], 2),
            "ratio": ratio("gcl"),
            "plain_ratio": ratio("plain"),
        }

    return work


def _hardware(fabric: Fabric) -> Callable[[], dict[str, float]]:
    """The best of several: a large matrix product in the run's precision, and a memory copy."""
    bfloat16 = best_precision(fabric.device.type) == "bfloat16"
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    size = 2048 if fabric.device.type == "cpu" else 8192
    matrix = torch.rand(size, size, device=fabric.device).to(dtype)
    block = torch.zeros(2**26, device=fabric.device)

    def best(action: Callable[[], object]) -> float:
        times = []
        for _ in range(8):
            began = time.perf_counter()
            action()
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        return min(times)

    def work() -> dict[str, float]:
        copied = torch.empty_like(block)
        return {
            "matmul_tflop_per_s": round(2 * size**3 / best(lambda: matrix @ matrix) / 1e12, 3),
            "copy_gb_per_s": round(2 * 4 * 2**26 / best(lambda: copied.copy_(block)) / 1e9, 1),
        }

    return work


# Photographs in files


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
        rounds, accelerator: as of `benchmark`.
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
    cores, candidates = torch.get_num_threads(), tuple(FILE_JOBS)
    with tempfile.TemporaryDirectory() as folder:
        _made_photographs(Path(folder))
        work = Work(steps, batch_size, network, image_size, workers, folder)
        with _Workers(accelerator, work) as processes:
            started = {name: processes.start(name, cores) for name in candidates}
            spent = [{n: processes.time(c) for n, c in started.items()} for _ in range(rounds)]
    rows = [{name: work.images / each.wall for name, each in row.items()} for row in spent]
    rates = {name: _rate(rows, name) for name in candidates}
    cpu = {
        name: round(statistics.median(1e3 * row[name].cpu / work.images for row in spent), 2)
        for name in candidates
    }
    busy = {of: _ratio(rows, f"{of} both", f"{of} training", 4) for of in ("our", "timm's")}
    ratios = {
        part: _ratio(rows, f"our {part}", f"timm's {part}")
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


def _our_decoding(fabric: Fabric, work: Work) -> Job:
    return partial(_drain, _file_batches(fabric, work, in_files=True))


def _our_training(fabric: Fabric, work: Work, *, in_files: bool = False) -> Job:
    batches = _file_batches(fabric, work, in_files=in_files)
    return _trainer(fabric, _network(fabric, work.network, CLASSES), batches)


def _timms_decoding(fabric: Fabric, work: Work) -> Job:
    return partial(_drain, _timms_loader(fabric.device, work))


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


def _timms_training(fabric: Fabric, work: Work, *, in_files: bool = False) -> Job:
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


FILE_JOBS: dict[str, Callable[[Fabric, Work], Job]] = {
    "our decoding": _our_decoding,
    "timm's decoding": _timms_decoding,
    "our training": _our_training,
    "timm's training": _timms_training,
    "our both": partial(_our_training, in_files=True),
    "timm's both": partial(_timms_training, in_files=True),
}
JOBS: dict[str, Callable[[Fabric, Work], Job]] = FILE_JOBS | {
    "reference stage 1": _reference_stage1,
    "reference stage 2": _reference_stage2,
    "stage 1": _stage1,
    "stage 2": _stage2,
    "data": _data,
}
MEASURES: dict[str, Callable[[Fabric], Callable[[], dict[str, float]]]] = {
    "loss": _loss,
    "hardware": _hardware,
}
