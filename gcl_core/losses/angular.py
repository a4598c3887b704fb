"""AngularGCLLoss: the clouds of GCL on the angle instead of the cosine."""

import math

import torch
from torch import Tensor

from gcl_core.losses.clouds import Counts
from gcl_core.losses.gcl import GCLLoss, clouds

SMALLEST_SINE = 1e-3


class AngularGCLLoss(GCLLoss):
    """Cross-entropy in which each class's angle is widened by a random cloud (follow-up, TAI 2024).

        z_j  = s cos(theta_j + m_j),   m_j = pi/2 k delta_j |eps_j| + m [j = y]
        loss = (1 - p_y)^gamma (-log p_y),   p = softmax(z)

    with delta_j, eps_j, the checks and the eval mode (plain cross-entropy of s cos theta) of
    `GCLLoss`; k is the epsilon of the published code. Where theta + m would be too wide, another
    form holds:

        easy margin:  cos(theta + m) if cos theta > 0,       else cos theta
        otherwise:    cos(theta + m) if theta + m < pi,      else cos theta - sin m

    cos(theta + m) = cos theta cos m - sin theta sin m with sin theta taken as at least 0.001.
    Without that bound its gradient, cos theta / sin theta, is infinite at |cos theta| = 1, as in
    the published code. The bound acts within 0.06 degrees of theta = 0 and pi, where it changes a
    logit by at most 0.001 s. An output beyond 1, which no angle has (see `check_range`), is treated
    alike: it becomes c cos m - 0.001 sin m, so that a cloud lowers it too.

    Args:
        class_counts, sigma, strategy, exponent, reduction, generator, check_range: see `GCLLoss`.
        scale: s > 0. Default 30: published code for Places-LT, both stages.
        noise_multiplier: k >= 0. Default 0.5: published code for Places-LT.
        margin: m, an angle in [0, pi], added to the target's. Default 0: published code for
            Places-LT.
        easy_margin: see above. Default True: published code for Places-LT.
        focal_gamma: gamma >= 0; the factor (1 - p_y)^gamma is not differentiated. Default 0 (stage
            2 of the published code: 1).

    Shape:
        cosine: (N, C) in [-1, 1]; target: (N,) int64 in [0, C); noise: (N, C), eps before clamping
        and absolute value, instead of a draw.

    Raises:
        GCLError: as `GCLLoss`.
    """

    def __init__(
        self,
        class_counts: Counts,
        *,
        scale: float = 30.0,
        noise_multiplier: float = 0.5,
        sigma: float = 1 / 3,
        margin: float = 0.0,
        easy_margin: bool = True,
        strategy: str = "log",
        exponent: float | None = None,
        focal_gamma: float = 0.0,
        reduction: str = "mean",
        generator: torch.Generator | None = None,
        check_range: bool = True,
    ) -> None:
        super().__init__(
            class_counts,
            scale=scale,
            noise_multiplier=noise_multiplier,
            sigma=sigma,
            strategy=strategy,
            exponent=exponent,
            margin=margin,
            focal_gamma=focal_gamma,
            reduction=reduction,
            generator=generator,
            check_range=check_range,
        )
        self.easy_margin = easy_margin

    fused = False

    def _reach(self, cosine: Tensor) -> Tensor:
        """pi/2 k delta_j: the angle of a full cloud of class j, (C,)."""
        return self.cloud_sizes.to(cosine.dtype) * (math.pi / 2 * self.noise_multiplier)

    def _clouded(
        self, cosine: Tensor, noise: Tensor | None, margin: Tensor | float = 0.0
    ) -> Tensor:
        angles = clouds(self._noise(cosine, noise), self._reach(cosine)) + margin
        return self.scale * self._widened(cosine, angles)

    def _widened(self, cosine: Tensor, angles: Tensor) -> Tensor:
        """cos(theta + m), or what takes its place where that is too wide, (N, C)."""
        squared_sine = (1 - cosine) * (1 + cosine)
        sine = squared_sine.clamp(min=SMALLEST_SINE**2).sqrt()
        widened = cosine * angles.cos() - sine * angles.sin()
        if self.easy_margin:
            return torch.where(cosine > 0, widened, cosine)
        return torch.where(cosine > -angles.cos(), widened, cosine - angles.sin())
