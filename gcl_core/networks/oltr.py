"""OLTR: modulated attention and a dynamic meta-embedding (Liu et al. 2019).

Formulas and constants are those of the published code (OpenLongTailRecognition-OLTR). Changed here:
no fully connected layer before the embedding; where attention matters is said by a 1x1 convolution;
attention starts at zero, as its own layer has it there (the published network then draws all
convolutions anew); a distance to a centroid counts as 0.001 at least. How it is trained is said in
`gcl_core.methods.registry`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.losses.criterion import to_float32
from gcl_core.networks.backbones import Backbone, pooled
from gcl_core.networks.network import Classifier, Network

FEW = 100  # classes


class ModulatedAttention(nn.Module):
    """m + s * A(m): self-attention A between the positions of maps m, weighted by where it matters.

    A has D / 2 inner channels and ends in a convolution that starts at zero, so that the maps are
    what they were at first. s is a softmax over the positions; here of a 1x1 convolution, which
    fits any size (theirs is a fully connected layer on all maps).

    Shape:
        maps: (N, D, h, w); returns the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.where = nn.Conv2d(channels, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        query, key, value = (f(maps).flatten(2) for f in (self.query, self.key, self.value))
        attention = (query.transpose(1, 2) @ key).softmax(2)  # (N, hw, hw)
        attended = (value @ attention.transpose(1, 2)).unflatten(2, maps.shape[2:])
        where = self.where(maps).flatten(2).softmax(2).unflatten(2, maps.shape[2:])
        return maps + where * self.out(attended)


class ModulatedBackbone(nn.Module):
    """A backbone whose last maps go through `ModulatedAttention`.

    Shape:
        images: (N, channels, H, W); returns (N, D).
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.attention = backbone, ModulatedAttention(backbone.out_features)

    def forward(self, images: Tensor) -> Tensor:
        return pooled(self.attention(self.backbone.maps(images)))


class CosNormClassifier(Classifier):
    """16 x / (1 + |x|) . w_j / |w_j|: a cosine that keeps some of the length of x.

    Shape:
        features: (N, D); returns (N, C).
    """

    scale = 16.0

    def forward(self, features: Tensor) -> Tensor:
        squashed = features / (1 + features.norm(dim=1, keepdim=True))
        return self.scale * F.linear(squashed, F.normalize(self.weight))


class MetaEmbedding(nn.Module):
    """Classifier of a feature x and what a memory of class centroids c_j adds to it.

    x_meta = reach / min_j |x - c_j|  (x + tanh(W_s x + b_s) * sum_j softmax(W_h x + b_h)_j c_j)

    The centroids count as constants here: only `OLTRLoss` moves them. Computed in float32.

    Args:
        hallucinator: W_h, b_h: the linear classifier of stage 1, trained on.
        centroids: (C, D) mean features of the training images.
        reach: > 0; 10 in the published code.

    Shape:
        features: (N, D); returns (N, C).
    """

    def __init__(self, hallucinator: nn.Linear, centroids: Tensor, reach: float = 10.0) -> None:
        super().__init__()
        classes, width = centroids.shape
        self.reach = reach
        self.hallucinator, self.selector = hallucinator, nn.Linear(width, width)
        self.classifier = CosNormClassifier(width, classes)
        self.centroids = nn.Parameter(centroids)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            features, centroids = features.float(), self.centroids.detach()
            memory = self.hallucinator(features).softmax(1) @ centroids
            # A feature on a centroid would be infinitely well known.
            with torch.no_grad():  # |c|^2 - 2 x c orders the distances, and only chooses
                lengths = centroids.square().sum(1)
                chosen = centroids[torch.addmm(lengths, features, centroids.T, alpha=-2).argmin(1)]
            nearest = _distances(features[:, None], chosen[:, None])[:, 0].clamp(min=1e-3)
            infused = features + self.selector(features).tanh() * memory
            return self.classifier(self.reach / nearest * infused)


class OLTRNetwork(Network):
    """A modulated backbone and a `MetaEmbedding`.

    Args:
        backbone, head: both.
        lr_factors: factors of the learning rate, by the prefix of a weight's name.

    Shape:
        images: (N, channels, H, W); returns (N, C); in training logits (N, C), features (N, D) and
        centroids (C, D).
    """

    def __init__(
        self, backbone: ModulatedBackbone, head: MetaEmbedding, lr_factors: dict[str, float]
    ) -> None:
        super().__init__(backbone, head)
        self.lr_factors = lr_factors

    def forward(self, images: Tensor) -> Any:
        features = self.features(images)
        logits = self.head(features)
        return (logits, features, self.head.centroids) if self.training else logits


def _distances(features: Tensor, centroids: Tensor) -> Tensor:
    """|x_i - c_j|, also where it is small: not by way of a matrix product."""
    return torch.cdist(features, centroids, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_to_others(features: Tensor, centroids: Tensor, target: Tensor) -> Tensor:
    """1 / (N C) sum_i sum_{j != y_i} |x_i - c_j|^2.

    Of many classes without the distance of each pair, which would take most of a training step:
    C sum_i |x_i|^2 + N sum_j |c_j|^2 - 2 sum_i x_i . sum_j c_j, less those to the own centroids.
    """
    number, classes = len(features), len(centroids)
    if classes <= FEW:
        squared = _distances(features, centroids).square()
        return squared.scatter(1, target[:, None], 0).mean()
    lengths = classes * features.square().sum() + number * centroids.square().sum()
    every = lengths - 2 * features.sum(0) @ centroids.sum(0)
    return (every - (features - centroids[target]).square().sum()) / (number * classes)


class Attraction(torch.autograd.Function):
    """mean_i |x_i - c_{y_i}|^2 / 2, with a derivative of its own for the centroids.

    For x_i it is the ordinary one. For c_j it is, as in the published code's DiscCentroidsLoss,

    sum_{i: y_i = j} (c_j - x_i) / (1 + n_j) / N,   n_j images of class j in the batch,

    whatever factor the loss has: a weight of 0.01 does not reach the centroids.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, centroids: Tensor, target: Tensor) -> Tensor:
        difference = centroids[target] - features
        ctx.save_for_backward(difference, target)
        ctx.classes = len(centroids)
        return difference.square().sum() / 2 / len(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        difference, target = ctx.saved_tensors
        # As a matrix product: bincount makes a GPU wait, and index_add_ adds there in any order.
        own = difference.new_zeros(len(difference), ctx.classes).scatter_(1, target[:, None], 1)
        pull = own.T @ difference / (1 + own.sum(0)[:, None])
        return -gradients[0] * difference / len(difference), pull / len(difference), None


class OLTRLoss(nn.Module):
    """CE(z, y) + weight (attract + 0.01 repel) of features and centroids.

    attract = mean_i |x_i - c_y|^2 / 2, derived as `Attraction` says
    repel   = max(0, 10 - 1 / (N C) sum_i sum_{j != y_i} |x_i - c_j|^2)

    Args:
        weight: of both.

    Shape:
        outputs: logits (N, C), features (N, D), centroids (C, D); target: (N,).
    """

    repel, margin = 0.01, 10.0

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: tuple[Tensor, Tensor, Tensor], target: Tensor) -> Tensor:
        logits, features, centroids = (to_float32(part) for part in outputs)
        attract = Attraction.apply(features, centroids, target)
        others = _mean_to_others(features, centroids, target)
        repel = (self.margin - others).clamp(min=0)
        return F.cross_entropy(logits, target) + self.weight * (attract + self.repel * repel)
