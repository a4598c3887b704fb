"""The data sets by name: embedded digits and clothes, CIFAR, folders and lists of images.

Each reader gives all the images there are, and what a run takes of that kind of data unless it is
told otherwise stands beside it in `DATASETS`.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import torch
from torch import Tensor

from gcl_core.data.augment import Augment, PadCrop, ResizedCrop
from gcl_core.data.clothes import TEST_SHARE, VALIDATION_SHARE, read_clothes
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.file_images import FileImages
from gcl_core.data.image_files import (
    PARTS,
    cache_folder,
    decode_cached,
    existing_folder,
    list_images,
    median_side,
    unreadable,
)
from gcl_core.data.image_folder import drawn_parts
from gcl_core.data.images import MemoryImages
from gcl_core.data.imbalance import class_counts_of, nested_subset
from gcl_core.data.lists import (
    PHOTOGRAPH_SIDE,
    read_imagenet_lt,
    read_inat2018,
    read_lists,
    read_places_lt,
)
from gcl_core.errors import GCLError, MachineError, close_to, shown, some
from gcl_core.files import at_home

if TYPE_CHECKING:  # torchvision and scikit-learn are slow to import, and many commands need neither
    from torchvision.datasets import CIFAR10

    from gcl_core.data.load import DataSettings

log = logging.getLogger(__name__)
Listed = list[tuple[str, int]]  # files with their labels

# Per-channel mean and standard deviation in [0, 1]: the published code, for both CIFAR sets.
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
CIFAR_TEST_IMAGES = 10_000
PHOTOGRAPH_LEAST = 48  # images with shorter sides are no photographs
DIGITS_TEST_IMAGES = 50  # of each class, of the 174 to 183 there are

# Classes and, as measured over the original test images, mean and deviation of each channel.
CIFAR10 = (
    "airplane automobile bird cat deer dog frog horse ship truck",
    (0.4942142800, 0.4851313890, 0.4504090928),
    (0.2466525151, 0.2428922635, 0.2615923780),
)
CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch "
    "crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo "
    "keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse "
    "mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy "
    "porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television "
    "tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm",
    (0.5087964128, 0.4873930132, 0.4419422112),
    (0.2682515742, 0.2573637364, 0.2770957708),
)


def read_digits(path: str, wanted: "DataSettings") -> LongTailedDataset:
    """scikit-learn's 1,797 handwritten 8x8 digits; 50 of each class are the test set, by seed."""
    from sklearn.datasets import load_digits

    if path or wanted.image_size:
        raise GCLError("dataset 'digits' is embedded: it takes no path and no image_size")
    digits = load_digits()
    pixels = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    every = Split(MemoryImages(pixels), torch.from_numpy(digits.target).long())
    generator = torch.Generator().manual_seed(wanted.data_seed)
    test = nested_subset(every.labels, [DIGITS_TEST_IMAGES] * 10, generator)
    train = torch.ones(len(every), dtype=torch.bool)
    train[test] = False
    names, part = tuple(str(digit) for digit in range(10)), every.subset(train)
    ends = _measured(part)
    return LongTailedDataset("digits", names, part, every.subset(test), *ends, PadCrop(1, False))


def read_cifar10(path: str, wanted: "DataSettings") -> LongTailedDataset:
    """CIFAR-10: downloaded by torchvision and checked, or at PATH: its files, or class folders."""
    return _cifar("cifar10", CIFAR10, path, wanted)


def read_cifar100(path: str, wanted: "DataSettings") -> LongTailedDataset:
    """CIFAR-100: downloaded by torchvision and checked, or at PATH: its files, or class folders."""
    return _cifar("cifar100", CIFAR100, path, wanted)


