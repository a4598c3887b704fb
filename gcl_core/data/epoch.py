"""An epoch of batches without a per-image step: what is drawn, augmented, normalised and mixed."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

import scipy.special
import torch
from torch import Tensor

from gcl_core.data.batch import Batch
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.streams import Streams
from gcl_core.errors import GCLError
from gcl_core.hardware import inference_batch


class Sampler(Protocol):
    """An epoch's image indices at once; every sampler of `gcl_core.data.samplers` is one."""

    def draw(self) -> Tensor: ...
    def __len__(self) -> int: ...


class Statistics(Protocol):
    """Mean and deviation of each channel, in units of the full pixel range; () for features."""

    @property
    def has_pixels(self) -> bool: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...


def normaliser(of: Statistics, device: torch.device) -> Callable[[Tensor], Tensor]:
    """uint8 images -> (x / 255 - mean) / std in float32, channels last; features stay."""
    if not of.has_pixels:
        return lambda features: features
    mean = torch.tensor(of.mean, device=device).view(1, -1, 1, 1) * 255
    scale = 1 / (torch.tensor(of.std, device=device).view(1, -1, 1, 1) * 255)

    def normalise(images: Tensor) -> Tensor:
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.sub_(mean).mul_(scale)

    return normalise


class TrainingImages:
    """Augmented, normalised and (optionally) mixed training batches; one iteration is one epoch.

    All draws of an epoch are made before its first batch; nothing is copied from the device to the
    host inside it. Of several processes each has its share of every batch, and no image twice.

    Raises:
        GCLError: a batch smaller than the number of processes.
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
        self.views, self.skipped = 1, 0
        self.mixup_alpha, self.rank, self.ranks = mixup_alpha, rank, ranks
        if (smallest := min(batch_size, len(sampler))) < ranks:
            raise GCLError(
                f"a batch of {smallest} images has none for some of {ranks} processes; take fewer "
                "devices, or more images in a batch"
            )
        self.device, self.augment = device, dataset.augment
        self.normalise = normaliser(dataset, device)
        self.images = dataset.train.images.on(device)
        self.host_labels = dataset.train.labels
        self.labels = self.host_labels.to(device)

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

    def without_first(self, steps: int) -> "TrainingImages":
        """See `gcl_core.data.batch.Batches`."""
        other = copy.copy(self)
        other.skipped = self.skipped + steps
        return other

    def __len__(self) -> int:
        return len(self._sizes()) - self.skipped

    def _sizes(self) -> list[int]:
        """Images of each step; a rest that has none for some process goes with the step before."""
        whole, rest = divmod(len(self.sampler), self.batch_size)
        sizes = [self.batch_size] * whole + [rest] * (rest > 0)
        if rest and rest < self.ranks:
            sizes[-2:] = [self.batch_size + rest]
        return sizes

    def __iter__(self) -> Iterator[Batch]:
        order = self.sampler.draw()
        generator, device = self.streams.device, self.device
        every = order.split(self._sizes())
        mine = [step[self.rank :: self.ranks].repeat(self.views) for step in every]
        weights = [
            len(own) * self.ranks / (len(step) * self.views)
            for own, step in zip(mine, every, strict=True)
        ]
        shares = self._mixup_shares(len(mine)).to(device)
        sizes = [len(indices) for indices in mine]
        drawn = torch.cat(mine).to(device)
        draws = self.augment.draw(len(drawn), generator)
        steps = drawn.split(sizes)
        cuts = list(zip(*(each.split(sizes) for each in draws), strict=True))
        done = self.skipped
        for indices in steps[:done] if self.mixup_alpha else ():
            torch.randperm(len(indices), device=device, generator=generator)
        images = self.images.batches(steps[done:], self.augment, cuts[done:])
        drawn_steps = zip(steps[done:], images, shares[done:], weights[done:], strict=True)
        for indices, pixels, share, weight in drawn_steps:
            inputs, target = self.normalise(pixels), self.labels[indices]
            if not self.mixup_alpha:
                yield Batch(inputs, target, weight=weight)
                continue
            partner = torch.randperm(len(indices), device=device, generator=generator)
            mixed = torch.lerp(inputs[partner], inputs, share)
            yield Batch(mixed, target, self.labels[indices[partner]], share, weight)

    def _mixup_shares(self, steps: int) -> Tensor:
        """One lambda ~ Beta(alpha, alpha) for each step, (steps,) float32, by the inverse CDF."""
        uniform = torch.rand(steps, dtype=torch.float64, generator=self.streams.mixup)
        if self.mixup_alpha in (0.0, 1.0):  # Beta(1, 1) is uniform
            return uniform.float()
        alpha = self.mixup_alpha
        return torch.from_numpy(scipy.special.betaincinv(alpha, alpha, uniform.numpy())).float()


def clean_batches(
    split: Split, dataset: LongTailedDataset, device: torch.device, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images and labels of a part of the data set, in order, without augmentation.

    Args:
        rank, ranks: of several processes; each gets every `ranks`-th image.
    """
    normalise, images = normaliser(dataset, device), split.images.on(device)
    together = inference_batch(device, images.shape)
    mine = torch.arange(rank, len(split), ranks)
    steps = mine.to(device).split(together)
    for pixels, indices in zip(images.batches(steps), mine.split(together), strict=True):
        yield normalise(pixels), split.labels[indices]


class FrozenFeatures:
    """The same batches with images replaced by the features of a frozen backbone.

    As many batches go through the backbone together as `inference_batch` has room for: without
    gradients and batch statistics that changes nothing, and a GPU is kept busy.
    """

    def __init__(self, batches: TrainingImages, backbone: Callable[[Tensor], Tensor]) -> None:
        self.batches, self.backbone = batches, backbone
        room = inference_batch(batches.device, batches.images.shape)
        self.together, self.skipped = max(1, room // batches.batch_size), 0

    def __len__(self) -> int:
        return len(self.batches) - self.skipped

    def without_first(self, steps: int) -> "FrozenFeatures":
        """See `gcl_core.data.batch.Batches`; batches go through the backbone in the same groups."""
        other = copy.copy(self)
        other.skipped = (self.skipped + steps) % self.together
        other.batches = self.batches.without_first(self.skipped + steps - other.skipped)
        return other

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(self._all(), self.skipped, None)

    def _all(self) -> Iterator[Batch]:
        batches = iter(self.batches)
        while group := list(itertools.islice(batches, self.together)):
            images = torch.cat([batch.inputs for batch in group])
            features = self.backbone(images).split([len(batch.target) for batch in group])
            for batch, inputs in zip(group, features, strict=True):
                yield dataclasses.replace(batch, inputs=inputs)
