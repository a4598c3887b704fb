"""From settings to a long-tailed data set."""

import contextlib
import logging
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from math import prod

import torch

from gcl_core.config import Config, value
from gcl_core.data.augment import Augment, PadCrop, ResizedCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.file_images import TOGETHER, FileImages
from gcl_core.data.imbalance import PROFILES, long_tailed_counts
from gcl_core.data.sources import DatasetKind, kind_of
from gcl_core.data.workers import Processes, Threads, too_little_shared_memory
from gcl_core.errors import GCLError, shown
from gcl_core.hardware import memory_budget, usable_cores

log = logging.getLogger(__name__)
CLASS_ORDERS = ("index", "reversed")


class DataSettings(Config):
    """Which images, and how many of each class."""

    dataset: str = value(
        "digits",
        "digits, clothes, cifar10, cifar100 (or cifar10:PATH), folder:PATH, imagenet_lt:PATH, "
        "places_lt:PATH, inat2018:PATH, or list:TRAIN.txt,TEST.txt[,VAL.txt]",
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
        None, "resize every image of a folder to this size", low=5, high=1024
    )
    augment: str = value(
        "pad_crop",
        "how training images are varied; pad_crop: as CIFAR; resized_crop: parts of photographs, "
        "whose files are read whenever they are needed",
        allowed=("pad_crop", "resized_crop"),
    )
    crop_area: float = value(
        0.08,
        "of resized_crop: least share of an image; 0.08: decoupling's code for ImageNet-LT",
        above=0,
        high=1,
    )
    jitter: float = value(
        0.4,
        "of resized_crop: brightness, contrast and saturation vary by this share; 0.4: the same",
        low=0,
        below=1,
    )
    test_crop: float = value(
        1.0,
        "of images read from files: share of the shorter side that is tested on; 0.875: 224 of 256 "
        "pixels, as published code for photographs",
        above=0,
        high=1,
        late=True,
    )
    mean: tuple[float, ...] | None = value(
        None, "of each channel, for normalisation; none: the network's or as measured", low=0
    )
    std: tuple[float, ...] | None = value(
        None, "of each channel, for normalisation; none: the network's or as measured", above=0
    )
    skip_unreadable: int = value(
        0,
        "so many image files may be unreadable; those of a folder are left out, for one of a list "
        "the next of its class stands in",
        low=0,
    )
    crop_padding: int | None = value(
        None,
        "pixels around the random crop; none: 4 of 32 (published code), 1 of 8",
        low=0,
        high=64,
    )
    flip: bool | None = value(None, "mirror at random; none: yes, but not digits")
    image_root: str | None = value(
        None, "folder that the paths of lists are relative to; none: that of the lists", late=True
    )
    strict: bool = value(
        False,
        "whether lists that are not as published are refused; otherwise a warning names what "
        "differs",
        late=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        as_it_is = self.class_counts or self.imbalance_ratio is None
        if self.n_max is not None and as_it_is:
            raise GCLError(
                "n_max goes with an imbalance_ratio: class_counts, and imbalance_ratio none, say "
                "how many images there are"
            )
        order = self.class_order
        seed = order.isascii() and order.isdecimal() and len(order) < 11 and int(order) < 2**32
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
    if not kind.listed and (settings.image_root or settings.strict):
        raise GCLError(
            f"image_root and strict are for lists of images, not for {settings.dataset!r}"
        )
    whole = kind.read(path, settings)
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
    if settings.test_crop < 1:
        whole = _with_test_crop(whole, settings.test_crop)
    dataset = replace(
        whole,
        train=whole.train.subset(kind.subset(whole.train.labels, counts, settings.data_seed)),
        augment=_augment(settings, whole.augment),
        mean=_each_channel("mean", settings.mean, whole.mean),
        std=_each_channel("std", settings.std, whole.std),
    )
    if kind.in_files and not kind.listed:
        _warn_of_copies(dataset)
    return dataset


def _warn_of_copies(dataset: LongTailedDataset) -> None:
    test, copies = dataset.test, dataset.copies
    if copies:
        first = f"one of class {dataset.class_names[int(test.labels[copies[0]])]!r}"
        if isinstance(test.images, FileImages):
            first = shown(test.images.path(copies[0]))
        message = "%s: %d of %d test images are in training too, so accuracies are too high: %s"
        log.warning(message, dataset.name, len(copies), len(test), first)


@contextlib.contextmanager
def decoded_by(
    dataset: LongTailedDataset, workers: int | None, device: torch.device, processes: int = 1
) -> Iterator[None]:
    """Inside the block, images in files are decoded by worker processes or by threads.

    Images that fit `gcl_core.hardware.memory_budget` when they are decoded stay in memory, unless
    processes are asked for. The log says what was chosen.

    Args:
        workers: processes; 0: threads. None: with a GPU one for each core that this process may
            use, as far as the memory that processes share allows, and else threads.
        device: where batches go.
        processes: of the run, among which the cores are shared.

    Raises:
        GCLError: GCL_MEMORY_GB is no number.
    """
    parts = (dataset.train, dataset.test, dataset.validation)
    images = [each.images for each in parts if each and isinstance(each.images, FileImages)]
    if not images:
        yield
        return
    size, budget = sum(own.decoded_bytes() for own in images), memory_budget()
    keep = not workers and size <= budget
    if workers is None:
        # A daemon, as a worker of Dask is, may not start processes.
        on_gpu = device.type == "cuda" and not multiprocessing.current_process().daemon
        workers = usable_cores() // processes if on_gpu and not keep else 0
        problem = too_little_shared_memory(workers, TOGETHER * prod(images[0].shape))
        if workers and problem:
            log.warning("threads decode: %s", problem)
            workers = 0
    decoder = Processes(workers, device.type == "cuda") if workers else Threads(keep)
    who = f"{workers} worker process{'es' * (workers > 1)}" if workers else "threads"
    how = f"read from their files by {who}"
    log.info(
        "images: about %s decoded, %s (GCL_MEMORY_GB: %s may be kept)",
        *(_megabytes(size), "kept in memory once read" if keep else how, _megabytes(budget)),
    )
    before = [own.reading.decoder for own in images]
    for own in images:
        own.reading.decoder = decoder
    try:
        yield
    finally:
        for own, former in zip(images, before, strict=True):
            own.reading.decoder = former


def _megabytes(size: int) -> str:
    return f"{-(-size // 2**20):,} MB"


def _with_test_crop(dataset: LongTailedDataset, share: float) -> LongTailedDataset:
    """The same images, in files, of which the middle has a share of the shorter side."""

    def cropped(part: Split) -> Split:
        if not isinstance(part.images, FileImages):
            raise GCLError("test_crop is for photographs in files: give augment resized_crop")
        return Split(replace(part.images, share=share), part.labels)

    validation = dataset.validation and cropped(dataset.validation)
    train, test = cropped(dataset.train), cropped(dataset.test)
    return replace(dataset, train=train, test=test, validation=validation)


def _augment(settings: DataSettings, own: Augment) -> Augment:
    """How the settings have training images varied, where they say it."""
    flip = own.flip if settings.flip is None else settings.flip
    if isinstance(own, ResizedCrop):
        return ResizedCrop(settings.crop_area, flip, settings.jitter)
    if settings.augment == "resized_crop":
        raise GCLError("augment 'resized_crop' is for photographs in files: --dataset folder:PATH")
    padding = own.padding if settings.crop_padding is None else settings.crop_padding
    return PadCrop(padding, flip)


def _each_channel(
    name: str, given: tuple[float, ...] | None, own: tuple[float, ...]
) -> tuple[float, ...]:
    if given is not None and len(given) != len(own):
        raise GCLError(f"{name} has {len(given)} numbers, the images have {len(own)} channels")
    return own if given is None else given


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
