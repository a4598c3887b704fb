"""Where images come from: the embedded digits, torchvision's CIFAR, or any image folder.

Every source ends as the same thing, a `Source`: uint8 tensors in memory and what is known of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets

from gcl_core.data.image_files import cache_folder, decode_cached, list_images
from gcl_core.data.imbalance import nested_subset
from gcl_core.errors import GCLError

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
    cached = decode_cached(root, [*train_files, *test_files], image_size)
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


Reader = Callable[[str, int, int | None], Source]
DATASETS: dict[str, Reader] = {
    "digits": _digits,
    "cifar10": _cifar(datasets.CIFAR10, "cifar10"),
    "cifar100": _cifar(datasets.CIFAR100, "cifar100"),
    "folder": _folder,
}
