"""GCLLoss: cross-entropy of Gaussian clouded logits."""

import functools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_core.errors import GCLError
from gcl_core.losses.clouds import Counts, cloud_sizes
from gcl_core.losses.criterion import (
    Criterion,
    check_generator,
    check_number,
    check_target,
    is_finite,
    may_read,
    nothing_or_nan,
    reduced,
    traced,
)

BLOCK = 2**18  # values that are worked on at a time on a CPU: 1 MiB, so that they stay in its cache


class GCLLoss(Criterion):
    """Cross-entropy in which each class's cosine is lowered by a random cloud, wide for the tail.

        z_j = s (cos theta_j - k delta_j |eps_j| - m [j = y]),   eps_j ~ N(0, sigma^2) in [-1, 1]
        loss = (1 - p_y)^gamma (-log p_y),                       p = softmax(z)       (Eq. 11, 12)

    with the cloud size delta_j = `cloud_sizes(class_counts, strategy, exponent)`. In training mode
    eps is drawn anew for every sample and class; it is clamped to [-1, 1] (Sec. 4.2). In eval mode
    the loss is the plain cross-entropy of s cos theta: no cloud, margin or focal factor, so that a
    validation loss is deterministic. All is computed in float32 (float64 for float64 cosines), also
    under autocast. `torch.compile` and `torch.func` (`vmap` with randomness "different") take it
    as its plain composition: values are not checked, and eps is drawn in another way.

    Args:
        class_counts: (C,) training images of each class, all positive; see `checked_counts`.
        scale: s > 0. Default 30: stage 1 of the published code (stage 2: 20). With few classes a
            smaller one can be needed (issue 3 of the published code).
        noise_multiplier: k >= 0. Default 0.5: published code for CIFAR (1 for Places-LT and in the
            paper's formula).
        sigma: standard deviation of eps before clamping, >= 0. Default 1/3: the paper, Sec. 4.2.
        strategy, exponent: see `cloud_sizes`. Default "log": the paper, Eq. 9.
        margin: m, taken from the target's cosine. Default 0: the paper, and stage 1 of the
            published code (stage 2: 0.1).
        focal_gamma: gamma >= 0; the factor (1 - p_y)^gamma is not differentiated. Default 0 (stage
            2 of the published code: 1).
        reduction: "mean", "sum", or "none" for (N,) values.
        generator: source of eps, on the device of the cosines; None is torch's default generator.
            `torch.compile` takes no other; `torch.utils.checkpoint` restores no other, so that its
            second pass would draw other clouds, and give gradients that are not the loss's.
        check_range: whether (on a CPU) a first row that is not of cosines is refused. False is for
            cosines that a trained factor or offset of each class takes beyond 1 (LWS, DisAlign):
            the formula holds for them as it is.

    Shape:
        cosine: (N, C) in [-1, 1], such as a `CosineClassifier` gives; target: (N,) int64 in [0, C);
        noise: (N, C), eps before clamping and absolute value, instead of a draw.

    Raises:
        GCLError: an argument out of range, no tensor, a wrong shape, and (on a CPU) a target out of
            range, a cosine that is not finite, or a first row that is not of cosines: logits, or
            cosines times a scale. A GPU is not made to wait for these: there the loss is NaN where
            a cosine is, and an out-of-range target is an indexing error of CUDA.

    Example:
        >>> loss = GCLLoss([500, 50, 5], generator=torch.Generator().manual_seed(0))
        >>> cosine = torch.tensor([[0.4, 0.3, 0.1]], requires_grad=True)
        >>> loss(cosine, torch.tensor([0])).backward()
        >>> bool(cosine.grad[0, 0] < 0 < cosine.grad[0, 2])
        True
    """

    def __init__(
        self,
        class_counts: Counts,
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
        check_range: bool = True,
    ) -> None:
        sizes = cloud_sizes(class_counts, strategy, exponent)
        super().__init__(reduction, scale, len(sizes), cosines=check_range)
        check_number("noise_multiplier", noise_multiplier)
        check_number("sigma", sigma)
        check_number("focal_gamma", focal_gamma)
        if not is_finite(margin):
            raise GCLError(f"margin must be a number, got {margin!r}")
        check_generator(generator)
        self.noise_multiplier, self.sigma, self.generator = noise_multiplier, sigma, generator
        self.margin, self.focal_gamma = margin, focal_gamma
        self.cloud_sizes: Tensor
        self.register_buffer("cloud_sizes", sizes.float())

    takes = "cosine"
    fused = True  # whether `_CloudedCrossEntropy` is its loss in training mode

    def logits(self, cosine: Tensor, noise: Tensor | None = None) -> Tensor:
        """Logits z with clouds, before the target's margin, (N, C); eval mode: s cos theta_j."""
        cosine = self._checked(cosine)
        return self._clouded(cosine, noise) if self.training else self.scale * cosine

    def forward(self, cosine: Tensor, target: Tensor, noise: Tensor | None = None) -> Tensor:
        """The loss: () for "mean" and "sum", (N,) for "none"."""
        cosine = self._checked(cosine)
        check_target(target, cosine)
        if not self.training:
            loss = F.cross_entropy(self.scale * cosine, target, reduction="none")
            loss = loss + nothing_or_nan(cosine)
        elif self.fused and not traced():
            clouded = (self._noise(cosine, noise), self._reach(cosine))
            factors = (self.scale, self.scale * self.margin, self.focal_gamma)
            loss, _ = _CloudedCrossEntropy.apply(cosine, target, *clouded, *factors)
        else:
            margin = torch.zeros_like(cosine).scatter(1, target[:, None], self.margin)
            logits = self._clouded(cosine, noise, margin)
            loss = F.cross_entropy(logits, target, reduction="none") + nothing_or_nan(cosine)
            loss = loss * (1 - torch.exp(-loss.detach())) ** self.focal_gamma
        # One bad cosine spoils the loss of its row: N values to check instead of N x C.
        if may_read(cosine) and not loss.isfinite().all():
            row = int((~loss.isfinite()).nonzero()[0])
            raise GCLError(f"cosine of sample {row} is not finite (NaN or infinite)")
        return reduced(loss, self.reduction)

    def _clouded(
        self, cosine: Tensor, noise: Tensor | None, margin: Tensor | float = 0.0
    ) -> Tensor:
        eps = self._noise(cosine, noise)
        return self.scale * (cosine - margin) + clouds(eps, self._reach(cosine))

    def _reach(self, cosine: Tensor) -> Tensor:
        """-s k delta_j: what a full cloud adds to the logit of class j, (C,)."""
        return self.cloud_sizes.to(cosine.dtype) * (-self.scale * self.noise_multiplier)

    def _noise(self, cosine: Tensor, given: Tensor | None) -> "Tensor | _DrawnClouds":
        if given is not None:
            if given.shape != cosine.shape:
                shapes = f"{tuple(cosine.shape)}, got {tuple(given.shape)}"
                raise GCLError(f"noise must have the shape of cosine, {shapes}")
            return given
        if may_read(cosine):
            return _DrawnClouds(cosine.shape, self.sigma, self.generator)
        return torch.empty_like(cosine).normal_(0, self.sigma, generator=self.generator)

    def extra_repr(self) -> str:
        return (
            f"classes={len(self.cloud_sizes)}, scale={self.scale}, "
            f"noise_multiplier={self.noise_multiplier}, sigma={self.sigma:.4g}, "
            f"margin={self.margin}, focal_gamma={self.focal_gamma}, reduction={self.reduction!r}"
        )


