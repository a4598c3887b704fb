"""The Gaussian cloud: from noise on a feature to noise on a logit, and what its mean alone does.

Everything here is in units of the feature's length: `size` is the paper's delta divided by |f|.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from gcl_core.analysis.saturation import (
    cloud_quadrature,
    expected_binary_gradient,
    softmax_gradient,
)
from gcl_core.errors import GCLError
from gcl_core.losses.clouds import checked_counts
from gcl_core.losses.gcl import clouds


def clouded_cosines(
    feature: Tensor, anchors: Tensor, noise: Tensor, size: float
) -> tuple[Tensor, Tensor]:
    """Cosines of a perturbed feature and the anchors: as they are, and as the paper simplifies.

    with u = f / |f|, v_j = w_j / |w_j|, delta = size:
        exact:  v_j^T (u + delta eps) / |u + delta eps|                                 (Eq. 4, 6)
        linear: cos theta_j + delta v_j^T eps                        (Eq. 7: |f + delta eps| ~ |f|)

    Shape:
        feature: (D,); anchors: (C, D); noise: (n, D) values of eps; returns two (n, C).
    """
    unit, directions = F.normalize(feature, dim=0), F.normalize(anchors)
    moved = unit + size * noise
    linear = moved @ directions.T
    return linear / moved.norm(dim=1, keepdim=True), linear


def norm_growth(size: float, dimension: int, sigma: float = 1 / 3) -> float:
    """Root mean square of |f + delta eps| / |f| for eps ~ N(0, sigma^2 I): what Eq. 7 takes as 1.

    E |u + delta eps|^2 = 1 + delta^2 sigma^2 D
    """
    return math.sqrt(1 + size**2 * sigma**2 * dimension)


@dataclass(frozen=True)
class GaussianTest:
    """How likely a sample as unlike N(mean, std^2) as the given one is, by three statistics.

    Attributes:
        mean: p-value of the sample mean (z test).
        variance: p-value of the sample variance (chi-square test), both sides.
        shape: p-value of the largest distance of the distribution functions (Kolmogorov-Smirnov).
    """

    mean: float
    variance: float
    shape: float


def gaussian_test(sample: Tensor, mean: float, std: float) -> GaussianTest:
    """Three tests of a sample (n,), n >= 2, against one fully stated normal distribution."""
    n, values = len(sample), sample.double().numpy()
    standard_error = std / math.sqrt(n)
    tail = stats.chi2.cdf((n - 1) * float(values.var(ddof=1)) / std**2, n - 1)
    return GaussianTest(
        mean=float(2 * stats.norm.sf(abs(float(values.mean()) - mean) / standard_error)),
        variance=float(2 * min(tail, 1 - tail)),
        shape=float(stats.kstest(values, stats.norm(mean, std).cdf).pvalue),
    )


def cloud_moments(sigma: float = 1 / 3) -> tuple[float, float]:
    """Mean and standard deviation of |eps|, eps ~ N(0, sigma^2) clamped to [-1, 1].

    With a = 1 / sigma and P = erfc(a / sqrt 2), the share that is clamped:
        E |eps|   = sigma sqrt(2 / pi) (1 - e^(-a^2 / 2)) + P                 (0.26571 for 1/3)
        E |eps|^2 = sigma^2 (1 - P) - sigma sqrt(2 / pi) e^(-a^2 / 2) + P

    Raises:
        GCLError: a sigma that is not positive.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise GCLError(f"sigma must be > 0, got {sigma}")
    clamped = math.erfc(1 / (sigma * math.sqrt(2)))
    edge = math.exp(-1 / (2 * sigma**2))
    mean = sigma * math.sqrt(2 / math.pi) * (1 - edge) + clamped
    square = sigma**2 * (1 - clamped) - sigma * math.sqrt(2 / math.pi) * edge + clamped
    return mean, math.sqrt(max(0.0, square - mean**2))  # rounding, where nearly all is clamped


def matched_tau(
    class_counts: Sequence[int] | Tensor,
    scale: float = 30.0,
    noise_multiplier: float = 0.5,
    sigma: float = 1 / 3,
) -> float:
    """The tau of logit adjustment that equals GCL's mean shift with logarithmic cloud sizes.

    tau = s k E|eps| / ln(n_max / n_min),  for then  -s k delta_j E|eps| = tau ln(n_j / n_max)

    In expectation of the *logits*; the expected loss is another one (Jensen's inequality).

    Raises:
        GCLError: classes of equal size, which have no cloud, and as `cloud_moments`.
    """
    counts = checked_counts(class_counts)
    ratio = float(counts.max() / counts.min())
    if ratio == 1:
        raise GCLError("classes of equal size have no cloud, and so no tau")
    return scale * noise_multiplier * cloud_moments(sigma)[0] / math.log(ratio)


def expected_binary_loss(difference: Tensor, reach: float, sigma: float = 1 / 3) -> Tensor:
    """Mean over the target's cloud of the loss with two classes.

    E log(1 + exp(-(d - r |eps|))),   d = z_y - z_j clean

    Args:
        difference: d, any shape; that of the result.
        reach: r = s k delta of the target, in units of the logit.
        sigma: standard deviation of eps before the clamp.
    """
    point, weight = cloud_quadrature(sigma)
    clouded = difference.double()[..., None] - reach * point
    return (F.softplus(-clouded) * weight).sum(-1).to(difference.dtype)


def signed_binary_gradient(difference: Tensor, reach: float, sigma: float = 1 / 3) -> Tensor:
    """Mean gradient on the target logit if eps kept its sign (Eq. 10), for two classes.

    E[-1 / (1 + exp(d + r eps))],   eps ~ N(0, sigma^2) clamped to [-1, 1]: half the mean over
    clouds that lower the logit and half of that over clouds that raise it. Its arguments are those
    of `expected_binary_loss`.
    """
    lowered = expected_binary_gradient(difference, reach, sigma=sigma)
    return (lowered + expected_binary_gradient(difference, -reach, sigma=sigma)) / 2


def sampled_gradients(
    logits: Tensor,
    target: Tensor,
    reach: Tensor,
    draws: int,
    generator: torch.Generator,
    sigma: float = 1 / 3,
) -> Tensor:
    """1 - p_y of each sample under `draws` clouds, one eps for each sample and class.

    Args:
        logits: (N, C) clean logits.
        target: (N,) int64.
        reach: (C,) r_j = s k delta_j.
        draws: how many clouds.
        generator: of the noise.
        sigma: standard deviation of eps before the clamp.

    Returns:
        (draws, N).
    """
    rows = []
    for _ in range(draws):
        noise = sigma * torch.randn(logits.shape, generator=generator, dtype=logits.dtype)
        gradient = softmax_gradient(logits + clouds(noise, -reach.to(logits.dtype)), target)
        rows.append(-gradient.gather(1, target[:, None])[:, 0])
    return torch.stack(rows)
