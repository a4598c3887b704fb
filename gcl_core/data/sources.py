"""Where images come from: the embedded digits, torchvision's CIFAR, or any image folder.

Every source ends as the same thing, a `Source`: uint8 tensors in memory and what is known of them.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets

from gcl_core.data.imbalance import nested_subset
from gcl_core.errors import GCLError
from gcl_core.files import atomic_save, load_tensors

log = logging.getLogger(__name__)

# Per-channel mean and standard deviation in [0, 1]: the published code, for both CIFAR sets.
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
DIGITS_TEST_IMAGES = 50  # of each class, of the 174 to 183 there are


@dataclass(frozen=True)
class Source:
    """A data set before it is made long-tailed.

    Attributes:
        name: what tables call it; never a path.
        class_names: C names, in label order.
        train_images, test_images: (N, channels, H, W) uint8.
        train_labels, test_labels: (N,) int64 in [0, C).
        crop_padding: pixels of zero padding on each side for the random crop of training.
        flip: whether a mirrored image is as likely as the image (true for objects, not for digits).
        mean, std: (channels,) for normalisation, in units of the full pixel range; None: measured
            on the training images.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    crop_padding: int
    flip: bool
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def load_source(dataset: str, *, data_seed: int = 0, image_size: int | None = None) -> Source:
    """Read a data set by its name, `KIND` or `KIND:PATH`; `DATASETS` lists the kinds.

    Raises:
        GCLError: an unknown kind, or data that is missing or not fit for use; it says which file.
    """
    kind, _, path = dataset.partition(":")
    if kind not in DATASETS:
        raise GCLError(f"dataset {dataset!r} is unknown; allowed: {', '.join(DATASETS)}")
    return DATASETS[kind](path, data_seed, image_size)


def _digits(path: str, data_seed: int, image_size: int | None) -> Source:
    """scikit-learn's 1,797 handwritten 8x8 digits; 50 of each class are the test set, by seed."""
    if path or image_size:
        raise GCLError("dataset 'digits' is embedded: it takes no path and no image_size")
    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target).long()
    generator = torch.Generator().manual_seed(data_seed)
    test = nested_subset(labels, [DIGITS_TEST_IMAGES] * 10, generator)
    train = torch.ones(len(labels), dtype=torch.bool)
    train[test] = False
    return Source(
        name="digits",
        class_names=tuple(str(i) for i in range(10)),
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        crop_padding=1,
        flip=False,
    )


def _cifar(dataset_class: type[datasets.CIFAR10], name: str) -> "Reader":
    def read(path: str, data_seed: int, image_size: int | None) -> Source:
        if image_size:
            raise GCLError(f"dataset {name!r} has one size, 32: leave image_size out")
        root = Path(path) if path else cache_folder() / "torchvision"
        if path and not root.is_dir():
            raise GCLError(f"no such folder: {path!r}; write --dataset {name}:PATH")

        def both(download: bool) -> list[datasets.CIFAR10]:
            return [dataset_class(root, train=t, download=download) for t in (True, False)]

        try:
            try:
                splits = both(download=False)
            except RuntimeError:  # not there, or not whole
                root.mkdir(parents=True, exist_ok=True)
                # torchvision writes in place, where another process would find half an archive.
                with filelock.FileLock(root / f".{name}.lock"):
                    splits = both(download=True)
        except (OSError, RuntimeError) as error:
            raise GCLError(
                f"{name} is not in {root} and could not be downloaded ({error}); "
                f"put torchvision's archive there, or name its folder: --dataset {name}:PATH"
            ) from error
        images = [torch.from_numpy(split.data).permute(0, 3, 1, 2) for split in splits]
        labels = [torch.tensor(split.targets) for split in splits]
        return Source(
            name=name,
            class_names=tuple(splits[0].classes),
            train_images=images[0].contiguous(),
            train_labels=labels[0],
            test_images=images[1].contiguous(),
            test_labels=labels[1],
            crop_padding=4,
            flip=True,
            mean=CIFAR_MEAN,
            std=CIFAR_STD,
        )

    read.__doc__ = f"{name} through torchvision: downloaded and checked, or found at PATH."
    return read