def read_folder(path: str, wanted: "DataSettings") -> LongTailedDataset:
    """Any images in PATH/train/CLASS, PATH/test/CLASS and, if it is there, PATH/val/CLASS; or in
    PATH/CLASS, of each class 20 % for the test and 10 % for validation, by seed.

    They are decoded once and cached, or read when they are needed (augment resized_crop).
    """  # noqa: D205
    root = existing_folder(path, "--dataset folder:PATH")
    in_files = wanted.augment == "resized_crop"
    side = wanted.image_size or (PHOTOGRAPH_SIDE if in_files else None)
    names, files = _listed(root, wanted.data_seed)
    parts, left_out = _read(root, files, side, in_files, wanted.skip_unreadable)
    tested = set(parts["test"].labels.tolist())
    if untested := [name for label, name in enumerate(names) if label not in tested]:
        message = "%s: %d of %d classes have no test images, and so no accuracy: %s"
        log.warning(message, shown(str(root)), len(untested), len(names), some(untested, 5))
    train = parts["train"]
    if in_files:
        augment: Augment = ResizedCrop()
    else:
        padding = max(1, min(train.images.shape[1:]) // 8)  # 4 pixels of 32, as for CIFAR
        augment = PadCrop(padding, True)
    known = (wanted.mean, wanted.std) if wanted.mean and wanted.std else _measured(train)
    named = f"folder:{shown(root.resolve().name)}"
    about = {"unreadable": left_out} if left_out else {}
    rest = (*known, augment, parts.get("val"), about)
    return LongTailedDataset(named, names, train, parts["test"], *rest)


def _listed(root: Path, seed: int) -> tuple[tuple[str, ...], dict[str, Listed]]:
    """Class names, and the images of train, test and, if there are any, val.

    Raises:
        GCLError: a class without training images, fewer than two classes, no test images.
    """
    parts = [part for part in ("train", "test", "val") if (root / part).is_dir()]
    other = [each.name for each in root.iterdir() if each.name.lower() in PARTS - set(parts)]
    if parts and other:
        message = "%s: left out: %s; the parts of a data set are called train, test and val"
        log.warning(message, shown(str(root)), some(sorted(other)))
    names, files = _in_parts(root, parts) if parts else _drawn(root, seed)
    place = root / "train" if parts else root
    trained = {label for _, label in files["train"]}
    for label, name in enumerate(names):
        if label not in trained:
            hint = "put some there, or remove the folder"
            raise GCLError(f"class '{name}' has no image in {place / name}: {hint}")
    if len(names) < 2:
        inside = place / names[0]
        deeper = any(each.is_dir() for each in inside.iterdir()) if inside.is_dir() else False
        hint = f"; if its classes are deeper: folder:{inside}" if deeper else ""
        raise GCLError(f"{place} has one class only ({names[0]}); 2 are needed{hint}")
    if not files["test"]:
        raise GCLError(f"{root} has no test image; a class needs 2 images to have one")
    return names, {part: own for part, own in files.items() if own}


def _in_parts(root: Path, parts: list[str]) -> tuple[tuple[str, ...], dict[str, Listed]]:
    files: dict[str, Listed] = {}
    names: tuple[str, ...] = ()
    for part in ("train", "test", *parts[2:]):  # the first two have to be there
        listed, own = list_images(root / part)
        names = names or own
        if odd := {own[label] for _, label in listed} - set(names):
            others = some(sorted(odd), 5)
            raise GCLError(f"{root}: {part}/ has classes that train/ has not: {others}")
        files[part] = [(file, names.index(own[label])) for file, label in listed]
    return names, files


def _drawn(root: Path, seed: int) -> tuple[tuple[str, ...], dict[str, Listed]]:
    listed, names = list_images(root)
    part_of = drawn_parts([j for _, j in listed], (TEST_SHARE, VALIDATION_SHARE), seed)
    files = {
        part: [each for each, its in zip(listed, part_of, strict=True) if its == number]
        for number, part in enumerate(("test", "val", "train"))
    }
    log.info(
        "%s has no train/ and test/: of each class %.0f %% are for the test and %.0f %% for "
        "validation, drawn by data_seed %d (split SOURCE OUT can keep groups together)",
        *(shown(str(root)), 100 * TEST_SHARE, 100 * VALIDATION_SHARE, seed),
    )
    return names, files


def _read(
    root: Path,
    files: dict[str, Listed],
    image_size: int | None = None,
    in_files: bool = False,
    skip: int = 0,
) -> tuple[dict[str, Split], int]:
    """The parts by name, and how many unreadable images were left out of them."""
    bad = unreadable(root, [each for own in files.values() for each in own]) if skip else set()
    if len(bad) > skip:
        raise GCLError(
            f"{len(bad)} image files of {root} are unreadable, such as {min(bad)}; "
            f"skip_unreadable allows {skip}"
        )
    files = {part: [each for each in own if each[0] not in bad] for part, own in files.items()}
    images: dict[str, MemoryImages | FileImages]
    if in_files:
        assert image_size is not None
        size = image_size, image_size
        images = {part: FileImages([file for file, _ in own], size) for part, own in files.items()}
    else:
        every = [each for own in files.values() for each in own]
        try:
            pixels = decode_cached(root, every, image_size)
        except GCLError as error:
            raise GCLError(f"{error}; skip_unreadable N leaves out up to N such files") from error
        cut = pixels.split([len(own) for own in files.values()])
        images = {part: MemoryImages(own) for part, own in zip(files, cut, strict=True)}
    labels = {part: torch.tensor([label for _, label in own]) for part, own in files.items()}
    return {part: Split(images[part], labels[part]) for part in files}, len(bad)


def _measured(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of the training images, in four digits."""
    mean, std = train.images.statistics()
    return tuple(round(m, 4) for m in mean), tuple(round(max(s, 1e-4), 4) for s in std)


def _cifar(
    name: str, known: tuple[Any, ...], path: str, wanted: "DataSettings"
) -> LongTailedDataset:
    classes = tuple(known[0].split())
    if wanted.image_size:
        raise GCLError(f"dataset {name!r} has one size, 32: leave image_size out")
    root = (
        existing_folder(path, f"--dataset {name}:PATH") if path else cache_folder() / "torchvision"
    )
    if (root / "train").is_dir() or (root / "test").is_dir():
        names, files = _listed(root, wanted.data_seed)
        parts, _ = _read(root, files, skip=wanted.skip_unreadable)
        train, test = parts["train"], parts["test"]
        if names != classes:
            odd = some(sorted(set(names) ^ set(classes)), 5)
            raise GCLError(f"{root} has not the classes of {name}: {odd}")
    else:
        train, test = _torchvision(name, root, named=bool(path))
    if train.images.shape != (3, 32, 32):
        size = "x".join(map(str, train.images.shape[:0:-1]))
        raise GCLError(f"images of {name} are 32x32, those in {root} are {size}")
    if len(test) != CIFAR_TEST_IMAGES:
        raise GCLError(
            f"{name} has {CIFAR_TEST_IMAGES} test images, {root} has {len(test)}: half a copy?"
        )
    original = _is_original(test, known)
    return LongTailedDataset(
        name=name if original else f"{name} (other images)",
        class_names=classes,
        train=train.subset(by_content(train, wanted.data_seed)),
        test=test.subset(by_content(test, 0)),
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        augment=PadCrop(4, True),
        about={"original_images": original},
    )


def _is_original(test: Split, known: tuple[Any, ...]) -> bool:
    """Whether test images have the mean and deviation of the original ones, to nine digits.

    Images that were re-encoded with loss differ in the fifth.
    """
    found = torch.tensor(test.images.statistics(), dtype=torch.float64)
    return bool((found - torch.tensor(known[1:], dtype=torch.float64)).abs().max() < 1e-9)


def _torchvision(name: str, root: Path, named: bool) -> tuple[Split, Split]:
    """Training and test part from torchvision's files, which are downloaded if they are missing."""
    from torchvision import datasets

    dataset_class = getattr(datasets, name.upper())

    def both(download: bool) -> "list[CIFAR10]":
        return [dataset_class(root, train=t, download=download) for t in (True, False)]

    try:
        try:
            parts = both(download=False)
        except RuntimeError:  # not there, or not whole
            root.mkdir(parents=True, exist_ok=True)
            # torchvision writes in place, where another process would find half an archive.
            with filelock.FileLock(root / f".{name}.lock"):
                parts = both(download=True)
    except (OSError, RuntimeError) as error:
        raise MachineError(
            f"{name} is not in {root} and could not be downloaded ({error}); "
            f"put torchvision's archive there, or name its folder: --dataset {name}:PATH"
        ) from error
    train, test = (
        Split(
            MemoryImages(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()),
            torch.tensor(part.targets),
        )
        for part in parts
    )
    return train, test


def by_content(part: Split, seed: int) -> Tensor:
    """Indices by class and, inside a class, in a random order that only seed and pixels decide.

    The order is that of SHA-256(seed, pixels), so that the first n images of a class are the same
    ones from an archive and from files, and from any part of the data set that has them.
    """
    prefix = f"{seed}:".encode()
    keys = [
        hashlib.sha256(prefix + image.tobytes()).digest() for image in part.images.pixels.numpy()
    ]
    labels = part.labels.tolist()
    return torch.tensor(sorted(range(len(part)), key=lambda i: (labels[i], keys[i])))


def first_of_each(labels: Tensor, class_counts: list[int], data_seed: int) -> Tensor:
    """Indices of the first `class_counts[j]` images of class j, in class order: (n,)."""
    members = ((labels == j).nonzero().flatten() for j in range(len(class_counts)))
    return torch.cat([own[:n] for own, n in zip(members, class_counts, strict=True)])


def drawn_of_each(labels: Tensor, class_counts: list[int], data_seed: int) -> Tensor:
    """Indices of `class_counts[j]` images of class j, drawn by seed, in class order: (n,)."""
    return nested_subset(labels, class_counts, torch.Generator().manual_seed(data_seed))


def as_listed(labels: Tensor, class_counts: list[int], data_seed: int) -> Tensor:
    """`drawn_of_each`, or all indices as they are if all images are asked for: (n,)."""
    if class_counts == class_counts_of(labels).tolist():
        return torch.arange(len(labels))
    return drawn_of_each(labels, class_counts, data_seed)


@dataclass(frozen=True)
class DatasetKind:
    """A kind of data set, and what a run of it takes unless it is told otherwise.

    Attributes:
        read: (path, wanted) to all of its images; its docstring is what
            `python -m gcl_core datasets` says.
        subset: (labels, class_counts, data_seed) to the indices of a long-tailed training part.
        imbalance_ratio: None leaves the images as they are.
        n_max: images of the head class; None: as many as every class has.
        preset, network: names in `gcl_core.methods.registry` and `gcl_core.networks`.
        precision: None is the best of the hardware.
        seed_splits: whether the data seed draws the test part too.
        in_files: whether its images can be read from files whenever they are needed.
        pretrained: whether photographs get a pre-trained network unless another is asked for.
        listed: whether its images are named by list files.
        has_files: whether its path is one of files, with commas between them.
    """

    read: Callable[[str, "DataSettings"], LongTailedDataset]
    subset: Callable[[Tensor, list[int], int], Tensor]
    imbalance_ratio: float | None = 100.0
    n_max: int | None = None
    preset: str = "official"
    network: str = "resnet32"
    precision: str | None = None
    seed_splits: bool = False
    in_files: bool = False
    pretrained: bool = False
    listed: bool = False
    has_files: bool = False

    def photographs(self, path: str) -> bool:
        """Whether its images are large enough for networks that were trained on photographs."""
        return self.pretrained and median_side(at_home(path)) >= PHOTOGRAPH_LEAST


LISTED: dict[str, Any] = {
    "subset": as_listed,
    "imbalance_ratio": None,
    "network": "timm:resnet50",  # the paper, Sec. 4.2
    "in_files": True,
    "listed": True,
}
DATASETS = {
    "digits": DatasetKind(
        read_digits,
        drawn_of_each,
        preset="digits",
        network="digits_cnn",
        precision="float32",  # its network is too small to gain from bfloat16 (measured by `bench`)
        seed_splits=True,
    ),
    "clothes": DatasetKind(
        read_clothes,
        drawn_of_each,
        imbalance_ratio=None,
        preset="pretrained",
        network="features",
        precision="float32",  # a classifier alone has nothing to gain from bfloat16
        seed_splits=True,
    ),
    "cifar10": DatasetKind(read_cifar10, first_of_each, n_max=5000),
    "cifar100": DatasetKind(read_cifar100, first_of_each, n_max=500),
    "folder": DatasetKind(
        read_folder, drawn_of_each, imbalance_ratio=None, in_files=True, pretrained=True
    ),
    "imagenet_lt": DatasetKind(read_imagenet_lt, **LISTED),
    "places_lt": DatasetKind(read_places_lt, **LISTED),
    "inat2018": DatasetKind(read_inat2018, **LISTED),
    "list": DatasetKind(read_lists, **LISTED, has_files=True),
}


def kind_of(dataset: str) -> tuple[DatasetKind, str]:
    """The kind and the path of a data set's name, `KIND` or `KIND:PATH`.

    Raises:
        GCLError: an unknown kind.
    """
    kind, colon, path = dataset.partition(":")
    if kind in DATASETS:
        return DATASETS[kind], path
    close, hint = close_to(kind, DATASETS), ""
    if not colon and (os.sep in kind or kind.startswith("~") or (kind and Path(kind).is_dir())):
        close, hint = "", f"; a folder of images is folder:{kind}"
    raise GCLError(f"dataset {dataset!r} is unknown{close}; allowed: {', '.join(DATASETS)}{hint}")


def absolute(dataset: str, here: Path = Path()) -> str:
    """The name of a data set with an absolute path, which was relative to a folder.

    Raises:
        GCLError: an unknown kind.
    """
    kind, path = kind_of(dataset)
    files = path.split(",") if kind.has_files else [path]
    places = ",".join(str((here / at_home(each)).resolve()) for each in files if each)
    return ":".join(filter(None, (dataset.partition(":")[0], places)))
