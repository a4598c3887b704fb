"""How training images are varied: which draws an epoch needs, and what is cut with them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