def _folder(path: str, data_seed: int, image_size: int | None) -> Source:
    """Any images in PATH/train/CLASS and PATH/test/CLASS, decoded once and cached."""
    root = Path(path)
    if not path or not root.is_dir():
        raise GCLError(f"no such folder: {path!r}; write --dataset folder:PATH")
    train_files, class_names = list_images(root / "train")
    test_files, test_names = list_images(root / "test")
    if test_names != class_names:
        odd = sorted(set(class_names) ^ set(test_names))
        raise GCLError(f"{root}: train/ and test/ have different classes: {', '.join(odd[:5])}")
    if len(class_names) < 2:
        raise GCLError(f"{root / 'train'} has one class only ({class_names[0]}); 2 are needed")
    cached = _decode_cached(root, [*train_files, *test_files], image_size)
    labels = torch.tensor([label for _, label in (*train_files, *test_files)])
    cut = len(train_files)
    return Source(
        name=f"folder:{root.resolve().name}",
        class_names=class_names,
        train_images=cached[:cut],
        train_labels=labels[:cut],
        test_images=cached[cut:],
        test_labels=labels[cut:],
        crop_padding=max(1, min(cached.shape[2:]) // 8),  # 4 pixels of 32, as for CIFAR
        flip=True,
    )


def list_images(split: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """(file, label) pairs and class names of one split, by torchvision's own ImageFolder rule.

    Raises:
        GCLError: there is no such folder, it holds no class folder, or one of them has no image.
    """
    if not split.is_dir():
        raise GCLError(
            f"no such folder: {split}; an image folder has train/ and test/ "
            "(gcl_core.data.image_folder.split_image_folder makes both from one)"
        )
    try:
        listing = datasets.ImageFolder(str(split), allow_empty=True)
    except FileNotFoundError as error:
        raise GCLError(f"{split} holds no class folder: it needs {split}/CLASS/IMAGE") from error
    counts = np.bincount(listing.targets, minlength=len(listing.classes))
    empty = [name for name, n in zip(listing.classes, counts, strict=True) if n == 0]
    if empty:
        raise GCLError(f"class {empty[0]!r} has no image in {split / empty[0]}")
    return listing.samples, tuple(listing.classes)


def _decode_cached(root: Path, files: list[tuple[str, int]], image_size: int | None) -> Tensor:
    """All images as one (N, 3, H, W) uint8 tensor, from the cache if no file has changed since."""
    stamp = hashlib.sha256(json.dumps(["images-2", image_size]).encode())
    stamp.update(os.fsencode(root.resolve()))
    for name, _ in files:
        try:
            status = os.stat(name)
        except OSError as error:  # a link to nothing
            raise GCLError(f"cannot read image {name}: {error.strerror}") from error
        # The time of the last change too: that of the content can be set, and often is.
        times = f"{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
        stamp.update(os.fsencode(os.path.relpath(name, root)) + b"\0" + times.encode())
    cache = cache_folder() / f"{stamp.hexdigest()[:32]}.pt"
    if cache.exists():
        try:
            return load_tensors(cache)["images"]
        except GCLError as error:
            log.warning("%s; it is decoded again", error)
    log.info("decoding %d images of %s, once", len(files), root)
    with ThreadPoolExecutor() as pool:
        if not image_size:
            _refuse_sizes([name for name, _ in files], pool)
        arrays = list(pool.map(lambda f: _decode(f[0], image_size), files))
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        atomic_save(cache, {"images": images})
    except OSError as error:
        log.warning("decoded images are not cached: %s", error)
    return images


def _refuse_sizes(names: list[str], pool: ThreadPoolExecutor) -> None:
    """Refuse images of several sizes by their headers: decoded they may not fit the memory."""

    def size(name: str) -> tuple[int, int]:
        with _opened(name) as image:
            return image.size

    first = size(names[0])
    for name, own in zip(names, pool.map(size, names), strict=True):
        if own != first:
            raise GCLError(
                f"images differ in size: {names[0]} is {first[0]}x{first[1]}, "
                f"{name} is {own[0]}x{own[1]}; give one size to resize them all: --image-size 32"
            )


@contextmanager
def _opened(name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(name) as image:
            yield image
    except Exception as error:  # of almost any kind, for the bytes may be anything
        raise GCLError(f"cannot read image {name}: {error}") from error


def _decode(name: str, image_size: int | None) -> np.ndarray:
    with _opened(name) as image:
        if image.mode.startswith(("I", "F")):  # Pillow would cut everything above 255
            raise ValueError(f"{image.mode} has more than 8 bits a channel; convert it to 8")
        rgb = image.convert("RGB")
    if image_size:
        rgb = rgb.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def cache_folder() -> Path:
    """Folder of downloads and decoded images: $GCL_CACHE, or gcl in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GCL_CACHE") or Path(base) / "gcl")


Reader = Callable[[str, int, int | None], Source]
DATASETS: dict[str, Reader] = {
    "digits": _digits,
    "cifar10": _cifar(datasets.CIFAR10, "cifar10"),
    "cifar100": _cifar(datasets.CIFAR100, "cifar100"),
    "folder": _folder,
}
