"""Probabilities that mean something: two numbers fitted on validation images, and other priors."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Where validation images cannot tell, as when all of them are right, the fit ends at these.
SLOPES = (0.01, 100.0)  # a, as a factor of the scale of training
TILTS = (-10.0, 10.0)  # b
BINS = 15  # of equal width, of confidence: Guo et al. 2017


@dataclass(frozen=True)
class Calibration:
    """Temperature and prior tilt of outputs z, for images distributed as in training.

    p(y | x) = softmax_y(a z_y + b log pi_y),  pi the shares of the training images

    a is the inverse temperature of Guo et al. 2017 ("On Calibration of Modern Neural Networks").
    b log pi is the logit adjustment of Menon et al. 2021, with a factor that is fitted: a loss that
    favours the tail gives outputs for balanced classes, and b brings the head's share back.

    Attributes:
        slope, tilt: a and b.
        images: validation images that they are fitted on.
        nll_before, nll_after: their mean negative log-likelihood, in nats, of softmax(scale * z)
            and of the calibrated probabilities.
        ece_before, ece_after: the same of `expected_calibration_error`.
    """

    slope: float
    tilt: float
    images: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


def shares(counts: Tensor) -> Tensor:
    """Counts, or weights, of the classes as shares that add up to 1, in float64."""
    return counts.double() / counts.sum()


def offsets(tilt: float, training: Tensor, prior: Tensor) -> Tensor:
    """What a z needs for images of which class y has the share q_y: b log pi_y + log(q_y / pi_y).

    Shape:
        training: pi (C,), all > 0; prior: q (C,); returns (C,), -inf for a class without images.
    """
    return (tilt - 1) * training.log() + prior.log()


def fit_calibration(
    outputs: Tensor, labels: Tensor, class_counts: Tensor, scale: float
) -> Calibration:
    """The a and b of the least negative log-likelihood of validation images.

    Validation images may have other shares v of the classes than the training images: what is
    fitted is their own likelihood, softmax(a z + b log pi + log(v / pi)). It is convex in (a, b).

    Args:
        outputs: z of the validation images (N, C); labels (N,).
        class_counts: (C,) training images of each class, all positive.
        scale: factor of the outputs in the training loss; the fit starts there, with b = 0.
    """
    import scipy.optimize  # it takes long to load, and predictions do not need it

    logits, training = scale * outputs.double(), shares(class_counts)
    log_prior = training.log()
    own = shares(torch.bincount(labels, minlength=logits.shape[1]))
    right = torch.arange(len(labels)), labels

    def log_likelihoods(slope: float, tilt: float) -> Tensor:
        return F.log_softmax(slope * logits + offsets(tilt, training, own), dim=1)

    def loss(values: np.ndarray) -> tuple[float, list[float]]:
        found = log_likelihoods(*values.tolist())
        surplus = found.exp()
        surplus[right] -= 1
        slope = float((surplus * logits).sum()) / len(labels)
        return -float(found[right].mean()), [slope, float((surplus @ log_prior).mean())]

    fitted = scipy.optimize.minimize(
        loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[SLOPES, TILTS]
    )
    slope, tilt = (float(number) for number in fitted.x)
    before, after = logits.log_softmax(1), log_likelihoods(slope, tilt)
    return Calibration(
        scale * slope,
        tilt,
        len(labels),
        *(-float(each[right].mean()) for each in (before, after)),
        *(expected_calibration_error(each.exp(), labels) for each in (before, after)),
    )


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """sum_b (n_b / N) |accuracy_b - confidence_b| over `BINS` of the largest probability.

    Naeini et al. 2015.

    Shape:
        probabilities: (N, C); labels: (N,).
    """
    confidence, guesses = probabilities.double().max(1)
    surplus = (guesses == labels).double() - confidence
    bin_of = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    sums = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bin_of, surplus)
    return float(sums.abs().sum()) / len(labels)
