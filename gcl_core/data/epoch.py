"""An epoch of batches without a per-image step: what is drawn, augmented, normalised and mixed."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from gcl_core.bars import Bar
from gcl_core.data.batch import Batch
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.file_images import FileImages
from gcl_core.data.images import MemoryImages
from gcl_core.data.streams import Streams
from gcl_core.errors import GCLError
from gcl_core.hardware import inference_batch


class Sampler(Protocol):
    """An epoch's image indices at once; every sampler of `gcl_core.data.samplers` is one."""

    def draw(self) -> Tensor: ...
    def __len__(self) -> int: ...


def normaliser(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """uint8 images -> (x / 255 - mean) / std in float32, channels last; features stay.

    Args:
        mean, std: of each channel, in units of the full pixel range; () for features.
    """
    if not mean:
        return lambda features: features
    shift = torch.tensor(mean, device=device).view(1, -1, 1, 1) * 255
    scale = 1 / (torch.tensor(std, device=device).view(1, -1, 1, 1) * 255)

    def normalise(images: Tensor) -> Tensor:
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.sub_(shift).mul_(scale)

    return normalise


@dataclass(frozen=True)
class TrainingImages:
    """Augmented, normalised and (optionally) mixed training batches; one iteration is one epoch.

    All draws of an epoch are made before its first batch; nothing is copied from the device to the
    host inside it. Of several processes each has its share of every batch, and no image twice.

    Attributes:
        mixup_alpha: of the images of a batch; 0: they are not mixed.
        rank, ranks: of several processes.
        views: how often a batch has its images: all once, then all again, and so on.
        skipped: steps at the begin of an epoch that are drawn and not given.

    Raises:
        GCLError: a batch smaller than the number of processes.
    """

    dataset: LongTailedDataset
    sampler: Sampler
    batch_size: int
    streams: Streams
    device: torch.device
    mixup_alpha: float = 0.0
    rank: int = 0
    ranks: int = 1
    views: int = 1
    skipped: int = 0

    def __post_init__(self) -> None:
        if (smallest := min(self.batch_size, len(self.sampler))) < self.ranks:
            raise GCLError(
                f"a batch of {smallest} images has none for some of {self.ranks} processes; take "
                "fewer devices, or more images in a batch"
            )

    @cached_property
    def images(self) -> MemoryImages | FileImages:
        """The training images, on the device."""
        return self.dataset.train.images.on(self.device)

    @cached_property
    def labels(self) -> Tensor:
        """Their labels, (N,), on the device."""
        return self.dataset.train.labels.to(self.device)

    def without_first(self, steps: int) -> "TrainingImages":
        """See `gcl_core.data.batch.Batches`."""
        return replace(self, skipped=self.skipped + steps)

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
        every, generator = self.sampler.draw().split(self._sizes()), self.streams.device
        mine = [step[self.rank :: self.ranks].repeat(self.views) for step in every]
        sizes = [len(own) for own in mine]
        weights = [
            size * self.ranks / (len(step) * self.views)
            for size, step in zip(sizes, every, strict=True)
        ]
        shares = self._mixup_shares(len(mine)).to(self.device)
        drawn, augment = torch.cat(mine).to(self.device), self.dataset.augment
        draws = augment.draw(len(drawn), generator)
        steps = drawn.split(sizes)
        cuts = list(zip(*(each.split(sizes) for each in draws), strict=True))

        def partners(indices: Tensor) -> Tensor:
            return torch.randperm(len(indices), device=self.device, generator=generator)

        done, normalise = self.skipped, normaliser(self.dataset.mean, self.dataset.std, self.device)
        for indices in steps[:done] if self.mixup_alpha else ():
            partners(indices)
        images = self.images.batches(steps[done:], augment, cuts[done:])
        rest = zip(steps[done:], images, shares[done:], weights[done:], strict=True)
        for indices, pixels, share, weight in rest:
            inputs, target = normalise(pixels), self.labels[indices]
            if not self.mixup_alpha:
                yield Batch(inputs, target, weight=weight)
                continue
            partner = partners(indices)
            mixed = torch.lerp(inputs[partner], inputs, share)
            yield Batch(mixed, target, self.labels[indices[partner]], share, weight)

    def _mixup_shares(self, steps: int) -> Tensor:
        """One lambda ~ Beta(alpha, alpha) for each step, (steps,) float32, by the inverse CDF."""
        uniform = torch.rand(steps, dtype=torch.float64, generator=self.streams.mixup)
        if self.mixup_alpha in (0.0, 1.0):  # Beta(1, 1) is uniform
            return uniform.float()
        alpha = self.mixup_alpha
        from scipy.special import betaincinv  # it takes long to load; few runs need it

        return torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy())).float()


def clean_batches(
    split: Split,
    dataset: LongTailedDataset,
    device: torch.device,
    rank: int = 0,
    ranks: int = 1,
    *,
    title: str = "images",
    progress: str = "none",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images and labels of a part of the data set, in order, without augmentation.

    Args:
        rank, ranks: of several processes; each gets every `ranks`-th image.
        title, progress: how a `Bar` over the images is called, and its kind.
    """
    normalise, images = normaliser(dataset.mean, dataset.std, device), split.images.on(device)
    together = inference_batch(device, images.shape)
    mine = torch.arange(rank, len(split), ranks)
    steps = mine.to(device).split(together)
    with Bar(title, len(mine), "image", progress) as bar:
        for pixels, indices in zip(images.batches(steps), mine.split(together), strict=True):
            yield normalise(pixels), split.labels[indices]
            bar.update(len(indices))


@dataclass(frozen=True)
class FrozenFeatures:
    """The same batches with images replaced by the features of a frozen backbone.

    As many batches go through the backbone together as `inference_batch` has room for: without
    gradients and batch statistics that changes nothing, and a GPU is kept busy.

    Attributes:
        skipped: batches of the first group that go through the backbone and are not given.
    """

    batches: TrainingImages
    backbone: Callable[[Tensor], Tensor]
    skipped: int = 0

    @cached_property
    def _together(self) -> int:
        room = inference_batch(self.batches.device, self.batches.images.shape)
        return max(1, room // self.batches.batch_size)

    def __len__(self) -> int:
        return len(self.batches) - self.skipped

    def without_first(self, steps: int) -> "FrozenFeatures":
        """See `gcl_core.data.batch.Batches`; batches go through the backbone in the same groups."""
        whole, skipped = divmod(self.skipped + steps, self._together)
        rest = self.batches.without_first(whole * self._together)
        return replace(self, batches=rest, skipped=skipped)

    def __iter__(self) -> Iterator[Batch]:
        batches, skipped = iter(self.batches), self.skipped
        while group := list(itertools.islice(batches, self._together)):
            images = torch.cat([batch.inputs for batch in group])
            features = self.backbone(images).split([len(batch.target) for batch in group])
            for batch, inputs in list(zip(group, features, strict=True))[skipped:]:
                yield replace(batch, inputs=inputs)
            skipped = 0
