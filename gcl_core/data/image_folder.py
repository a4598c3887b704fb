"""Image folders that are written: a data set as files, and a test part held out of others."""

import shutil
from pathlib import Path

import torch
from PIL import Image

from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.image_files import list_images
from gcl_core.errors import GCLError
from gcl_core.files import atomic_folder


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
) -> Path:
    """Copy class folders into `out/train` and `out/test`, a random share of each class to the test.

    For images that have no test part yet, and to hold validation images out of a training part
    (`split_image_folder(PATH / "train", ...)`). Of n images of a class max(1, round(share n)) go to
    the test, as many by `validation` to `out/val`, and one at least stays for training. Sub-folders
    of a class are kept. `out` is there when all is copied, and not before.

    Args:
        source: a folder that holds `CLASS/IMAGE`; `~` is the user's home, as in `out`.
        out: where the copies go.
        share: of each class for the test, in (0, 1).
        validation: of each class for `out/val`, in [0, 1 - share); 0: there is none.
        seed: which images these are.

    Returns:
        `out`.

    Raises:
        GCLError: a share out of range, a class with fewer images than parts, files in `out`, or
            an `out` inside of `source`.
        OSError: `out` cannot be written.
    """
    if not 0 < share < 1:
        raise GCLError(f"share must be in (0, 1), got {share}")
    if not 0 <= validation < 1 - share:
        raise GCLError(f"validation must be in [0, {1 - share:g}), 1 - share; got {validation}")
    source, out = Path(source).expanduser(), Path(out).expanduser()
    files, class_names = list_images(source)
    if out.resolve().is_relative_to(source.resolve()):
        raise GCLError(f"{out} is inside of {source}, where it would pass for a class")
    shares = {"test": share, **({"val": validation} if validation else {})}
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[str, list[Path]]] = []
    for label, name in enumerate(class_names):
        own = [Path(file) for file, of in files if of == label]
        if len(own) <= len(shares):
            raise GCLError(
                f"class '{name}' has too few images in {source}: {len(own)}; "
                f"{len(shares) + 1} are needed, one for each of {', '.join(shares)} and train"
            )
        rest = [own[i] for i in torch.randperm(len(own), generator=generator).tolist()]
        for ahead, (part, its) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
            held = min(max(1, round(its * len(own))), len(rest) - ahead)
            parts.append((part, rest[:held]))
            rest = rest[held:]
        parts.append(("train", rest))
    with atomic_folder(out) as place:
        for part, members in parts:
            for file in members:
                target = place / part / file.relative_to(source)
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
