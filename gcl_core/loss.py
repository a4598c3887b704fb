"""GCLLoss: cross-entropy of Gaussian clouded logits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.clouds import cloud_sizes
from gcl_core.errors import GCLError

REDUCTIONS = ("mean", "sum", "none")


class GCLLoss(nn.Module):
    def __init__(
        self,
        class_counts: Sequence[int] | Tensor,
        *,
        scale: float = 30.0,
        noise_multiplier: float = 0.5,
        sigma: float = 1 / 3,
        strategy: str = "log",
        exponent: float | None = None,
        margin: float = 0.0,
        focal_gamma: float = 0.0,
        reduction: str = "mean",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.noise_multiplier, self.sigma = scale, noise_multiplier, sigma
        self.margin, self.focal_gamma, self.reduction = margin, focal_gamma, reduction
        self.generator = generator
        self.cloud_sizes: Tensor
        self.register_buffer("cloud_sizes", cloud_sizes(class_counts, strategy, exponent).float())

    def logits(self, cosine, noise=None):
        cosine = cosine.float()
        if not self.training:
            return self.scale * cosine
        if noise is None:
            noise = torch.empty_like(cosine).normal_(0, self.sigma, generator=self.generator)
        return self.scale * (cosine - self.noise_multiplier * self.cloud_sizes * noise.clamp(-1, 1).abs())

    def forward(self, cosine, target, noise=None):
        logits = self.logits(cosine, noise)
        if self.training and self.margin:
            logits = logits - self.scale * self.margin * F.one_hot(target, logits.shape[1])
        loss = F.cross_entropy(logits, target, reduction="none")
        if self.training and self.focal_gamma:
            loss = loss * (1 - torch.exp(-loss.detach())) ** self.focal_gamma
        return loss.mean()
