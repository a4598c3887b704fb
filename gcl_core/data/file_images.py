"""Images that stay in their files and are decoded, by threads, when a batch needs them."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gcl_core.data.augment import PadCrop, ResizedCrop
from gcl_core.data.image_files import decode, read_rgb
from gcl_core.data.images import histogram_statistics

BATCH = 64  # of images that are only looked at once


class FileImages:
    """Image files, each given as RGB of one size: its middle, or what `ResizedCrop` draws of it.

    What is drawn for an image is drawn before it is decoded, so that the pixels do not depend on
    the threads. The next batch is decoded while one is used.

    Args:
        files: paths.
        size: width and height of what is given.
        device: where batches go.
    """

    def __init__(
        self, files: Sequence[str], size: tuple[int, int], device: torch.device | None = None
    ) -> None:
        self.files, self.size = list(files), size
        self.device = device or torch.device("cpu")

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return 3, self.size[1], self.size[0]

    @property
    def pixels(self) -> Tensor:
        """All of them, decoded: (N, 3, H, W) uint8."""
        return torch.cat(list(self.batches(torch.arange(len(self)).split(BATCH))))

    def subset(self, indices: Tensor) -> "FileImages":
        """Some of the images, in the order of the indices."""
        chosen = torch.arange(len(self))[indices].tolist()
        return FileImages([self.files[i] for i in chosen], self.size, self.device)

    def picture(self, index: int) -> Image.Image:
        """An image as a person sees it, all of it.

        Raises:
            GCLError: the file cannot be read.
        """
        return read_rgb(self.files[index], self.size)

    def on(self, device: torch.device) -> "FileImages":
        """The same images, with batches on a device."""
        return FileImages(self.files, self.size, device)

    def batches(
        self,
        steps: Sequence[Tensor],
        augment: PadCrop | ResizedCrop | None = None,
        draws: Sequence[tuple[Tensor, ...]] = (),
    ) -> Iterator[Tensor]:
        """uint8 images (n, 3, H, W) of each step's indices, on the device; see `MemoryImages`.

        Raises:
            GCLError: a file cannot be read; it is named.
        """
        assert augment is None or isinstance(augment, ResizedCrop)  # `load_dataset` sees to it

        def pixels(task: tuple[int, list[float]]) -> np.ndarray:
            index, drawn = task
            if augment is None:
                return decode(self.files[index], self.size)
            whole = read_rgb(self.files[index], self.size)
            return np.asarray(augment.cut(whole, self.size, drawn))

        def tasks(step: int) -> list[tuple[int, list[float]]]:
            indices = steps[step].tolist()
            if augment is None:
                return [(index, []) for index in indices]
            return list(zip(indices, torch.stack(draws[step], 1).tolist(), strict=True))

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            ahead = pool.map(pixels, tasks(0)) if steps else iter(())
            for step in range(len(steps)):
                arrays = list(ahead)
                if step + 1 < len(steps):
                    ahead = pool.map(pixels, tasks(step + 1))
                batch = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
                yield batch.to(self.device, non_blocking=True)

    def joined(self, others: "Sequence[FileImages]") -> "FileImages":
        """These images and then those of others of the same size."""
        files = [*self.files, *(file for other in others for file in other.files)]
        return FileImages(files, self.size, self.device)

    @cached_property
    def contents(self) -> list[bytes]:
        """What tells each image from others of its size: a hash of its file."""
        with ThreadPoolExecutor() as pool:
            return list(pool.map(_content, self.files))

    def hash_into(self, digest: "hashlib._Hash") -> None:
        """Give a hash what tells these images from others: size, and content of every file."""
        digest.update(str(self.size).encode())
        for own in self.contents:
            digest.update(own)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, in units of the full pixel range."""
        return histogram_statistics(self.batches(torch.arange(len(self)).split(BATCH)))


def _content(file: str) -> bytes:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
