"""A data set: images and labels of its parts, class counts, groups, and what it is known by."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from gcl_core.data.augment import Augment
from gcl_core.data.file_images import FileImages
from gcl_core.data.images import MemoryImages, hash_tensor
from gcl_core.data.imbalance import class_counts_of, class_groups


@dataclass(frozen=True)
class Split:
    """The training, validation or test part: N images, and their labels (N,) int64 in [0, C)."""

    images: MemoryImages | FileImages
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "Split":
        """Some of the images with their labels, in the order of the indices."""
        return Split(self.images.subset(indices), self.labels[indices])


@dataclass(frozen=True)
class Described:
    """What a run's folder says of its images without having them.

    Attributes:
        identity: what decides the run's result, and so its name: a hash of all images and labels,
            counts, augmentation and normalisation.
        about: what a reader wants to know besides.
    """

    identity: dict[str, Any]
    about: dict[str, Any]


@dataclass(frozen=True)
class LongTailedDataset:
    """What training and evaluation need of a data set.

    Attributes:
        name: what tables call it; never a path.
        class_names: C names, in label order.
        train, test: images and labels; the test part is never subsampled.
        mean, std: (channels,) for normalisation, in units of the full pixel range; both are ()
            where the images are features, which stay as they are.
        augment: how training images are varied.
        validation: a part that choices may be made on, if there is one.
        about: what else a run's folder shall say of the data.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    validation: Split | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> list[Split]:
        """Training, test and, if there is one, validation part."""
        return [part for part in (self.train, self.test, self.validation) if part is not None]

    @property
    def has_pixels(self) -> bool:
        """Whether its images are pixels; else they are features."""
        return bool(self.mean)

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Training images of each class."""
        return tuple(class_counts_of(self.train.labels, self.num_classes).tolist())

    @property
    def refused(self) -> set[str]:
        """Image files that could not be read when they were needed, so far."""
        images = self.train.images
        return images.reading.refused if isinstance(images, FileImages) else set()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def imbalance_ratio(self) -> float:
        """n_max / n_min of the counts as they are, after rounding down."""
        return max(self.class_counts) / min(self.class_counts)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Class indices of many, medium and few; the rule is `class_groups`'s."""
        return class_groups(self.class_counts)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every training and test image and label; two equal ones are the same data."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            part.images.hash_into(digest)
            hash_tensor(digest, part.labels)
        return digest.hexdigest()[:16]

    @cached_property
    def copies(self) -> list[int]:
        """Indices of the test images that are training images too, by their content."""
        known = set(self.train.images.contents)
        return [index for index, own in enumerate(self.test.images.contents) if own in known]

    @cached_property
    def described(self) -> Described:
        """What a run's folder says of these data."""
        identity = {
            "fingerprint": self.fingerprint,
            "class_counts": self.class_counts,
            **self.augment.identity,
            "mean": self.mean,
            "std": self.std,
        }
        return Described(identity, {"dataset": self.name, **self.about})

    def __str__(self) -> str:
        counts = ", ".join(str(n) for n in self.class_counts[:20])
        more = ", ..." if self.num_classes > 20 else ""
        sizes = ", ".join(f"{group} {len(classes)}" for group, classes in self.groups.items())
        return (
            f"{self.name}: {len(self.train)} training, {len(self.test)} test images, "
            f"{self.num_classes} classes, imbalance ratio {self.imbalance_ratio:g}\n"
            f"  class counts [{counts}{more}]; classes by group: {sizes}"
        )
