"""The classifiers that a re-balancing makes of a trained one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.networks.network import CosineClassifier


class ScaledHead(nn.Module):
    """Outputs of a classifier times one learnable scale for each class.

    Args:
        head: the classifier.
        lr_factor: factor of its learning rate; 0 freezes it.

    Shape:
        features: (N, D); returns (N, C).
    """

    def __init__(self, head: nn.Module, lr_factor: float = 0.0) -> None:
        super().__init__()
        self.head = head.requires_grad_(lr_factor > 0)
        self.lr_factors = {"head.": lr_factor}
        self.scales = nn.Parameter(torch.ones(len(head.weight)))  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        return self.scales * self.head(features)


class NormalisedHead(nn.Module):
    """A linear map by w_j / |w_j|^tau; for a cosine classifier, divided by |f| as well.

    Shape:
        features: (N, D); returns (N, C).
    """

    def __init__(self, head: nn.Module, tau: float) -> None:
        super().__init__()
        weight: Tensor = head.weight.detach().clone()  # type: ignore[operator]
        self.weight = nn.Parameter(weight / weight.norm(dim=1, keepdim=True) ** tau, False)
        self.unit_features = isinstance(head, CosineClassifier)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            if self.unit_features:
                features = F.normalize(features)
            return F.linear(features, self.weight)


class NearestMeanHead(nn.Module):
    """-|g(f) - m_j|^2 with g(f) = f, f / |f| or (f - centre) / |f - centre|.

    Shape:
        features: (N, D); returns (N, C).
    """

    def __init__(self, means: Tensor, centre: Tensor, unit: bool) -> None:
        super().__init__()
        self.means, self.centre = nn.Parameter(means, False), nn.Parameter(centre, False)
        self.unit = unit

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            placed = features.float() - self.centre
            if self.unit:
                placed = F.normalize(placed)
            return -(torch.cdist(placed, self.means) ** 2)


class ShiftedHead(nn.Module):
    """scale * outputs - shift of a frozen classifier.

    Shape:
        features: (N, D); shift: (C,); returns (N, C).
    """

    def __init__(self, head: nn.Module, shift: Tensor, scale: float) -> None:
        super().__init__()
        self.head, self.scale = head.requires_grad_(False), scale
        self.shift = nn.Parameter(shift, False)

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * self.head(features) - self.shift


class CalibratedHead(nn.Module):
    """z'_j = (1 + sigma(f) a_j) z_j + sigma(f) b_j, sigma(f) = sigmoid(v . f + c); z is frozen.

    a starts at 1, b at 0, v at 0.1: a third-party copy of DisAlign's published layer; c at 0.

    Shape:
        features: (N, D); returns (N, C).
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head.requires_grad_(False)
        classes, features = head.weight.shape  # type: ignore[misc]
        self.scale, self.offset = (
            nn.Parameter(torch.ones(classes)),
            nn.Parameter(torch.zeros(classes)),
        )
        self.confidence = nn.Linear(features, 1)
        nn.init.constant_(self.confidence.weight, 0.1)
        nn.init.zeros_(self.confidence.bias)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            confidence = self.confidence(features).sigmoid()
            outputs = self.head(features)
            return (1 + confidence * self.scale) * outputs + confidence * self.offset
