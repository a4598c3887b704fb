"""How training images are varied: which draws an epoch needs, and what is cut with them."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor


@dataclass(frozen=True)
class PadCrop:
    """A random crop from the zero-padded image, and its mirror image half of the time (CIFAR).

    As torchvision's RandomCrop and RandomHorizontalFlip give it, one draw for each image.

    Attributes:
        padding: pixels of zeros on each side.
        flip: whether a mirrored image is as likely as the image (true for objects, not for digits).
    """

    padding: int
    flip: bool

    @property
    def identity(self) -> dict[str, Any]:
        """What a run's name says of it."""
        return {"crop_padding": self.padding, "flip": self.flip}

    def draw(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Shift down, shift right, and whether it is mirrored: (number,) each, for an epoch."""
        size, device = 2 * self.padding + 1, generator.device
        down, right = (
            torch.randint(size, (number,), device=device, generator=generator) for _ in range(2)
        )
        return down, right, torch.rand(number, device=device, generator=generator) < 0.5

    def crops(self, pixels: Tensor) -> Tensor:
        """Every crop of every image, (N, channels, shifts, shifts, H, W): a view of one copy."""
        height, width = pixels.shape[2:]
        padded = F.pad(pixels, (self.padding,) * 4)
        return padded.unfold(2, height, 1).unfold(3, width, 1)

    def cut(self, crops: Tensor, indices: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        """The drawn crops of some images, (n, channels, H, W)."""
        down, right, mirrored = draws
        images = crops[indices, :, down, right]
        return (
            torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images) if self.flip else images
        )


@dataclass(frozen=True)
class ResizedCrop:
    """A random part of a photograph, resized and mirrored half of the time; other light and colour.

    As torchvision's RandomResizedCrop, RandomHorizontalFlip and ColorJitter give it, but a part
    that would reach over the edge is cut at the edge, where torchvision draws again.

    Attributes:
        area: least share of the image that the part has.
        flip: whether a mirrored image is as likely as the image.
        jitter: brightness, contrast and saturation are multiplied by 1 - jitter to 1 + jitter.
        aspect: the part is up to so many times as wide as high, or as high as wide.
    """

    area: float = 0.08  # this, jitter and aspect: the published code of decoupling for ImageNet-LT
    flip: bool = True
    jitter: float = 0.4
    aspect: float = 4 / 3

    @property
    def identity(self) -> dict[str, Any]:
        """What a run's name says of it."""
        return {"resized_crop": dataclasses.asdict(self)}

    def draw(self, number: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Eight numbers in [0, 1) for each image of an epoch: (number,) each."""
        device = generator.device
        drawn = torch.rand(8, number, device=device, generator=generator)
        return tuple(drawn.unbind())

    def cut(self, image: Image.Image, size: tuple[int, int], draws: list[float]) -> Image.Image:
        """The drawn part of an RGB image, in its new (width, height) and colours."""
        area, shape, across, down, mirrored, *light = draws
        share = self.area + area * (1 - self.area)
        ratio = math.exp((2 * shape - 1) * math.log(self.aspect))
        pixels = share * image.width * image.height
        width, height = min(image.width, math.sqrt(pixels * ratio)), math.sqrt(pixels / ratio)
        height = min(image.height, height)
        left, top = across * (image.width - width), down * (image.height - height)
        box = (left, top, left + width, top + height)
        part = image.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=2.0)
        if self.flip and mirrored < 0.5:
            part = ImageOps.mirror(part)
        if self.jitter:
            for kind, drawn in zip(ENHANCERS, light, strict=True):
                part = kind(part).enhance(1 + self.jitter * (2 * drawn - 1))
        return part


ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
Augment = PadCrop | ResizedCrop
