"""Image folders that are written: a data set as files, and a test part held out of others."""

import shutil
from pathlib import Path

import torch
from PIL import Image

from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.image_files import list_images
from gcl_core.errors import GCLError


def write_image_folder(dataset: LongTailedDataset, folder: Path) -> Path:
    """Write a data set as PNG files, `folder/train/CLASS/00000.png` and `folder/test/...`.

    What `folder:PATH` then reads are the same pixels, grey ones as RGB, with the classes in the
    order of their names.

    Returns:
        The folder.

    Raises:
        GCLError: the folder has files in it.
        OSError: it cannot be written.
    """
    _refuse_files(folder)
    _write(dataset.train, dataset.class_names, folder / "train")
    _write(dataset.test, dataset.class_names, folder / "test")
    return folder


def split_image_folder(source: Path, out: Path, *, share: float = 0.2, seed: int = 0) -> Path:
    """Copy class folders into `out/train` and `out/test`, a random share of each class to the test.

    For images that have no test part yet, and to hold validation images out of a training part
    (`split_image_folder(PATH / "train", ...)`). Of n images of a class max(1, round(share n)) go to
    the test, and one at least stays for training. Sub-folders of a class are kept.

    Args:
        source: a folder that holds `CLASS/IMAGE`.
        out: where the copies go.
        share: of each class for the test, in (0, 1).
        seed: which images these are.

    Returns:
        `out`.

    Raises:
        GCLError: a share out of range, a class with fewer than two images, files in `out`, or
            an `out` inside of `source`.
        OSError: `out` cannot be written.
    """
    if not 0 < share < 1:
        raise GCLError(f"share must be in (0, 1), got {share}")
    files, class_names = list_images(source)
    if out.resolve().is_relative_to(source.resolve()):
        raise GCLError(f"{out} is inside of {source}, where it would pass for a class")
    _refuse_files(out)
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[str, list[Path]]] = []
    for label, name in enumerate(class_names):
        own = [Path(file) for file, of in files if of == label]
        if len(own) < 2:
            raise GCLError(
                f"class {name!r} has one image in {source / name}; 2 are needed, one of them to "
                "test with"
            )
        shuffled = [own[i] for i in torch.randperm(len(own), generator=generator).tolist()]
        held = min(max(1, round(share * len(own))), len(own) - 1)
        parts += [("test", shuffled[:held]), ("train", shuffled[held:])]
    for part, members in parts:
        for file in members:
            target = out / part / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)
    return out


def _write(part: Split, class_names: tuple[str, ...], split: Path) -> None:
    for name in class_names:
        (split / name).mkdir(parents=True)
    for number, (image, label) in enumerate(
        zip(part.images.pixels, part.labels.tolist(), strict=True)
    ):
        array = image.permute(1, 2, 0).numpy()
        picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        picture.save(split / class_names[label] / f"{number:05d}.png")


def _refuse_files(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GCLError(f"{folder} has files in it; name another folder")
