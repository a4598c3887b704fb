"""Networks: a backbone that gives features, and a linear or cosine classifier on top."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.errors import GCLError

HEADS = ("cosine", "linear")


class CosineClassifier(nn.Module):
    """Cosine between the feature and the anchor of each class.

    cos theta_j = f . w_j / (|f| |w_j|), computed in float32 also under autocast. There is no scale
    and no bias: the scale s belongs to the loss.

    Shape:
        features: (N, D); returns (N, C) in [-1, 1] up to rounding.

    Attributes:
        weight: (C, D) class anchors, initialised with unit length (as the published code does).
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.in_features, self.num_classes = in_features, num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the anchors anew: uniform in [-1, 1], then scaled to unit length."""
        with torch.no_grad():
            nn.init.uniform_(self.weight, -1, 1, generator=generator)
            self.weight.copy_(F.normalize(self.weight))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features, weight = features.float(), self.weight.float()
            return F.linear(F.normalize(features), F.normalize(weight))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, num_classes={self.num_classes}"


class Network(nn.Module):
    """A backbone and a classifier.

    Shape:
        images: (N, channels, H, W); `features` returns (N, D), `forward` (N, C).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def features(self, images: Tensor) -> Tensor:
        """Embedding of each image, (N, D)."""
        return self.backbone(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


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


class CifarResNet(nn.Module):
    """ResNet for 32x32 images: three stages of 16, 32 and 64 channels, `depth` = 6 n + 2.

    Shape:
        images: (N, in_channels, H, W), H and W multiples of 4; returns (N, 64).
    """

    out_features = 64

    def __init__(self, depth: int = 32, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise GCLError(f"depth must be 6 n + 2 (8, 14, 20, 32, ...), got {depth}")
        self.conv = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        channels = 16
        for stage, width in enumerate((16, 32, 64)):
            for i in range((depth - 2) // 6):
                blocks.append(BasicBlock(channels, width, 2 if stage and i == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(images)))
        return F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1)


class DigitsCNN(nn.Module):
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

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.layers(images), 1).flatten(1)


NETWORKS = {"resnet32": CifarResNet, "digits_cnn": DigitsCNN}


def build_network(
    name: str,
    num_classes: int,
    head: str = "cosine",
    in_channels: int = 3,
    generator: torch.Generator | None = None,
) -> Network:
    """A freshly initialised network, drawn from `generator` (None: torch's default generator).

    Raises:
        GCLError: an unknown name or head.
    """
    if name not in NETWORKS:
        raise GCLError(f"network {name!r} is unknown; allowed: {', '.join(NETWORKS)}")
    backbone = NETWORKS[name](in_channels=in_channels)
    network = Network(backbone, build_head(head, backbone.out_features, num_classes))
    initialise(network, generator)
    return network


def build_head(head: str, in_features: int, num_classes: int) -> nn.Module:
    """A `CosineClassifier` ("cosine") or a linear layer with bias ("linear").

    Raises:
        GCLError: another name.
    """
    if head not in HEADS:
        raise GCLError(f"head {head!r} is unknown; allowed: {', '.join(HEADS)}")
    kind = CosineClassifier if head == "cosine" else nn.Linear
    return kind(in_features, num_classes)


def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw every weight anew, as the published code does.

    Kaiming normal for convolutions and linear layers (He et al. 2015), unit anchors for a cosine
    classifier, identity for normalisation layers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, CosineClassifier):
            layer.reset_parameters(generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()


def resnet32(
    num_classes: int, head: str = "cosine", generator: torch.Generator | None = None
) -> Network:
    """ResNet-32 for 32x32 RGB images: the backbone of the CIFAR tables (0.46 M weights)."""
    return build_network("resnet32", num_classes, head, generator=generator)


def digits_cnn(
    num_classes: int, head: str = "cosine", generator: torch.Generator | None = None
) -> Network:
    """A small network for 8x8 grey images (24 k weights)."""
    return build_network("digits_cnn", num_classes, head, in_channels=1, generator=generator)
