"""Backbones: images to features."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.errors import GCLError


def pooled(maps: Tensor) -> Tensor:
    """Mean over the positions of feature maps: (N, D, h, w) to (N, D)."""
    return F.adaptive_avg_pool2d(maps, 1).flatten(1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters ("option A" of He et al. 2016)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.extra_channels = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.extra_channels:  # option A: subsample, and fill the new channels with zeros
            before = self.extra_channels // 2
            # A window of one pixel: x[:, :, ::2, ::2], but its gradient stays channels last.
            x = F.avg_pool2d(x, 1, self.stride)
            x = F.pad(x, (0, 0, 0, 0, before, self.extra_channels - before))
        return F.relu(out + x)


class Backbone(nn.Module):
    """Images (N, in_channels, H, W) to features (N, `out_features`)."""

    out_features: int

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps before the mean over positions, for methods that attend to them."""
        raise GCLError(f"{type(self).__name__} has no feature maps; take another network")

    def pop_block(self) -> nn.Module:
        """Take the last block off and return it, for methods that double it."""
        raise GCLError(f"{type(self).__name__} has no block to take off; take another network")


class CifarResNet(Backbone):
    """ResNet-32 for 32x32 images: three stages of five blocks, with 16, 32 and 64 channels.

    Shape:
        images: (N, in_channels, H, W), H and W multiples of 4; returns (N, 64).
    """

    out_features = 64

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        channels = 16
        for stage, width in enumerate((16, 32, 64)):
            for number in range(5):
                blocks.append(BasicBlock(channels, width, 2 if stage and not number else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps before the mean over positions, (N, 64, H / 4, W / 4)."""
        return self.blocks(F.relu(self.bn(self.conv(images))))

    def forward(self, images: Tensor) -> Tensor:
        return pooled(self.maps(images))

    def pop_block(self) -> nn.Module:
        """Take the last block off, and return it."""
        *others, block = self.blocks
        self.blocks = nn.Sequential(*others)
        return block


class DigitsCNN(Backbone):
    """Three convolutions for 8x8 digits: small enough for seconds, deep enough to over-fit a tail.

    Shape:
        images: (N, in_channels, H, W); returns (N, 64).
    """

    out_features = 64

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, stride in ((16, 1), (32, 2), (64, 1)):
            layers.append(nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            in_channels = width
        self.layers = nn.Sequential(*layers)

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps before the mean over positions, (N, 64, H / 2, W / 2)."""
        return self.layers(images)

    def forward(self, images: Tensor) -> Tensor:
        return pooled(self.maps(images))

    def pop_block(self) -> nn.Module:
        """Take the last convolution, its normalisation and its ReLU off, and return them."""
        layers = list(self.layers)
        self.layers = nn.Sequential(*layers[:-3])
        return nn.Sequential(*layers[-3:])


class Features(Backbone):
    """Features that another network has computed: there is nothing to train before the classifier.

    Shape:
        images: (N, in_channels, 1, 1); returns (N, in_channels).
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.out_features = in_channels

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet32": CifarResNet,
    "digits_cnn": DigitsCNN,
    "features": Features,
}
