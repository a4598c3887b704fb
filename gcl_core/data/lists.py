"""Data sets of list files: ImageNet-LT, Places-LT, iNaturalist 2018, and others of that form.

A list is a text file of lines `PATH LABEL`, as Liu et al. (2019, OLTR) and Kang et al. (2020)
publish them, or iNaturalist's JSON of annotations, images and categories. Labels number the classes
from 0. Paths are relative to the folder of the images.
"""

import itertools
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gcl_core.data.augment import ResizedCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.file_images import FileImages, Reading
from gcl_core.data.image_files import existing_folder
from gcl_core.data.imbalance import GROUPS, class_counts_of, class_groups
from gcl_core.errors import GCLError, shown
from gcl_core.files import at_home

if TYPE_CHECKING:
    from gcl_core.data.load import DataSettings

log = logging.getLogger(__name__)

PHOTOGRAPH_SIDE = 224  # what networks for photographs are made for
# Of ImageNet, in units of the full pixel range: torchvision's models; in the code of Kang et al.
# (2020) those of every data set but iNaturalist, for which see the documentation.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LABEL_DIGITS = 9
PARTS = ("train", "test", "val")


@dataclass(frozen=True)
class Published:
    """A long-tailed data set as it was published.

    Attributes:
        title: its name.
        lists: of each part the names its list may have.
        images: of each part, how many there are.
        classes: how many there are.
        groups: classes with more than 100 training images, with 20 to 100, and with fewer; None
            where no count is published.
    """

    title: str
    lists: Mapping[str, tuple[str, ...]]
    images: Mapping[str, int]
    classes: int
    groups: tuple[int, int, int] | None = None


PUBLISHED = {
    "imagenet_lt": Published(
        "ImageNet-LT",
        {part: (f"ImageNet_LT_{part}.txt",) for part in PARTS},
        {"train": 115_846, "test": 50_000, "val": 20_000},
        classes=1000,
        groups=(385, 479, 136),
    ),
    "places_lt": Published(
        "Places-LT",
        {part: (f"Places_LT_{part}.txt",) for part in PARTS},
        {"train": 62_500, "test": 36_500, "val": 7_300},
        classes=365,
        groups=(131, 163, 71),
    ),
    "inat2018": Published(  # tested on its validation images, as all do: nobody has its test labels
        "iNaturalist 2018",
        {
            "train": ("iNaturalist18_train.txt", "train2018.json"),
            "test": ("iNaturalist18_val.txt", "val2018.json"),
        },
        {"train": 437_513, "test": 24_426},
        classes=8142,
    ),
}


@dataclass(frozen=True)
class ImageList:
    """A list file.

    Attributes:
        file: where it is.
        paths: of N images.
        labels: (N,) int64.
        names: of classes by label, where the file has them.
    """

    file: Path
    paths: list[str]
    labels: Tensor
    names: Mapping[int, str]

    def require_labels_below(self, classes: int, reason: str) -> None:
        """Raise a GCLError if there are other labels than 0 to classes - 1."""
        beyond = (self.labels >= classes).nonzero().flatten().tolist()
        if beyond:
            label, path = int(self.labels[beyond[0]]), shown(self.paths[beyond[0]])
            raise GCLError(
                f"{self.file}: label {label} of {path} is out of range: {reason} has labels 0 to "
                f"{classes - 1}"
            )


def read_list(file: Path) -> ImageList:
    """A text file of lines `PATH LABEL`, or iNaturalist's annotations, if its name ends in .json.

    Raises:
        GCLError: the file is not there, or a line has no label; it names the line.
    """
    if not file.is_file():
        raise GCLError(f"no such list of images: {file}")
    try:
        text = file.read_text(encoding="utf-8-sig")  # editors of Windows begin with a mark
        paths, labels, names = (_of_json if file.suffix == ".json" else _of_lines)(file, text)
    except (OSError, UnicodeDecodeError) as error:
        hint = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise GCLError(f"cannot read the list {file}: {error}{hint}") from error
    if not paths:
        raise GCLError(f"{file} lists no image")
    return ImageList(file, paths, torch.tensor(labels), names)


Listed = tuple[list[str], list[int], dict[int, str]]


def _of_lines(file: Path, text: str) -> Listed:
    paths, labels = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) < 2 or not _is_label(words[1]):
            raise GCLError(
                f"{file}, line {number}: no label at the end of {shown(line.strip()[:80])!r}; a "
                "line is PATH LABEL, and labels number the classes from 0"
            )
        paths.append(words[0].lstrip())
        labels.append(int(words[1]))
    return paths, labels, {}


