"""A long-tailed data set: images in memory, class counts, true ratio and groups."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from gcl_core.data.imbalance import (
    class_counts_of,
    class_groups,
    long_tailed_counts,
    nested_subset,
)
from gcl_core.data.settings import DataSettings
from gcl_core.data.sources import Source, load_source
from gcl_core.errors import GCLError


@dataclass(frozen=True)
class LongTailedDataset:
    """What training and evaluation need of a data set.

    Attributes:
        name: what tables call it; never a path.
        class_names: C names.
        train_images: (N, channels, H, W) uint8; train_labels: (N,) int64.
        test_images, test_labels: the same, never subsampled.
        class_counts: C training counts.
        mean, std: (channels,) in units of the full pixel range.
        crop_padding, flip: the augmentation of training.
        fingerprint: hash of every image and label above; two equal ones are the same data.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool
    fingerprint: str

    @property
    def num_classes(self) -> int:
        return len(self.class_counts)

    @property
    def imbalance_ratio(self) -> float:
        """n_max / n_min of the counts as they are, after rounding down."""
        return max(self.class_counts) / min(self.class_counts)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Class indices of many, medium and few; the rule is `class_groups`'s."""
        return class_groups(self.class_counts)

    def __str__(self) -> str:
        counts = ", ".join(str(n) for n in self.class_counts[:20])
        more = ", ..." if self.num_classes > 20 else ""
        sizes = ", ".join(f"{group} {len(classes)}" for group, classes in self.groups.items())
        return (
            f"{self.name}: {len(self.train_labels)} training, {len(self.test_labels)} test images, "
            f"{self.num_classes} classes, imbalance ratio {self.imbalance_ratio:g}\n"
            f"  class counts [{counts}{more}]; classes by group: {sizes}"
        )


def load_dataset(settings: DataSettings) -> LongTailedDataset:
    """Read a source and make its training images long-tailed; the test images stay as they are.

    Raises:
        GCLError: the source is missing or unfit, or has too few images for the counts asked for.
    """
    source = load_source(
        settings.dataset, data_seed=settings.data_seed, image_size=settings.image_size
    )
    num_classes = len(source.class_names)
    available = class_counts_of(source.train_labels, num_classes).tolist()
    counts = _wanted_counts(settings, available)
    generator = torch.Generator().manual_seed(settings.data_seed)
    chosen = nested_subset(source.train_labels, counts, generator)
    images = source.train_images[chosen]
    labels = source.train_labels[chosen]
    padding, flip = settings.crop_padding, settings.flip
    mean, std = source.mean, source.std
    if mean is None or std is None:
        mean, std = _pixel_statistics(source)
    return LongTailedDataset(
        name=source.name,
        class_names=source.class_names,
        train_images=images,
        train_labels=labels,
        test_images=source.test_images,
        test_labels=source.test_labels,
        class_counts=tuple(counts),
        mean=mean,
        std=std,
        crop_padding=source.crop_padding if padding is None else padding,
        flip=source.flip if flip is None else flip,
        fingerprint=_fingerprint(images, labels, source.test_images, source.test_labels),
    )


def _wanted_counts(settings: DataSettings, available: list[int]) -> list[int]:
    if settings.class_counts is not None:
        if len(settings.class_counts) != len(available):
            raise GCLError(
                f"class_counts names {len(settings.class_counts)} classes, "
                f"{settings.dataset} has {len(available)}"
            )
        return list(settings.class_counts)
    if settings.imbalance_ratio is None:
        return available
    n_max = settings.n_max or min(available)
    try:
        return long_tailed_counts(n_max, len(available), settings.imbalance_ratio, settings.profile)
    except GCLError as error:
        # An image folder that is long-tailed as it is has few images in its smallest class.
        raise GCLError(f"{error}; imbalance_ratio none takes the images as they are") from None


def _pixel_statistics(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # Channel by channel and from a histogram: exact, and no float copy of the images.
    means, stds = [], []
    levels = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(source.train_images.shape[1]):
        pixels = source.train_images[:, channel].flatten()
        share = torch.bincount(pixels, minlength=256).double() / len(pixels)
        mean = float((share * levels).sum())
        means.append(round(mean, 4))
        stds.append(round(max(float((share * (levels - mean) ** 2).sum()) ** 0.5, 1e-4), 4))
    return tuple(means), tuple(stds)


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]
