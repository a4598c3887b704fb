"""Batches without a per-image step: one uint8 tensor on the device and tensor operations."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_core.data.batch import Batch
from gcl_core.data.dataset import LongTailedDataset
from gcl_core.hardware import inference_batch


class Sampler(Protocol):
    """An epoch's image indices at once; every sampler of `gcl_core.data.samplers` is one."""

    def draw(self) -> Tensor: ...
    def __len__(self) -> int: ...


@dataclass
class Streams:
    """The random streams of one stage; their states go into its checkpoint.

    `weights` draws new weights, `order` the images of an epoch, `mixup` the shares (all on the
    CPU), `device` what happens on the training device (augmentation, mixup partners), and `noise`
    feeds the objective.
    """

    weights: torch.Generator
    order: torch.Generator
    mixup: torch.Generator
    device: torch.Generator
    noise: torch.Generator

    @classmethod
    def seeded(cls, seed: int, stage: int, rank: int, device: torch.device) -> "Streams":
        """Independent streams; all processes (ranks) share weights, order and mixup shares."""

        def stream(number: int, on: torch.device, rank: int) -> torch.Generator:
            # Hashed, as torch's CPU generator looks at the lower 32 bits of a seed only.
            key = np.random.SeedSequence((seed, stage, rank, number)).generate_state(1, np.uint64)
            return torch.Generator(on).manual_seed(int(key[0]))

        cpu = torch.device("cpu")
        return cls(
            weights=stream(0, cpu, 0),
            order=stream(1, cpu, 0),
            mixup=stream(2, cpu, 0),
            device=stream(3, device, rank),
            noise=stream(4, device, rank),
        )

    def state(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name).get_state() for f in dataclasses.fields(self)}

    def restore(self, state: dict[str, Tensor]) -> None:
        for field in dataclasses.fields(self):
            getattr(self, field.name).set_state(state[field.name])


def normaliser(dataset: LongTailedDataset, device: torch.device) -> Callable[[Tensor], Tensor]:
    """uint8 images -> (x / 255 - mean) / std in float32, channels last."""
    mean = torch.tensor(dataset.mean, device=device).view(1, -1, 1, 1) * 255
    scale = 1 / (torch.tensor(dataset.std, device=device).view(1, -1, 1, 1) * 255)

    def normalise(images: Tensor) -> Tensor:
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.sub_(mean).mul_(scale)

    return normalise


class TrainingImages:
    """Augmented, normalised and (optionally) mixed training batches; one iteration is one epoch.

    Each image gets its own crop from a zero-padded copy and its own coin for the mirror, as
    torchvision's RandomCrop and RandomHorizontalFlip give it. All draws of an epoch are made before
    its first batch; nothing is copied from the device to the host inside it.
    """

    def __init__(
        self,
        dataset: LongTailedDataset,
        sampler: Sampler,
        batch_size: int,
        streams: Streams,
        device: torch.device,
        *,
        mixup_alpha: float = 0.0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.sampler, self.batch_size, self.streams = sampler, batch_size, streams
        self.views = 1
        self.mixup_alpha, self.rank, self.ranks = mixup_alpha, rank, ranks
        self.device, self.flip = device, dataset.flip
        self.normalise = normaliser(dataset, device)
        pad = dataset.crop_padding
        height, width = dataset.train_images.shape[2:]
        padded = F.pad(dataset.train_images, (pad, pad, pad, pad)).to(device)
        # (N, channels, dy, dx, H, W) is a view: every crop of every image, no copy.
        self.crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        self.labels = dataset.train_labels.to(device)

    def drawn_by(self, sampler: Sampler) -> "TrainingImages":
        """The same images, drawn by another sampler; nothing is copied."""
        other = copy.copy(self)
        other.sampler = sampler
        return other

    def in_views(self, views: int) -> "TrainingImages":
        """The same images, each so many times in its batch: all once, then all again, and so on."""
        other = copy.copy(self)
        other.views = views
        return other

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = self.sampler.draw()
        generator, device = self.streams.device, self.device
        steps = order.split(self.batch_size)
        shares = self._mixup_shares(len(steps)).to(device)
        mine = [self._share(indices).repeat(self.views) for indices in steps]
        sizes = [len(indices) for indices in mine]
        drawn = torch.cat(mine).to(device)
        shifts = self.crops.shape[2:4]
        dy, dx = (torch.randint(s, drawn.shape, device=device, generator=generator) for s in shifts)
        coins = torch.rand(drawn.shape, device=device, generator=generator) < 0.5
        epoch = zip(*(x.split(sizes) for x in (drawn, dy, dx, coins)), shares, strict=True)
        for indices, down, right, mirrored, share in epoch:
            images = self.crops[indices, :, down, right]
            if self.flip:
                images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
            inputs, target = self.normalise(images), self.labels[indices]
            if not self.mixup_alpha:
                yield Batch(inputs, target)
                continue
            partner = torch.randperm(len(indices), device=device, generator=generator)
            mixed = torch.lerp(inputs[partner], inputs, share)
            yield Batch(mixed, target, self.labels[indices[partner]], share)

    def _share(self, indices: Tensor) -> Tensor:
        """This process's images of a step; all have as many, the first ones twice if need be."""
        every = -(-len(indices) // self.ranks) * self.ranks
        return indices[torch.arange(self.rank, every, self.ranks) % len(indices)]

    def _mixup_shares(self, steps: int) -> Tensor:
        """One lambda ~ Beta(alpha, alpha) for each step, (steps,) float32, by the inverse CDF."""
        uniform = torch.rand(steps, dtype=torch.float64, generator=self.streams.mixup)
        if self.mixup_alpha in (0.0, 1.0):  # Beta(1, 1) is uniform
            return uniform.float()
        alpha = self.mixup_alpha
        return torch.from_numpy(scipy.special.betaincinv(alpha, alpha, uniform.numpy())).float()


def clean_batches(
    images: Tensor, dataset: LongTailedDataset, device: torch.device
) -> Iterator[Tensor]:
    """Normalised batches of uint8 images, in order and without augmentation."""
    normalise = normaliser(dataset, device)
    for part in images.split(inference_batch(device, images[0, 0].numel())):
        yield normalise(part.to(device))


class FrozenFeatures:
    """The same batches with images replaced by the features of a frozen backbone.

    As many batches go through the backbone together as `inference_batch` has room for: without
    gradients and batch statistics that changes nothing, and a GPU is kept busy.
    """

    def __init__(self, batches: TrainingImages, backbone: Callable[[Tensor], Tensor]) -> None:
        self.batches, self.backbone = batches, backbone
        pixels = batches.crops.shape[-2] * batches.crops.shape[-1]
        self.together = max(1, inference_batch(batches.device, pixels) // batches.batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.batches)
        while group := list(itertools.islice(batches, self.together)):
            images = torch.cat([batch.inputs for batch in group])
            features = self.backbone(images).split([len(batch.target) for batch in group])
            for batch, inputs in zip(group, features, strict=True):
                yield dataclasses.replace(batch, inputs=inputs)
