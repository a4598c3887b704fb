"""BBN: a conventional and a re-balancing branch, learned cumulatively (Zhou et al. 2020).

    z    = W 2 [alpha f_c(x) ; (1 - alpha) f_r(x')] + b,   alpha = 1 - (epoch / epochs)^2
    loss = alpha CE(z, y) + (1 - alpha) CE(z, y')

with epochs from 0, x drawn uniformly and x' by P(class j) ~ 1 / n_j, as in the published code
(Megvii-Nanjing/BBN). How it is trained is said in `gcl_core.methods.registry`.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.losses.criterion import to_float32
from gcl_core.networks.backbones import Backbone, pooled
from gcl_core.networks.network import Network


class BilateralBackbone(nn.Module):
    """A backbone with its last block twice; the features of both blocks side by side.

    Shape:
        images: (N, channels, H, W); returns (N, 2 D): conventional, then re-balancing.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.out_features = 2 * backbone.out_features
        self.conventional = backbone.pop_block()
        self.rebalancing = copy.deepcopy(self.conventional)
        self.trunk = backbone

    def forward(self, images: Tensor) -> Tensor:
        maps = self.trunk.maps(images)
        return torch.cat((pooled(self.conventional(maps)), pooled(self.rebalancing(maps))), 1)


class BilateralNetwork(Network):
    """Both branches and one linear classifier of their features f_c and f_r.

    Of images:                     W [f_c ; f_r] + b
    Of a pair of batches (x, x'):  W 2 [alpha f_c(x) ; (1 - alpha) f_r(x')] + b, and alpha

    Shape:
        inputs: images (N, channels, H, W), or (images of the conventional branch, images of the
        re-balancing branch, alpha); returns (N, C), or that and alpha.
    """

    backbone: BilateralBackbone

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        both = BilateralBackbone(backbone)
        super().__init__(both, nn.Linear(both.out_features, num_classes))

    def forward(self, inputs: Any) -> Any:
        if isinstance(inputs, Tensor):
            return super().forward(inputs)
        first, second, share = inputs
        conventional = pooled(self.backbone.conventional(self.backbone.trunk.maps(first)))
        rebalancing = pooled(self.backbone.rebalancing(self.backbone.trunk.maps(second)))
        features = torch.cat((share * conventional, (1 - share) * rebalancing), 1)
        return self.head(2 * features), share


class BilateralLoss(nn.Module):
    """alpha CE(z, y) + (1 - alpha) CE(z, y'), the mean over the batch.

    Shape:
        outputs: logits z (N, C) and alpha (); target: (N, 2), the labels y and y' of both branches.
    """

    def forward(self, outputs: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        logits, share = to_float32(outputs[0]), outputs[1]
        first, second = (F.cross_entropy(logits, labels) for labels in target.unbind(1))
        return share * first + (1 - share) * second