class _DrawnClouds:
    """min(|eps|, 1) with eps ~ N(0, sigma^2) on a CPU, four values from each 64 random bits.

    `Tensor.normal_` takes longer than a whole cross-entropy, as its generator is serial. Here the
    generator gives a seed for numpy's SFC64, and 16 random bits choose one of 2^16 equally likely
    quantiles, so that the distribution function is exact to 2^-16.
    """

    def __init__(
        self, shape: torch.Size, sigma: float, generator: torch.Generator | None = None
    ) -> None:
        seed = int(torch.randint(2**63 - 1, (), generator=generator, device="cpu"))
        random = np.random.Generator(np.random.SFC64(seed))
        words = random.integers(0, 2**64 - 1, -(-shape.numel() // 4), np.uint64, endpoint=True)
        self.cells = torch.from_numpy(words.view(np.uint16))[: shape.numel()].view(shape)
        self.quantiles = _half_normal_quantiles(sigma)

    def times(self, reach: Tensor, rows: slice) -> Tensor:
        """reach_j min(|eps_ij|, 1) for some rows."""
        cells = self.cells[rows].to(torch.int32)
        sizes = self.quantiles.index_select(0, cells.view(-1)).view(cells.shape)
        return sizes.to(reach.dtype).mul_(reach)


@functools.lru_cache(maxsize=8)
def _half_normal_quantiles(sigma: float) -> Tensor:
    """min(|eps|, 1) in the middle of each of 2^16 equally likely cells, eps ~ N(0, sigma^2)."""
    middles = (torch.arange(2**16, dtype=torch.float64, device="cpu") + 0.5) / 2**16
    return (sigma * math.sqrt(2) * middles.erfinv()).clamp(max=1).float()


def clouds(noise: "Tensor | _DrawnClouds", reach: Tensor, rows: slice = slice(None)) -> Tensor:
    """reach_j |clamp(eps_ij)| for some rows, (n, C) in the dtype of reach, a fresh tensor."""
    if isinstance(noise, _DrawnClouds):
        return noise.times(reach, rows)
    return noise[rows].to(reach.dtype).clamp(-1, 1).abs_().mul_(reach)


class _CloudedCrossEntropy(torch.autograd.Function):
    """-log softmax(s cos + clouds - s m onehot)_y for each sample, with the focal factor; and p.

    Same value and derivatives as the plain composition. It is written out because the plain one
    makes eight (N, C) intermediates; here the logits of a block of rows are made in place, become
    the softmax in place, and that is all the backward pass needs: dz = w (p - onehot). The softmax
    is an output too, so that this derivative has one of its own: dz = p (g - sum_j g_j p_j).
    """

    @staticmethod
    def forward(
        ctx: Any,
        cosine: Tensor,
        target: Tensor,
        noise: "Tensor | _DrawnClouds",
        reach: Tensor,
        scale: float,
        scaled_margin: float,
        focal_gamma: float,
    ) -> tuple[Tensor, Tensor]:
        samples, classes = cosine.shape
        probability, loss = torch.empty_like(cosine), cosine.new_empty(samples)
        step = max(1, BLOCK // classes) if cosine.device.type == "cpu" else max(1, samples)
        for start in range(0, samples, step):
            rows = slice(start, start + step)
            given, labels = cosine[rows], target[rows, None]
            logits = clouds(noise, reach, rows).add_(given, alpha=scale)
            if scaled_margin:
                logits.scatter_add_(1, labels, logits.new_full(labels.shape, -scaled_margin))
            p = torch.softmax(logits, 1, out=probability[rows])
            # -log p_y = max z - log max p - z_y; softmax costs less than log_softmax and exp.
            loss[rows] = logits.amax(1) - p.amax(1).log_() - logits.gather(1, labels)[:, 0]
            loss[rows] += nothing_or_nan(given)
        weight = (1 - torch.exp(-loss)) ** focal_gamma if focal_gamma else None
        ctx.scale = scale
        ctx.save_for_backward(probability, target, weight)
        ctx.set_materialize_grads(False)
        return loss if weight is None else loss * weight, probability

    @staticmethod
    def backward(
        ctx: Any, of_loss: Tensor | None, of_probability: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        probability, target, weight = ctx.saved_tensors
        result = None
        if of_loss is not None:
            of_loss = ctx.scale * of_loss * (1.0 if weight is None else weight)
            result = probability * of_loss[:, None]
            result.scatter_add_(1, target[:, None], -of_loss[:, None])
        if of_probability is not None:
            mean = (of_probability * probability).sum(1, keepdim=True)
            further = ctx.scale * probability * (of_probability - mean)
            result = further if result is None else result + further
        return result, None, None, None, None, None, None
