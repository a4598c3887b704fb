"""Re-balancing the classifier on a frozen backbone: what `rebalance` may be in the settings.

Each kind turns the classifier of stage 1 into the module that stage 2 trains on frozen features;
one without trainable weights needs no training.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from gcl_core.checked import Checked, value
from gcl_core.models import CosineClassifier, initialise


@dataclass(frozen=True)
class CRT(Checked):
    """Classifier re-training: every weight of the classifier is trained (Kang et al. 2020)."""

    name: ClassVar[str] = "crt"
    fresh_head: bool = value(
        False, "start from new weights (Kang et al. 2020) instead of stage 1's (published code)"
    )

    def build(self, head: nn.Module, generator: torch.Generator) -> nn.Module:
        """The classifier to train: a copy of stage 1's, or new weights of the same shape."""
        head = copy.deepcopy(head)
        if self.fresh_head:
            initialise(head, generator)
        return head


@dataclass(frozen=True)
class LWS(Checked):
    """Learnable weight scaling: only one scale for each class is trained (Kang et al. 2020)."""

    name: ClassVar[str] = "lws"

    def build(self, head: nn.Module, generator: torch.Generator) -> nn.Module:
        """The frozen classifier of stage 1 with a trainable scale, initially 1, on each output."""
        return ScaledHead(copy.deepcopy(head))


@dataclass(frozen=True)
class TauNorm(Checked):
    """tau-normalisation: w_j / |w_j|^tau and no bias, without training (Kang et al. 2020).

    A cosine classifier is its own tau = 1: there the outputs do not change. Any other tau gives
    |w_j|^(1 - tau) cos theta_j.
    """

    name: ClassVar[str] = "tau_norm"
    tau: float = value(1.0, "exponent of the norm; 1: BagofTricks-LT for CIFAR, not tuned", low=0)

    def build(self, head: nn.Module, generator: torch.Generator) -> nn.Module:
        """The re-normalised classifier; it has no trainable weight."""
        return NormalisedHead(head, self.tau)


class ScaledHead(nn.Module):
    """Outputs of a frozen classifier times one learnable scale for each class.

    Shape:
        features: (N, D); returns (N, C).
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head.requires_grad_(False)
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
                features = nn.functional.normalize(features)
            return nn.functional.linear(features, self.weight)


Rebalancing = CRT | LWS | TauNorm
REBALANCERS = {kind.name: kind for kind in (CRT, LWS, TauNorm)}
