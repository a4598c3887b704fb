"""From settings to a long-tailed data set."""

from dataclasses import dataclass, replace

import torch

from gcl_core.config import Config, value
from gcl_core.data.augment import PadCrop
from gcl_core.data.dataset import LongTailedDataset
from gcl_core.data.imbalance import PROFILES, long_tailed_counts
from gcl_core.data.sources import DatasetKind, kind_of
from gcl_core.errors import GCLError

CLASS_ORDERS = ("index", "reversed")


@dataclass(frozen=True)
class DataSettings(Config):
    """Which images, and how many of each class."""

    dataset: str = value(
        "digits", "digits, clothes, cifar10, cifar100 (or cifar10:PATH), or folder:PATH"
    )
    imbalance_ratio: float | None = value(
        None, "n_max / n_min; none: leave the data as they are", low=1
    )
    profile: str = value("exp", "shape of the tail; exp: the paper, Sec. 4.1", allowed=PROFILES)
    n_max: int | None = value(
        None,
        "images of the head class, with an imbalance_ratio; none: 5,000 and 500 of CIFAR-10 and "
        "-100, of others as many as every class has",
        low=1,
    )
    class_counts: tuple[int, ...] | None = value(
        None, "explicit counts, such as 50,20,5; instead of ratio and profile", low=1
    )
    class_order: str = value(
        "index",
        "which classes are the tail; index: the last ones (the paper); reversed: the first; a "
        "number: in an order drawn by that seed",
    )
    data_seed: int = value(
        0, "seed of the subset (and of the split of digits and clothes)", low=0, high=2**32 - 1
    )
    image_size: int | None = value(
        None, "resize every image of a folder to this size", low=5, high=512
    )
    crop_padding: int | None = value(
        None,
        "pixels around the random crop; none: 4 of 32 (published code), 1 of 8",
        low=0,
        high=64,
    )
    flip: bool | None = value(None, "mirror at random; none: yes, but not digits")

    def __post_init__(self) -> None:
        super().__post_init__()
        as_it_is = self.class_counts or self.imbalance_ratio is None
        if self.n_max is not None and as_it_is:
            raise GCLError(
                "n_max goes with an imbalance_ratio: class_counts, and imbalance_ratio none, say "
                "how many images there are"
            )
        order = self.class_order
        seed = order.isascii() and order.isdecimal() and int(order) < 2**32
        if order not in CLASS_ORDERS and not seed:
            raise GCLError(f"class_order must be index, reversed or a seed, got {order!r}")
        if order != "index" and as_it_is:
            raise GCLError(
                "class_order goes with an imbalance_ratio: class_counts, and imbalance_ratio none, "
                "say which class has how many"
            )


def load_dataset(settings: DataSettings) -> LongTailedDataset:
    """Read a data set and make its training part long-tailed; the test part stays as it is.

    Raises:
        GCLError: the data are missing or unfit, or have too few images for the counts asked for.
    """
    kind, path = kind_of(settings.dataset)
    whole = kind.read(path, settings.data_seed, settings.image_size)
    counts = _wanted_counts(settings, kind, whole)
    short = [j for j, n in enumerate(counts) if n > whole.class_counts[j]]
    if short:
        j = short[0]
        more = f" (and {len(short) - 1} more classes have too few)" if short[1:] else ""
        raise GCLError(
            f"class {whole.class_names[j]!r} has {whole.class_counts[j]} training images, "
            f"{counts[j]} are asked for{more}"
        )
    if not whole.has_pixels and (settings.crop_padding is not None or settings.flip is not None):
        raise GCLError(
            f"{settings.dataset!r} has features, not pixels: leave crop_padding and flip out"
        )
    padding = whole.augment.padding if settings.crop_padding is None else settings.crop_padding
    flip = whole.augment.flip if settings.flip is None else settings.flip
    return replace(
        whole,
        train=whole.train.subset(kind.subset(whole.train.labels, counts, settings.data_seed)),
        augment=PadCrop(padding, flip),
    )


def _wanted_counts(
    settings: DataSettings, kind: DatasetKind, whole: LongTailedDataset
) -> list[int]:
    """Training images of each class that the settings ask for."""
    available = whole.class_counts
    if settings.class_counts is not None:
        if len(settings.class_counts) != len(available):
            raise GCLError(
                f"class_counts names {len(settings.class_counts)} classes, "
                f"{settings.dataset} has {len(available)}"
            )
        return list(settings.class_counts)
    if settings.imbalance_ratio is None:
        return list(available)
    n_max = settings.n_max or kind.n_max or min(available)
    try:
        counts = long_tailed_counts(
            n_max, len(available), settings.imbalance_ratio, settings.profile
        )
    except GCLError as error:
        # An image folder that is long-tailed as it is has few images in its smallest class.
        raise GCLError(f"{error}; imbalance_ratio none takes the images as they are") from None
    by_class = dict(zip(_from_head_to_tail(settings.class_order, len(counts)), counts, strict=True))
    return [by_class[j] for j in range(len(counts))]


def _from_head_to_tail(class_order: str, classes: int) -> list[int]:
    if class_order == "index":
        return list(range(classes))
    if class_order == "reversed":
        return list(reversed(range(classes)))
    generator = torch.Generator().manual_seed(int(class_order))
    return torch.randperm(classes, generator=generator).tolist()
