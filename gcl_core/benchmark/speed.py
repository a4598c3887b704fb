"""How fast the training loop is, beside the loop that a user would otherwise write.

Random images: ResNet-32, batch 64, the class counts of CIFAR-10-LT at ratio 100.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from gcl_core.benchmark.interleaved import (
    Job,
    Workers,
    drain,
    elapsed,
    new_network,
    rate_of,
    ratio_of,
    trainer,
)
from gcl_core.benchmark.plain import plain_epoch, plain_loader
from gcl_core.data.augment import PadCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.epoch import FrozenFeatures, TrainingImages
from gcl_core.data.images import MemoryImages
from gcl_core.data.imbalance import long_tailed_counts
from gcl_core.data.samplers import ClassBalancedSampler, InstanceBalancedSampler
from gcl_core.data.sources import CIFAR_MEAN, CIFAR_STD
from gcl_core.data.streams import Streams
from gcl_core.hardware import best_precision, keep_freed_memory
from gcl_core.losses.gcl import GCLLoss
from gcl_core.networks.models import resnet32
from gcl_core.networks.network import CosineClassifier
from gcl_core.training.evaluation import frozen
from gcl_core.training.runs import versions

COUNTS = tuple(long_tailed_counts(5000, 10, 100))
BATCH = 64
FORWARD_FLOP = 2 * 68.9e6  # of ResNet-32 on one 32x32 image; a training step is three times that


def benchmark(rounds: int = 7, steps: int = 12, accelerator: str = "auto") -> dict[str, Any]:
    """All measurements as plain values; `bench_table` prints them.

    Args:
        rounds: how often every candidate works for its slice.
        steps: batches of one slice.
        accelerator: "cpu", "gpu" or "auto".
    """
    cores = torch.get_num_threads()
    plain1, ours1, plain2, ours2, only_data = (
        partial(job, images=steps * BATCH)
        for job in (_reference_stage1, _stage1, _reference_stage2, _stage2, _data)
    )
    with Workers(accelerator) as workers:
        first = workers.start(plain1, cores), workers.start(ours1, cores)
        pair = workers.start(ours1, 1), workers.start(ours1, 1)
        second = workers.start(plain2, cores), workers.start(ours2, cores)
        data = workers.start(only_data, cores)
        rows = []
        for _ in range(rounds):
            times = {
                "reference1": workers.time(first[0]),
                "fast1": workers.time(first[1]),
                "data": workers.time(data),
                "pair": workers.time(*pair),
                "reference2": workers.time(second[0]),
                "fast2": workers.time(second[1]),
            }
            rows.append({name: steps * BATCH / spent.wall for name, spent in times.items()})
            rows[-1]["pair"] *= 2
        loss = workers.measure(_loss, cores)
        hardware = workers.measure(_hardware, cores)

    rate, ratio = partial(rate_of, rows), partial(ratio_of, rows)
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


def _reference_stage1(fabric: Fabric, images: int) -> Job:
    network = resnet32(10, "linear").to(fabric.device)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    loader = _reference_loader(images)
    return lambda: plain_epoch(network, optimizer, loader, fabric.device)


def _reference_stage2(fabric: Fabric, images: int) -> Job:
    network = resnet32(10, "linear").to(fabric.device).eval()
    optimizer = torch.optim.SGD(network.head.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    loader = _reference_loader(images)

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


def _stage1(fabric: Fabric, images: int) -> Job:
    return trainer(
        fabric,
        new_network(fabric, "resnet32", 10),
        _batches(fabric, InstanceBalancedSampler, images),
    )


def _stage2(fabric: Fabric, images: int) -> Job:
    network = new_network(fabric, "resnet32", 10)
    augmented = _batches(fabric, ClassBalancedSampler, images)
    batches = FrozenFeatures(augmented, frozen(network.backbone, fabric))
    return trainer(fabric, CosineClassifier(64, 10).to(fabric.device), batches)


def _data(fabric: Fabric, images: int) -> Job:
    keep_freed_memory()
    return partial(drain, _batches(fabric, InstanceBalancedSampler, images))


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
        return elapsed(lambda: candidate().backward(), fabric.device)

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
        return min(elapsed(action, fabric.device) for _ in range(8))

    def work() -> dict[str, float]:
        copied = torch.empty_like(block)
        return {
            "matmul_tflop_per_s": round(2 * size**3 / best(lambda: matrix @ matrix) / 1e12, 3),
            "copy_gb_per_s": round(2 * 4 * 2**26 / best(lambda: copied.copy_(block)) / 1e9, 1),
        }

    return work
