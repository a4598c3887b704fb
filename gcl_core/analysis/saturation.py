"""Softmax saturation: the gradient on a logit, under a cloud, and in a trained network."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_core.data.epoch import TrainingImages
from gcl_core.data.streams import Streams
from gcl_core.errors import GCLError
from gcl_core.losses.clouds import cloud_sizes
from gcl_core.methods.objectives import GCL, Objective
from gcl_core.training.evaluation import outputs_of
from gcl_core.training.two_stages import Run

NODES = 64  # Gauss-Legendre points over |eps|: errors below 1e-5 up to a reach of 30
SMOOTH_NODES = 32  # the Gumbel variable smooths what is integrated: errors below 1e-7
STEP = 0.5  # of the trapezoidal rule over the Gumbel variable: its error is about 1e-8


def softmax_gradient(logits: Tensor, target: Tensor) -> Tensor:
    """Gradient of the cross-entropy of each sample with respect to its logits.

    dL/dz_j = p_j - [j = y],  p = softmax(z)                                             (Eq. 2)

    Shape:
        logits: (N, C); target: (N,) int64; returns (N, C), each row adding up to 0.
    """
    gradient = logits.softmax(1)
    gradient[torch.arange(len(target)), target] -= 1
    return gradient


def binary_gradient(difference: Tensor) -> Tensor:
    """Gradient on the target logit when there are two classes, from d = z_y - z_j.

    dL/dz_y = p_y - 1 = -1 / (1 + exp(d))                                               (Eq. 3)

    Shape:
        difference: any; returns the same, in (-1, 0).
    """
    return -torch.sigmoid(-difference)


def cloud_quadrature(sigma: float = 1 / 3, nodes: int = NODES) -> tuple[Tensor, Tensor]:
    """Points and weights that integrate over |eps|, eps ~ N(0, sigma^2) clamped to [-1, 1].

    E g(|eps|) = sum_q weight_q g(point_q): Gauss-Legendre on the half-normal density, and one point
    at 1 for the probability 2 Phi(-1 / sigma) that the clamp collects there (0.0027 for 1/3).

    Shape:
        returns two (nodes + 1,) float64 tensors; the weights add up to 1.

    Raises:
        GCLError: a negative sigma.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise GCLError(f"sigma must be >= 0, got {sigma}")
    if sigma == 0:
        return torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    end = min(1.0, 9 * sigma)  # beyond 9 sigma lies 2e-19
    x, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
    point = end / 2 * (x + 1)
    density = math.sqrt(2 / math.pi) / sigma * torch.exp(-((point / sigma) ** 2) / 2)
    inside = math.erf(end / sigma / math.sqrt(2))
    mass = weight * density * end / 2
    mass *= inside / mass.sum()
    ends = torch.tensor([1.0, 1 - inside], dtype=torch.float64)
    return torch.cat([point, ends[:1]]), torch.cat([mass, ends[1:]])


def expected_binary_gradient(
    difference: Tensor, target_reach: float, other_reach: float = 0.0, sigma: float = 1 / 3
) -> Tensor:
    """Mean over the clouds of the gradient on the target logit, for two classes (Eq. 3 and 10).

    E dL/dz_y = E[-1 / (1 + exp(d - r_y |eps_y| + r_j |eps_j|))],   eps independent

    The reach r = s k delta is how far a full cloud lowers a logit: scale, noise multiplier, size.
    Published code draws one eps for each class; whether the paper means that or one shared eps is
    not clear from Eq. 10. With one reach 0, as for the head class, the two are the same.

    Args:
        difference: clean logit difference d = z_y - z_j, any shape; that of the result.
        target_reach, other_reach: r_y and r_j, in units of the logit.
        sigma: standard deviation of eps before the clamp.
    """
    point, weight = cloud_quadrature(sigma)
    clean = difference.double()[..., None, None]
    clouded = clean - target_reach * point[:, None] + other_reach * point
    mean = (binary_gradient(clouded) * weight[:, None] * weight).sum((-1, -2))
    return mean.to(difference.dtype)


