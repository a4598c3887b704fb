"""Image folders that are written: a data set as files, and a test part held out of others."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from gcl_core.bars import Bar
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.grouped import parts_of_groups, read_groups
from gcl_core.data.image_files import list_images
from gcl_core.errors import GCLError
from gcl_core.files import at_home, atomic_folder


def write_image_folder(dataset: LongTailedDataset, folder: Path) -> Path:
    """Write a data set as PNG files, `folder/train/CLASS/00000.png` and `folder/test/...`.

    What `folder:PATH` then reads are the same pixels, grey ones as RGB, with the classes in the
    order of their names.

    Returns:
        The folder.

    Raises:
        GCLError: the folder has files in it, or the data set has no pixels.
        OSError: it cannot be written.
    """
    if not dataset.has_pixels:
        raise GCLError(f"{dataset.name} has features, not pixels: no image file can hold them")
    with atomic_folder(folder) as place:
        _write(dataset.train, dataset.class_names, place / "train")
        _write(dataset.test, dataset.class_names, place / "test")
    return folder


def split_image_folder(
    source: str | Path,
    out: str | Path,
    *,
    share: float = 0.2,
    validation: float = 0.0,
    seed: int = 0,
    groups: str | Path | None = None,
) -> Path:
    """Copy class folders into `out/train` and `out/test`, a random share of each class to the test.

    For images that have no test part yet, and to hold validation images out of a training part
    (`split_image_folder(PATH / "train", ...)`). Of n images of a class max(1, round(share n)) go to
    the test, as many by `validation` to `out/val`, and one at least stays for training. With
    `groups` all images of a group go to one part, and the shares are as near as that allows
    (`parts_of_groups`). Sub-folders of a class are kept. `out` is there when all is copied, and not
    before.

    Args:
        source: a folder that holds `CLASS/IMAGE`; `~` is the user's home, as in `out`.
        out: where the copies go.
        share: of each class for the test, in (0, 1).
        validation: of each class for `out/val`, in [0, 1 - share); 0: there is none.
        seed: which images these are.
        groups: a CSV file with the columns `image` (a path inside of `source`, or a file's name)
            and `group`, such as who took the picture.

    Returns:
        `out`.

    Raises:
        GCLError: a share out of range, a class with fewer images (or groups) than parts, an image
            without a group, files in `out`, or an `out` inside of `source`.
        OSError: `out` cannot be written.
    """
    if not 0 < share < 1:
        raise GCLError(f"share must be in (0, 1), got {share}")
    if not 0 <= validation < 1 - share:
        raise GCLError(f"validation must be in [0, {1 - share:g}), 1 - share; got {validation}")
    source, out = at_home(source), at_home(out)
    files, class_names = list_images(source)
    if out.resolve().is_relative_to(source.resolve()):
        raise GCLError(f"{out} is inside of {source}, where it would pass for a class")
    shares = {"test": share, **({"val": validation} if validation else {})}
    images, labels = [Path(file) for file, _ in files], [label for _, label in files]
    for label, name in enumerate(class_names):
        own = labels.count(label)
        if own <= len(shares):
            raise GCLError(
                f"class '{name}' has too few images in {source}: {own}; "
                f"{len(shares) + 1} are needed, one for each of {', '.join(shares)} and train"
            )
    parts = [*shares, "train"]
    if groups is None:
        part_of = drawn_parts(labels, list(shares.values()), seed)
    else:
        group_of = read_groups(at_home(groups), images, source)
        rest = 1 - sum(shares.values())
        part_of = parts_of_groups(labels, group_of, [*shares.values(), rest], seed)
        for number, part in enumerate(parts):
            there = {label for label, its in zip(labels, part_of, strict=True) if its == number}
            for label in sorted(set(labels) - there):
                its = {group for group, j in zip(group_of, labels, strict=True) if j == label}
                raise GCLError(
                    f"class '{class_names[label]}' cannot be split: its images are of {len(its)} "
                    f"group(s), and {part} gets none; {len(parts)} are needed, or another seed"
                )
    with atomic_folder(out) as place:
        copied = Bar("copying", len(images), "image")
        for file, number in copied.over(zip(images, part_of, strict=True)):
            target = place / parts[number] / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
    return out


def drawn_parts(labels: Sequence[int], shares: Sequence[float], seed: int) -> list[int]:
    """The part of each image, drawn class by class; what no share takes is the last part.

    Of n images of a class, part i gets max(1, round(shares[i] n)); the last part gets one at least,
    and of a class with too few images for all parts the first ones come next.
    """
    generator = torch.Generator().manual_seed(seed)
    part_of = [len(shares)] * len(labels)
    for label in range(max(labels, default=-1) + 1):
        own = [i for i, its in enumerate(labels) if its == label]
        rest = [own[i] for i in torch.randperm(len(own), generator=generator).tolist()]
        for part, share in enumerate(shares):
            later = max(1, min(len(shares) - part, len(rest) - 1))
            held = min(max(1, round(share * len(own))), len(rest) - later)
            for i in rest[:held]:
                part_of[i] = part
            rest = rest[held:]
    return part_of


def _write(part: Split, class_names: tuple[str, ...], split: Path) -> None:
    for name in class_names:
        (split / name).mkdir(parents=True)
    for number, label in enumerate(part.labels.tolist()):
        file = split / class_names[label] / f"{number:05d}.png"
        part.images.picture(number).save(file)
