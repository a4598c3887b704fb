"""What networks are made of: a backbone and a classifier, and how their weights are drawn."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classifier(nn.Module):
    """A classifier of features (N, D) without bias that draws its own weights (C, D)."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.in_features, self.num_classes = in_features, num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew, uniform in +-1 / sqrt(D)."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, num_classes={self.num_classes}"


class CosineClassifier(Classifier):
    """Cosine between the feature and the anchor of each class.

    cos theta_j = f . w_j / (|f| |w_j|), computed in float32 also under autocast. There is no scale
    and no bias: the scale s belongs to the loss.

    Shape:
        features: (N, D), or (..., D) of tokens; returns (N, C), or (..., C), in [-1, 1] up to
        rounding.

    Attributes:
        weight: (C, D) class anchors, initialised with unit length (as the published code does).
    """

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the anchors anew: uniform in [-1, 1], then scaled to unit length."""
        with torch.no_grad():
            nn.init.uniform_(self.weight, -1, 1, generator=generator)
            self.weight.copy_(F.normalize(self.weight))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features, weight = features.float(), self.weight.float()
            return F.linear(F.normalize(features, dim=-1), F.normalize(weight))


class Network(nn.Module):
    """A backbone and a classifier.

    Shape:
        images: (N, channels, H, W); `features` returns (N, D), `forward` (N, C).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.still: list[nn.Module] = []  # frozen parts, which stay in evaluation mode

    def train(self, mode: bool = True) -> "Network":
        """Training mode for all but frozen parts, whose statistics stay as they are."""
        super().train(mode)
        for part in self.still:
            part.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Embedding of each image, (N, D)."""
        return self.backbone(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw every weight anew, as the published code does.

    Kaiming normal for convolutions and linear layers (He et al. 2015), what a `Classifier` says for
    itself, identity for normalisation layers. Biases start at 0; there they stay as PyTorch draws
    them. A part that `drew_itself` keeps its weights.
    """
    if getattr(module, "drew_itself", False):
        return
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Classifier):
        module.reset_parameters(generator)
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()
    for part in module.children():
        initialise(part, generator)
