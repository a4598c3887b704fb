"""Image files in class folders: which there are, and their pixels, decoded once and cached."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gcl_core.errors import GCLError
from gcl_core.files import atomic_save, load_tensors

log = logging.getLogger(__name__)


def list_images(split: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """(file, label) pairs and class names of one split, by torchvision's own ImageFolder rule.

    Raises:
        GCLError: there is no such folder, it holds no class folder, or one of them has no image.
    """
    from torchvision import datasets

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


def decode_cached(root: Path, files: list[tuple[str, int]], image_size: int | None) -> Tensor:
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
