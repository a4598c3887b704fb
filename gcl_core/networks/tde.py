"""De-confound-TDE: causal training and counterfactual inference (Tang et al. 2020).

Formulas are with `MultiHeadClassifier` and `CounterfactualHead`; source is the published code
(KaihuaTang/Long-Tailed-Recognition.pytorch). Its network for CIFAR is a ResNet-32 with BBN's two
last blocks and 128 features; here it is the backbone of all methods, with 64. On other data than
CIFAR their momentum follows the rate; here it does not. How it is trained is said in
`gcl_core.methods.registry`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.networks.network import Classifier


class MultiHeadClassifier(Classifier):
    """Normalised classifier in K groups of the features; it keeps a moving average of them.

    z_j = scale / K sum_k  x^k / |x^k| . w_j^k / (|w_j^k| + gamma)
    In training:  mean <- momentum mean + the batch's mean feature

    Computed in float32 also under autocast. K 2, scale 16, gamma 1/32 and momentum 0.9 are the
    values of the published code; only the direction of the mean is ever used.

    Raises:
        ValueError: the features cannot be divided into K groups.

    Shape:
        features: (N, D); returns (N, C).

    Attributes:
        weight: (C, D); mean: (D,) float32, zero at first.
    """

    groups, scale, gamma, momentum = 2, 16.0, 1 / 32, 0.9
    mean: Tensor

    def __init__(self, in_features: int, num_classes: int) -> None:
        if in_features % self.groups:
            raise ValueError(f"{in_features} features do not divide into {self.groups} groups")
        super().__init__(in_features, num_classes)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew, uniform in +-1 / sqrt(D), and forget the mean."""
        super().reset_parameters(generator)
        self.register_buffer("mean", torch.zeros_like(self.weight[0]))

    def directions(self, features: Tensor) -> Tensor:
        """x^k / |x^k|: (N, D) to (N, K, D / K)."""
        return F.normalize(features.float().unflatten(1, (self.groups, -1)), dim=2)

    def compare(self, directions: Tensor) -> Tensor:
        """Outputs (N, C) of directions (N, K, D / K)."""
        weight = self.weight.float().unflatten(1, (self.groups, -1))
        weight = weight / (weight.norm(dim=2, keepdim=True) + self.gamma)
        return self.scale / self.groups * torch.einsum("nkd,ckd->nc", directions, weight)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            if self.training:
                with torch.no_grad():
                    self.mean.mul_(self.momentum).add_(features.float().mean(0))
            return self.compare(self.directions(features))


class CounterfactualHead(nn.Module):
    """The same classifier of what is left without the direction d of the mean feature.

    x^k / |x^k|  becomes  x^k / |x^k| - alpha cos(x^k, d^k) d^k

    Args:
        head: trained; it is frozen.
        alpha: how much is taken away; 0 leaves the classifier as it is.

    Shape:
        features: (N, D); returns (N, C).
    """

    def __init__(self, head: MultiHeadClassifier, alpha: float) -> None:
        super().__init__()
        self.head, self.alpha = head.requires_grad_(False), alpha

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            directions = self.head.directions(features)
            mean = self.head.directions(self.head.mean[None])
            cosine = (directions * mean).sum(2, keepdim=True)
            return self.head.compare(directions - self.alpha * cosine * mean)
