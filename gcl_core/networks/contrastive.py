"""Hybrid-SC and Hybrid-PSC: contrastive features beside a classifier (Wang et al. 2021).

    loss = alpha L_contrast(x) + (1 - alpha) CE(x', y'),   alpha = 1 - (epoch / epochs)^2

with x drawn uniformly and x' by classes; L_contrast is that of `HybridSCLoss` of two views of x or
that of `HybridPSCLoss` of one. No code is published: all is from the paper as far as known, in part
from the report of a reproduction. Our assumptions: epochs from 0 as in BBN, a projection of two
layers to 128 numbers, prototypes of unit length. How both are trained is said in
`gcl_core.methods.registry`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.losses.criterion import lead, to_float32
from gcl_core.networks.backbones import Backbone
from gcl_core.networks.network import CosineClassifier, Network

PROJECTED = 128  # length of the projection: SupCon (Khosla et al. 2020), as theirs is not known


class ContrastiveNetwork(Network):
    """A linear classifier and a projection (two layers) of the same features.

    Of images:              the classifier's logits
    Of a pair of batches:   the projections of the first, the logits of the second, and alpha

    Shape:
        inputs: images (N, channels, H, W), or (images (M, ...), images (N, ...), alpha); returns
        (N, C), or projections (M, 128), logits (N, C) and alpha.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        width = backbone.out_features
        super().__init__(backbone, nn.Linear(width, num_classes))
        self.projection = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, PROJECTED)
        )

    def forward(self, inputs: Any) -> Any:
        if isinstance(inputs, Tensor):
            return super().forward(inputs)
        contrasted, classified, share = inputs
        return self.projection(self.features(contrasted)), super().forward(classified), share


class PrototypicalNetwork(ContrastiveNetwork):
    """The same, with a learned prototype of each class: of a pair it gives cosines (M, C)."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__(backbone, num_classes)
        self.projection.append(CosineClassifier(PROJECTED, num_classes))


class HybridSCLoss(nn.Module):
    """alpha L_contrast(first) + (1 - alpha) CE(second), with the supervised contrast.

    L_contrast = mean over i of -1/|P_i| sum_{p in P_i} log(exp(u_i.u_p / t)
                                                          / sum_{a != i} exp(u_i.u_a / t))

    of first outputs u, brought to unit length; P_i are the other images of i's class, and an image
    without one counts as 0 (Khosla et al. 2020).

    Args:
        temperature: t > 0 of the contrast.

    Shape:
        outputs: first (M, ...) with M = N or, in two views, 2 N; logits (N, C); alpha ().
        target: (N, 2), labels of the images of both.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def contrast(self, projected: Tensor, labels: Tensor) -> Tensor:
        """L_contrast of projections (M, d) and labels (M,): ()."""
        unit = F.normalize(to_float32(projected))
        itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        similarity = (unit @ unit.T / self.temperature).masked_fill(itself, -torch.inf)
        positive = (labels[:, None] == labels) & ~itself
        log_share = (similarity - similarity.logsumexp(1, keepdim=True)).masked_fill(~positive, 0)
        return -(log_share.sum(1) / positive.sum(1).clamp(min=1)).mean()

    def forward(self, outputs: tuple[Tensor, Tensor, Tensor], target: Tensor) -> Tensor:
        first, logits, share = outputs
        labels = target[:, 0].repeat(len(first) // len(target))
        contrast = self.contrast(first, labels)
        return share * contrast + (1 - share) * F.cross_entropy(to_float32(logits), target[:, 1])


class HybridPSCLoss(HybridSCLoss):
    """The same with the contrast to prototypes.

    L_contrast = mean over i of -log(exp(cos_y / t) / sum_{j != y} exp(cos_j / t))
    """

    def contrast(self, projected: Tensor, labels: Tensor) -> Tensor:
        """L_contrast of cosines (M, C) of projections and prototypes: ()."""
        return lead(to_float32(projected) / self.temperature, labels).mean()