def expected_probabilities(logits: Tensor, reach: Tensor, sigma: float = 1 / 3) -> Tensor:
    """E[p] under independent clouds on all classes, by quadrature.

    With z_j lowered by r_j |eps_j|, softmax gives the chance that class j is the largest of z_j
    plus independent Gumbel noise. The eps_j are independent too, so that with the mean distribution
    function G_j(t) = E exp(-exp(z_j - r_j |eps_j| - t)) of class j

        E[p_j] = integral of prod_i G_i(t) * G_j'(t) / G_j(t) dt.

    One integral over t and one over each |eps_j| thus replace one over all eps together.

    Args:
        logits: (N, C) clean logits; a margin, if any, already taken off.
        reach: (C,) r_j >= 0; all zero gives p itself.
        sigma: standard deviation of eps before the clamp.

    Returns:
        (N, C) float64; small ones are as accurate as large ones.
    """
    clean, reach = logits.detach().double().cpu(), reach.double().cpu()
    if not bool((reach > 0).any()) or sigma == 0:
        return clean.softmax(1)
    point, weight = cloud_quadrature(sigma, SMOOTH_NODES)
    drop = reach[:, None] * point  # (C, Q)
    # Below `low` the product of the G_j is nothing; beyond `high` the densities are below e^-40.
    low = float((clean - reach).max(1).values.min()) - 6
    high = float(clean.max()) + 40
    grid = torch.arange(low, high + STEP, STEP, dtype=torch.float64)
    rows = max(1, 2**22 // (len(grid) * max(len(point), len(reach))))
    return torch.cat([_chances(z, drop, weight, grid) for z in clean.split(rows)])


def _chances(logits: Tensor, drop: Tensor, weight: Tensor, grid: Tensor) -> Tensor:
    """The integrals of `expected_probabilities` for some rows."""
    log_all = torch.zeros(len(logits), len(grid), dtype=torch.float64)
    rates = []
    for j in range(logits.shape[1]):  # a loop over the classes keeps the memory small
        u = logits[:, j, None, None] - drop[j] - grid[:, None]  # (N, T, Q)
        rate = u.exp()
        below = torch.exp(-rate)  # chance that class j stays below t, for each |eps|
        mean = (below * weight).sum(-1).clamp_min(1e-300)
        slope = torch.where(below > 0, rate * below, 0.0)
        log_all += mean.log()
        rates.append((slope * weight).sum(-1) / mean)
    return torch.stack([(log_all.exp() * rate).sum(1) for rate in rates], 1) * STEP


@dataclass(frozen=True)
class Saturation:
    """How much gradient the training images of each class still give.

    For an image with the weights t of its labels (all of it on y, or shared by mixup) the gradient
    on the logits is p - t. What lifts some logits is what lowers the others: half of sum |p - t|,
    which is 1 - p_y for one label.

    Attributes:
        gradient: (N,) half of sum |p - t| of each image, at its mean over the clouds.
        lifted, lowered: (C,) sums over the images of max(t_j - p_j, 0) and max(p_j - t_j, 0).
        mean: (C,) `lifted` by image; a mixed image counts for each label by its weight.
        active: (C,) share of a class's images whose `gradient` is above `threshold`.
        share: (C,) share of the class in all of `lifted`.
        threshold: the one that was asked for.
    """

    gradient: Tensor
    lifted: Tensor
    lowered: Tensor
    mean: Tensor
    active: Tensor
    share: Tensor
    threshold: float


@torch.no_grad()
def training_logits(run: Run) -> Tensor:
    """Clean logits of a run's training images, without augmentation: (N, C).

    The outputs times the scale of the last stage's objective, if it has one: s cos theta for GCL.
    """
    dataset = run.dataset
    outputs = outputs_of(run.network, dataset.train, dataset, torch.device("cpu"))
    return outputs * _scale(run)


def cloud_reach(run: Run) -> Tensor:
    """r_j = s k delta_j of a run's last objective, (C,) float64; zeros unless that is GCL."""
    objective, counts = _objective(run), run.dataset.class_counts
    if not isinstance(objective, GCL):
        return torch.zeros(len(counts), dtype=torch.float64)
    sizes = cloud_sizes(counts, objective.strategy, objective.exponent)
    return sizes * objective.scale * objective.noise_multiplier


def _objective(run: Run) -> Objective:
    return (run.settings.stage2 or run.settings.stage1).objective


def _scale(run: Run) -> float:
    return float(getattr(_objective(run), "scale", 1.0))


@torch.no_grad()
def saturation(
    run: Run, *, cloud: bool = False, threshold: float = 0.01, as_trained: bool = False
) -> Saturation:
    """The gradient that a run's training images still give, under its last objective.

    The logits are `training_logits`. What other objectives do to them is left out, as is every
    focal factor.

    Args:
        run: a finished run.
        cloud: mean over the clouds (and with the margin) of GCL instead of clean logits; changes
            nothing for other objectives.
        threshold: an image counts as active above it. 0.01 is a choice of this study: the image
            gives less than a hundredth of the largest gradient there is.
        as_trained: an epoch of stage 1's batches, augmented and mixed, instead of each image once
            as it is. The network stays in evaluation mode.
    """
    objective, classes = _objective(run), run.dataset.num_classes
    if as_trained:
        outputs, weights = _training_batches(run)
    else:
        outputs = training_logits(run)
        weights = F.one_hot(run.dataset.train.labels, classes).double()
    reach, sigma = torch.zeros(classes), 0.0
    if cloud and isinstance(objective, GCL):
        reach, sigma = cloud_reach(run), objective.sigma
        outputs -= objective.scale * objective.margin * (weights > 0)
    push = expected_probabilities(outputs, reach, sigma) - weights
    lowered = push.clamp_min(0)
    gradient, lifted = lowered.sum(1), (-push).clamp_min(0).sum(0)
    images = weights.sum(0)
    active = weights.T @ (gradient > threshold).double() / images
    return Saturation(
        gradient, lifted, lowered.sum(0), lifted / images, active, lifted / lifted.sum(), threshold
    )


def _training_batches(run: Run) -> tuple[Tensor, Tensor]:
    """Clean logits (N, C) of an epoch of stage 1's batches, and the weights of their labels."""
    dataset, stage, cpu = run.dataset, run.settings.stage1, torch.device("cpu")
    streams = Streams.seeded(run.settings.seed, 1, 0, cpu)
    sampler = stage.sampler.build(dataset.train.labels, streams.order)
    batches = TrainingImages(
        *(dataset, sampler, stage.batch_size, streams, cpu), mixup_alpha=stage.mixup_alpha
    )
    outputs, weights = [], []
    for batch in batches:
        outputs.append(run.network(batch.inputs))
        one_hot = F.one_hot(batch.target, dataset.num_classes).double()
        if batch.partner is not None and batch.share is not None:
            other = F.one_hot(batch.partner, dataset.num_classes)
            one_hot = torch.lerp(other.double(), one_hot, batch.share.double())
        weights.append(one_hot)
    return torch.cat(outputs) * _scale(run), torch.cat(weights)
