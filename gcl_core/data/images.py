"""Where pixels are: the only file that knows that they are in memory."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gcl_core.data.augment import Augment, PadCrop
from gcl_core.errors import GCLError


@dataclass(frozen=True)
class Pictures:
    """What images look like that are features in memory: encoded pictures, as PIL images by index.

    Attributes:
        encoded: (bytes,) uint8: M files, one after another.
        offsets: (M + 1,) where each begins and the last one ends.
        numbers: (N,) which of the files these pictures are.
    """

    encoded: np.ndarray
    offsets: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Image.Image:
        number = self.numbers[index]
        file = self.encoded[self.offsets[number] : self.offsets[number + 1]]
        return Image.open(io.BytesIO(file.tobytes())).convert("RGB")

    def subset(self, indices: Tensor) -> "Pictures":
        """Some of the pictures, in the order of the indices."""
        return replace(self, numbers=self.numbers[indices.numpy()])


class MemoryImages:
    """Images of one size as one tensor, copied once to each device that asks for them.

    Attributes:
        pixels: (N, channels, H, W) uint8; or features of the images in their place, (N, D, 1, 1)
            float32.
        pictures: what features look like, if that is known.
    """

    def __init__(self, pixels: Tensor, pictures: Pictures | None = None) -> None:
        self.pixels, self.pictures = pixels, pictures
        self._crops: tuple[PadCrop, Tensor] | None = None
        self._elsewhere: dict[torch.device, MemoryImages] = {}

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def subset(self, indices: Tensor) -> "MemoryImages":
        """Some of the images, in the order of the indices."""
        pictures = None if self.pictures is None else self.pictures.subset(indices)
        return MemoryImages(self.pixels[indices], pictures)

    def picture(self, index: int) -> Image.Image:
        """An image as a person sees it, grey or RGB.

        Raises:
            GCLError: it is features, and nothing is known of its looks.
        """
        if self.pictures is not None:
            return self.pictures[index]
        if self.pixels.dtype != torch.uint8:
            raise GCLError("these images are features, and there are no pictures of them")
        array = self.pixels[index].permute(1, 2, 0).cpu().numpy()
        return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)

    def on(self, device: torch.device) -> "MemoryImages":
        """The same images on a device."""
        if device == self.pixels.device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = MemoryImages(self.pixels.to(device))
        return self._elsewhere[device]

    def batches(
        self,
        steps: Sequence[Tensor],
        augment: Augment | None = None,
        draws: Sequence[tuple[Tensor, ...]] = (),
    ) -> Iterator[Tensor]:
        """Images (n, channels, H, W) of each step's indices, on their device.

        Args:
            steps: (n,) indices of each batch, on the same device.
            augment, draws: how the images are varied, and what was drawn for each step.
        """
        if augment is None:
            yield from (self.pixels[indices] for indices in steps)
            return
        assert isinstance(augment, PadCrop)  # `load_dataset` sees to it
        if self._crops is None or self._crops[0] != augment:
            self._crops = augment, augment.crops(self.pixels)
        for indices, drawn in zip(steps, draws, strict=True):
            yield augment.cut(self._crops[1], indices, drawn)

    def joined(self, others: "Sequence[MemoryImages]") -> "MemoryImages":
        """These images and then those of others of the same shape, without pictures."""
        return MemoryImages(torch.cat([self.pixels, *(other.pixels for other in others)]))

    @cached_property
    def contents(self) -> list[bytes]:
        """What tells each image from others, whatever data set it is in: a hash of its bytes."""
        return [hashlib.sha256(image.tobytes()).digest() for image in self.pixels.numpy()]

    def hash_into(self, digest: "hashlib._Hash") -> None:
        """Give a hash what tells these images from others."""
        hash_tensor(digest, self.pixels)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel of pixels, in units of their full range."""
        return histogram_statistics([self.pixels])


def histogram_statistics(
    batches: Iterable[Tensor],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images (n, channels, H, W).

    From a histogram of each channel: exact, and no float copy of the images.
    """
    counts = sum(
        torch.stack([torch.bincount(c.flatten(), minlength=256) for c in batch.unbind(1)])
        for batch in batches
    )
    assert isinstance(counts, Tensor)
    means, deviations = [], []
    levels = torch.arange(256, dtype=torch.float64) / 255
    for own in counts:
        share = own.double() / int(own.sum())
        means.append(mean := float((share * levels).sum()))
        deviations.append(float((share * (levels - mean) ** 2).sum()) ** 0.5)
    return tuple(means), tuple(deviations)


def hash_tensor(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Give a hash the shape and the bytes of a tensor."""
    digest.update(str(tuple(tensor.shape)).encode())
    digest.update(tensor.contiguous().numpy().data)
