"""Image files in class folders: which there are, and their pixels, decoded once and cached."""

import hashlib
import json
import logging
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from math import prod
from pathlib import Path
from stat import S_ISREG
from statistics import median_low
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from gcl_core.bars import Bar
from gcl_core.errors import GCLError, shown, some
from gcl_core.files import at_home, atomic_save, load_tensors

log = logging.getLogger(__name__)

# Pillow knows these formats but has no pixels of them, or needs Ghostscript for them.
NO_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# What systems leave in folders, besides names that begin with a dot.
LEFT_BEHIND = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}
# What people call the parts of a data set; here they are train, test and val.
PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
# Pictures of telephones and cameras that Pillow does not read.
CAMERA = (".heic", ".heif", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2")
SMALLEST_SIDE = 5  # of less, ResNet-32 leaves one pixel, too little for batch normalisation
SAMPLED = 5  # of each folder, to tell how large images are
MIXED_SIDE = 32  # what ResNet-32 is made for, and a CPU can train


def list_images(split: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """(file, label) pairs and class names of one part, in the order of torchvision's ImageFolder.

    Images are the regular files of all formats that Pillow decodes, each once; one warning says
    what is left out. Class names are in Unicode's composed form, control characters escaped, so
    that they are the same from every system; folders that differ in form only are one class.

    Raises:
        GCLError: no such folder, no class folder, parts instead of classes, or a folder or link
            that cannot be read.
    """
    if not split.is_dir():
        raise GCLError(
            f"no such folder: {split}; an image folder has train/ and test/, or neither "
            "(python -m gcl_core split SOURCE OUT makes both from one)"
        )
    classes: dict[str, list[str]] = {}
    for place, files in _walk(split):
        folder = os.path.relpath(place, split).split(os.sep)[0]
        classes.setdefault(shown(unicodedata.normalize("NFC", folder)), []).extend(files)
    if not classes:
        raise GCLError(f"{split} holds no class folder: it needs {split}/CLASS/IMAGE")
    class_names = tuple(sorted(classes))
    parts = [name for name in class_names if name.lower() in PARTS]
    if len(parts) > 1:
        raise GCLError(
            f"{split} has {', '.join(parts)}: parts of a data set, not classes; "
            f"--dataset folder:{split} takes them if they are called train, test and val"
        )
    return [(path, j) for j, name in enumerate(class_names) for path in classes[name]], class_names


def images_inside(folder: Path) -> list[str]:
    """All images in a folder and the folders in it, by place; one warning says what is left out.

    Raises:
        GCLError: there are none, or a folder or link cannot be read.
    """
    found = [path for _, files in _walk(folder, loose_too=True) for path in files]
    if not found:
        raise GCLError(f"{folder} holds no image")
    return found


def _to_convert(left_out: list[str]) -> str:
    """What to do with pictures of cameras among the files, or nothing."""
    pictures = [os.path.basename(path) for path in left_out if path.lower().endswith(CAMERA)]
    named = f"; HEIC and raw pictures need converting to JPEG: {len(pictures)}, such as "
    return named + shown(min(pictures)) if pictures else ""


def _walk(split: Path, *, loose_too: bool = False) -> list[tuple[str, list[str]]]:
    """Every folder inside of a split and its images; links are followed, nothing is taken twice.

    Files in the split itself are left out, unless they are asked for too.
    """
    left_out: list[str] = []
    suffixes = Image.registered_extensions()
    formats = {"MPO", *Image.OPEN} - NO_PIXELS  # MPO is opened as JPEG
    # A link upwards would lead to other classes, or to the test images.
    above = map(os.stat, (split.resolve(), *split.resolve().parents))
    seen = {(status.st_dev, status.st_ino) for status in above}

    def refuse(error: OSError) -> NoReturn:
        raise GCLError(f"cannot read {error.filename}: {error.strerror}") from error

    def taken(place: str, names: list[str], *, folders: bool) -> Iterator[str]:
        for name in sorted(names):
            path = os.path.join(place, name)
            fits = folders or suffixes.get(os.path.splitext(name)[1].lower()) in formats
            if fits and not name.startswith(".") and name.lower() not in LEFT_BEHIND:
                try:
                    status = os.stat(path)
                except OSError as error:  # a link to nothing
                    refuse(error)
                identity = status.st_dev, status.st_ino
                # Of other kinds is a pipe, say: reading it would wait without end.
                if identity not in seen and (folders or S_ISREG(status.st_mode)):
                    seen.add(identity)
                    yield name if folders else path
                    continue
            left_out.append(path)

    found = []
    for place, names, files in os.walk(split, onerror=refuse, followlinks=True):
        names[:] = taken(place, names, folders=True)
        found.append((place, files))
    places = sorted(found)
    if not loose_too:
        (_, loose), *places = places
        left_out += [os.path.join(split, name) for name in loose]
    images = [(place, list(taken(place, files, folders=False))) for place, files in places]
    if left_out:
        named = {os.path.basename(path): os.path.relpath(path, split) for path in left_out}
        message = "%s: left out: %d that are no images, or are there already, such as %s%s"
        said = some(sorted(named.values())), _to_convert(left_out)
        log.warning(message, shown(str(split)), len(left_out), *said)
    return images


def decode_cached(root: Path, files: list[tuple[str, int]], image_size: int | None) -> Tensor:
    """All images as one (N, 3, H, W) uint8 tensor, from the cache if no file has changed since.

    They are turned by their EXIF orientation; a transparent ground becomes white. One of another
    size than asked for is resized until it fills that size, and its middle is taken. Without an
    `image_size`, images of several sizes get the median of their shorter sides, down to a multiple
    of 8 and to `MIXED_SIDE`; equal ones stay as they are.

    Raises:
        GCLError: an image that cannot be read, or with a side shorter than `SMALLEST_SIDE`.
    """

    def decode_all() -> dict[str, Any]:
        log.info("decoding %d images of %s, once", len(files), shown(str(root)))
        return _decode_all([name for name, _ in files], image_size)

    stamp = _stamp(root, files, ["images-4", image_size])
    decoded = cached(stamp, "decoded images", decode_all)
    if decoded["resized"]:
        log.warning(decoded["resized"])
    return decoded["images"]


@cache
def median_side(root: Path) -> int:
    """Median of the shorter sides of some training images of a folder; 0 if there are none."""
    sides = []
    train = root / "train"
    for place, folders, names in os.walk(train if train.is_dir() else root):
        folders.sort()
        for name in sorted(names)[:SAMPLED]:
            with suppress(GCLError):
                sides.append(min(_size(os.path.join(place, name))))
    return median_low(sides) if sides else 0


def unreadable(root: Path, files: list[tuple[str, int]]) -> set[str]:
    """The files among these that cannot be read as images; looked at once, and named."""
    names = [name for name, _ in files]

    def problem(name: str) -> str:
        try:
            read_rgb(name, (SMALLEST_SIDE, SMALLEST_SIDE))
        except GCLError as error:
            return str(error)
        return ""

    def look() -> dict[str, Any]:
        log.info("reading %d images of %s, once", len(names), shown(str(root)))
        with ThreadPoolExecutor() as pool:  # places, not names: the root may be given otherwise
            looked = Bar("reading", len(names), "image").over(pool.map(problem, names))
            return {"places": [place for place, what in enumerate(looked) if what]}

    kept = cached(_stamp(root, files, ["unreadable-3"]), "places of unreadable images", look)
    bad = [names[place] for place in kept["places"]]
    for name in bad:
        log.warning("left out: %s", problem(name))
    return set(bad)


def _stamp(root: Path, files: list[tuple[str, int]], what: list[Any]) -> str:
    """A name for what is made of these files that is another one when one of them has changed."""
    stamp = hashlib.sha256(json.dumps(what).encode())
    stamp.update(os.fsencode(root.resolve()))
    for name, _ in files:
        status = os.stat(name)
        # The time of the last change too: that of the content can be set, and often is.
        times = f"{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
        inside = name.removeprefix(str(root)).lstrip(os.sep)  # `relpath` takes longer than `stat`
        stamp.update(os.fsencode(inside) + b"\0" + times.encode())
    return stamp.hexdigest()[:32]


def _decode_all(names: list[str], image_size: int | None) -> dict[str, Any]:
    """The tensor `images`, and in `resized` what is to be said of their sizes."""
    resized = ""
    with ThreadPoolExecutor() as pool, pillow_warnings():
        if image_size:
            width = height = image_size
        else:  # by their headers: decoded, large images may not fit the memory
            sizes = list(Bar("sizes", len(names), "image").over(pool.map(_size, names)))
            width, height = sizes[0]
            if len(set(sizes)) > 1:
                width = height = min(MIXED_SIDE, max(8, median_low(map(min, sizes)) // 8 * 8))
                low, high = (f"{w}x{h}" for w, h in (min(sizes, key=prod), max(sizes, key=prod)))
                resized = (
                    f"images differ in size (from {low} to {high}): resized to {width}x{height}; "
                    "choose with --image-size"
                )
        pixels = np.empty((len(names), 3, height, width), dtype=np.uint8)
        arrays = pool.map(partial(decode, size=(width, height)), names)
        for i, array in enumerate(Bar("decoding", len(names), "image").over(arrays)):
            pixels[i] = array.transpose(2, 0, 1)
    return {"images": torch.from_numpy(pixels), "resized": resized}


@cache
def _formats(suffix: str) -> list[str]:
    """What to try on a file, the format of its suffix first: trying them all takes longest."""
    own = Image.registered_extensions().get(suffix.lower())
    return sorted(Image.OPEN.keys() - NO_PIXELS, key=lambda kind: (kind != own, kind))


def _size(name: str) -> tuple[int, int]:
    with _opened(name) as image:
        return image.size if _orientation(image) < 5 else image.size[::-1]


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Pillow's warnings name no file; only that of too many pixels is about the pixels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(name: str | Image.Image, size: tuple[int, int], share: float = 1.0) -> np.ndarray:
    """(H, W, 3) uint8 of an image in a size (width, height): see `middle`.

    Raises:
        GCLError: it cannot be read, or has a side shorter than `SMALLEST_SIDE`.
    """
    return middle(read_rgb(name, size), size, share)


def middle(image: Image.Image, size: tuple[int, int], share: float = 1.0) -> np.ndarray:
    """(H, W, 3) uint8 of an RGB image in a size (width, height): filled, and its middle taken.

    Args:
        share: of the shorter side that the middle has.
    """
    if image.size != size or share < 1:
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR, bleed=(1 - share) / 2)
    return np.asarray(image)


def existing_folder(path: str, option: str) -> Path:
    """The folder that an option names.

    Raises:
        GCLError: it is not there.
    """
    root = at_home(path)
    if not path or not root.is_dir():
        raise GCLError(f"no such folder: {path!r}; write {option}")
    return root


def read_rgb(name: str | Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image as it is shown: turned by its EXIF orientation, on white where it is transparent.

    A JPEG of many times the size that is needed is decoded to at least twice that size: faster.
    An image that is open already stays as it is.

    Raises:
        GCLError: it cannot be read, or has a side shorter than `SMALLEST_SIDE`.
    """
    with _opened(name) as image:
        image.draft(None, (2 * max(size), 2 * max(size)))
        if image.mode.startswith(("I", "F")):  # Pillow would cut everything above 255
            raise ValueError(f"{image.mode} has more than 8 bits a channel; convert it to 8")
        image.load()  # EXIF of a PNG may come after the pixels
        with suppress(Exception):  # damaged EXIF: viewers show the pixels as they are stored
            ImageOps.exif_transpose(image, in_place=True)
        if image.has_transparency_data:
            # On white, as a page shows it: the colour under a transparent ground is arbitrary.
            clear = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
        return image.convert("RGB")


@contextmanager
def _opened(name: str | Image.Image) -> Iterator[Image.Image]:
    try:
        with name.copy() if isinstance(name, Image.Image) else _file(name) as image:
            if min(image.size) < SMALLEST_SIDE:
                least = f"images must be at least {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels"
                raise ValueError(f"it is {image.width}x{image.height}; {least}")
            yield image
    except Exception as error:  # of almost any kind, for the bytes may be anything
        hint = "; convert it to JPEG" if str(name).lower().endswith(CAMERA) else ""
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            hint = "; make it smaller"
        raise GCLError(f"cannot read image {name}: {error}{hint}") from error


def _file(name: str) -> Image.Image:
    if not S_ISREG(os.stat(name).st_mode):  # a pipe, say: opening it would wait without end
        raise ValueError("it is no regular file")
    return Image.open(name, formats=_formats(os.path.splitext(name)[1]))


def _orientation(image: Image.Image) -> int:
    try:  # the base class: that of PNG decodes the whole image first
        exif = Image.Image.getexif(image)
        # Pillow turns TIFF itself.
        return 1 if image.format == "TIFF" else int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF counts as none
        return 1


def cached(name: str, what: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` has made of tensors and plain values: made once, and then read from the cache.

    Where the cache cannot be read or written, a warning that says what it is of.
    """
    file = cache_folder() / f"{name}.pt"
    if os.path.exists(file):
        try:
            return load_tensors(file)
        except GCLError as error:
            log.warning("%s; %s are made again", error, what)
    made = make()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_save(file, made)
    except OSError as error:
        log.warning("%s are not cached: %s; GCL_CACHE names another folder", what, error)
    return made


def cache_folder() -> Path:
    """Folder of downloads and decoded images: $GCL_CACHE, or gcl in the user's cache folder."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no home: a place where writing fails, and the writer says so
        base = os.devnull
    return Path(os.environ.get("GCL_CACHE") or Path(base) / "gcl")