def _is_label(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= LABEL_DIGITS


def _of_json(file: Path, text: str) -> Listed:
    """Images in the order of their annotations; a category's id is its label."""
    try:
        content = json.loads(text)
        names = {int(each["id"]): str(each["name"]) for each in content["categories"]}
        path_of = {each["id"]: str(each["file_name"]) for each in content["images"]}
        labels = [int(each["category_id"]) for each in content["annotations"]]
        paths = [path_of[each["image_id"]] for each in content["annotations"]]
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise GCLError(
            f"{file} is no file of annotations, images and categories as iNaturalist's: {error!r}"
        ) from error
    for label in labels:
        if label not in names or not 0 <= label < 10**LABEL_DIGITS:
            raise GCLError(
                f"{file}: category {label} is out of range: it is none of its categories"
            )
    return paths, labels, names


def read_imagenet_lt(path: str, wanted: "DataSettings") -> LongTailedDataset:
    """ImageNet-LT: ImageNet_LT_train.txt, _test and, if it is there, _val in PATH; images there,
    or in --image-root.
    """  # noqa: D205
    return _published("imagenet_lt", path, wanted)


def read_places_lt(path: str, wanted: "DataSettings") -> LongTailedDataset:
    """Places-LT: Places_LT_train.txt, _test and, if it is there, _val in PATH; images there, or in
    --image-root.
    """  # noqa: D205
    return _published("places_lt", path, wanted)


def read_inat2018(path: str, wanted: "DataSettings") -> LongTailedDataset:
    """The lists of iNaturalist 2018, iNaturalist18_train.txt and _val.txt, or train2018.json and
    val2018.json, in PATH; images there, or in --image-root.
    """  # noqa: D205
    return _published("inat2018", path, wanted)


def read_lists(path: str, wanted: "DataSettings") -> LongTailedDataset:
    """Lists TRAIN,TEST or TRAIN,TEST,VAL of lines `PATH LABEL`; images beside TRAIN, or in
    --image-root.
    """  # noqa: D205
    files = [at_home(each.strip()) for each in path.split(",") if each]
    if len(files) not in (2, 3):
        raise GCLError(
            f"dataset list needs 2 or 3 files, got {len(files)}: write --dataset "
            "list:TRAIN.txt,TEST.txt or list:TRAIN.txt,TEST.txt,VAL.txt"
        )
    lists = dict(zip(PARTS, map(read_list, files), strict=False))
    return _dataset(f"list:{shown(files[0].stem)}", lists, files[0].parent, wanted)


def _published(kind: str, path: str, wanted: "DataSettings") -> LongTailedDataset:
    official, folder = PUBLISHED[kind], existing_folder(path, f"--dataset {kind}:PATH")
    lists = {}
    for part, names in official.lists.items():
        there = [folder / name for name in names if (folder / name).is_file()]
        if there:
            lists[part] = read_list(there[0])
            lists[part].require_labels_below(official.classes, official.title)
        elif part != "val":
            raise GCLError(
                f"{folder} has no {' or '.join(names)}; the published lists of {official.title} go "
                "there, and --image-root names the folder of the images, if that is another one"
            )
    differences = _differences(kind, lists)
    if differences:
        text = f"{folder} is not {official.title} as published: {'; '.join(differences)}"
        if wanted.strict:
            raise GCLError(f"{text} (strict does not allow it)")
        log.warning("%s", text)
    name = f"{kind} (other images)" if differences else kind
    return _dataset(name, lists, folder, wanted, {"official_counts": not differences})


def _differences(kind: str, lists: Mapping[str, ImageList]) -> list[str]:
    """What the lists have otherwise than those that were published."""
    official, found = PUBLISHED[kind], []
    for part, images in official.images.items():
        if part in lists and len(lists[part].paths) != images:
            found.append(f"{len(lists[part].paths)} {part} images, officially {images}")
    counts = class_counts_of(lists["train"].labels).tolist()
    if len(counts) != official.classes:
        return [*found, f"{len(counts)} classes, officially {official.classes}"]
    known = official_counts().get(kind, counts)
    odd = [j for j, (own, there) in enumerate(zip(counts, known, strict=True)) if own != there]
    if odd:
        j, more = odd[0], f" (and {len(odd) - 1} more classes differ)" if odd[1:] else ""
        found.append(f"class {j} has {counts[j]} training images, officially {known[j]}{more}")
        groups = tuple(len(own) for own in class_groups(counts).values())
        if official.groups and groups != official.groups:
            numbers = (" / ".join(map(str, each)) for each in (groups, official.groups))
            found.append("{}: {}, officially {}".format(" / ".join(GROUPS), *numbers))
    return found


def official_counts() -> dict[str, list[int]]:
    """Training images of each class by data set, in label order, where all are known."""
    file = Path(__file__).with_name("embedded") / "long_tails.json"
    counts: dict[str, list[int]] = json.loads(file.read_text())
    return counts


def _dataset(
    name: str,
    lists: Mapping[str, ImageList],
    folder: Path,
    wanted: "DataSettings",
    about: dict[str, Any] | None = None,
) -> LongTailedDataset:
    """What the lists name; no image is read but a few, by which others of the same names are told.

    Args:
        folder: where the images are unless the settings say otherwise.
    """
    train = lists["train"]
    there = train.labels.unique()  # counting up to an absurd label could need all memory
    beyond = (there != torch.arange(len(there))).nonzero().flatten().tolist()
    if beyond or len(there) < 2:
        missing = beyond[0] if beyond else 1
        raise GCLError(
            f"{train.file} has no image of class {missing}: labels number the classes from 0, and "
            "2 are needed"
        )
    for part, own in lists.items():
        own.require_labels_below(len(there), str(train.file))
        _warn_of_copies(own, train, part)
    root = folder
    if wanted.image_root:
        root = existing_folder(wanted.image_root, "--image-root PATH")
    side, reading = wanted.image_size or PHOTOGRAPH_SIDE, Reading(wanted.skip_unreadable)
    parts = {}
    for part, own in lists.items():
        images = FileImages(
            own.paths, (side, side), root=str(root), labels=own.labels, reading=reading
        )
        _require_images(images, own, root, wanted)
        parts[part] = Split(images, own.labels)
    return LongTailedDataset(
        name=name,
        class_names=class_names(train, len(there)),
        train=parts["train"],
        test=parts["test"],
        validation=parts.get("val"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augment=ResizedCrop(),
        about=about or {},
    )


def _warn_of_copies(own: ImageList, train: ImageList, part: str) -> None:
    """Say which lines of a part are copies: of others of the training list, or of each other.

    Raises:
        GCLError: an image has two labels.
    """
    label_of: dict[str, int] = {}
    for path, label in zip(own.paths, own.labels.tolist(), strict=True):
        if label_of.setdefault(path, label) != label:
            raise GCLError(
                f"{own.file}: {shown(path)} has two labels, {label_of[path]} and {label}"
            )
    if len(label_of) < len(own.paths):
        log.warning("%s lists %d images twice", own.file, len(own.paths) - len(label_of))
    if part != "train" and (copies := sorted(label_of.keys() & set(train.paths))):
        message = "%d of %d images of %s are in training too, so accuracies are too high: %s"
        log.warning(message, len(copies), len(own.paths), own.file, shown(copies[0]))


def class_names(train: ImageList, classes: int) -> tuple[str, ...]:
    """Of each class: its name in the file, or its images' folder below that of all images.

    The labels, if a class has images in several folders, or a folder images of several classes.
    """
    if train.names:
        names = [train.names[label] for label in range(classes)]
    else:
        folders: dict[int, set[str]] = {label: set() for label in range(classes)}
        for path, label in zip(train.paths, train.labels.tolist(), strict=True):
            folders[label].add(os.path.dirname(path))
        parts = [Path(folder).parts for own in folders.values() for folder in own]
        levels = zip(*parts, strict=False)
        shared = sum(1 for _ in itertools.takewhile(lambda own: len(set(own)) == 1, levels))
        above = max(0, min(shared, min(map(len, parts)) - 1))
        names = ["/".join(own[above:]) for own in parts if len(parts) == classes]
    if len(set(names)) < classes:
        names = [str(label) for label in range(classes)]
    return tuple(shown(name) for name in names)


def _require_images(images: FileImages, own: ImageList, root: Path, wanted: "DataSettings") -> None:
    """Look for a few of the images; all others are looked for when they are needed.

    Raises:
        GCLError: one is missing. If all are, it names a folder near by where they would be found.
    """
    absent = [index for index in images.sampled if not os.path.isfile(images.path(index))]
    if not absent or (wanted.skip_unreadable and len(absent) < len(images.sampled)):
        return
    path = own.paths[absent[0]]
    if len(absent) < len(images.sampled):
        raise GCLError(f"no such image: {root / path}, which {own.file} lists")
    raise GCLError(
        f"the images that {own.file} lists are not in {root}, such as {shown(path)}; "
        f"{_better_root(root, path)}"
    )


def _better_root(root: Path, path: str) -> str:
    """Where an image of the list would be found, in a parent or child of the root, or below it."""
    if (root / path.replace("\\", "/")).exists():
        return "write them with / instead of \\"
    root = root.resolve()
    near = [*list(root.parents)[:3], *sorted(p for p in root.iterdir() if p.is_dir())]
    for folder in near:
        if (folder / path).exists():
            return f"they are in {folder}: --image-root {folder}"
    parts = Path(path).parts
    for cut in range(1, len(parts)):
        inside = Path(*parts[cut:])
        for folder in (root, *near):
            if (folder / inside).exists():
                return f"{folder} has {inside}, without the folder {Path(*parts[:cut])} above it"
    return "--image-root names the folder that they are in"
