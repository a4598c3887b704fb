"""Two numbers on validation images: found again where they are known, and against naive sums."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core.inference.calibration import expected_calibration_error, fit_calibration
from toys import seeded

COUNTS = torch.tensor([500, 120, 40, 10])
TRAINING = COUNTS.double() / COUNTS.sum()


def gaussian_classes(slope, tilt, validation, images=30_000):
    """Images of known posterior, and outputs that tell it by the slope and the tilt alone.

    x ~ N(mu_y, 1) has log p(x | y) = x . mu_y - |mu_y|^2 / 2 + a term of x, and the outputs are
    z_y = (that - (b - 1) log pi_y) / a.
    """
    generator = seeded(3)
    centres = torch.randn(len(COUNTS), 3, dtype=torch.float64, generator=generator)
    labels = torch.multinomial(validation, images, True, generator=generator)
    x = centres[labels] + torch.randn(images, 3, dtype=torch.float64, generator=generator)
    likelihood = x @ centres.T - centres.square().sum(1) / 2
    return (likelihood - (tilt - 1) * TRAINING.log()) / slope, labels


@pytest.mark.parametrize("validation", [TRAINING, torch.full((4,), 0.25), TRAINING.flip(0)])
@pytest.mark.parametrize(("slope", "tilt", "scale"), [(30.0, 1.0, 10.0), (0.5, -0.3, 1.0)])
def test_the_numbers_that_made_the_outputs_are_found(slope, tilt, scale, validation):
    """Whatever the shares of the classes among the validation images."""
    outputs, labels = gaussian_classes(slope, tilt, validation)
    fitted = fit_calibration(outputs, labels, COUNTS, scale)
    assert fitted.slope == pytest.approx(slope, rel=0.03)
    assert fitted.tilt == pytest.approx(tilt, abs=0.06)
    assert fitted.images == len(labels)
    assert fitted.ece_after < 0.01


def test_the_likelihoods_are_those_of_the_formulas():
    outputs, labels = gaussian_classes(2.0, 0.5, TRAINING, 400)
    fitted = fit_calibration(outputs, labels, COUNTS, 5.0)
    own = torch.bincount(labels, minlength=4) / len(labels)
    after = fitted.slope * outputs + (fitted.tilt - 1) * TRAINING.log() + own.log()
    for logits, nll, ece in (
        (5 * outputs, fitted.nll_before, fitted.ece_before),
        (after, fitted.nll_after, fitted.ece_after),
    ):
        p = logits.softmax(1)
        naive = sum(-math.log(p[i, y]) for i, y in enumerate(labels.tolist())) / len(labels)
        assert nll == pytest.approx(naive)
        assert ece == pytest.approx(expected_calibration_error(p, labels))


def test_what_the_images_cannot_tell_stays_finite():
    """All of them right, one class only, equal counts: no slope or tilt is the best one."""
    outputs, labels = torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)
    sure = fit_calibration(outputs, labels, torch.tensor([9, 3, 1]), 10.0)
    assert 10 <= sure.slope <= 1000
    assert sure.nll_after <= sure.nll_before
    one = fit_calibration(outputs, torch.zeros(12, dtype=torch.int64), torch.tensor([9, 3, 1]), 1.0)
    assert (one.slope, one.tilt, one.nll_after) == (1, 0, 0)
    even = fit_calibration(torch.randn(50, 3, generator=seeded()), torch.arange(50) % 3,
                           torch.tensor([4, 4, 4]), 1.0)  # fmt: skip
    assert even.tilt == pytest.approx(0)
    assert even.slope == pytest.approx(0, abs=0.3)


@given(st.integers(0, 99), st.integers(1, 40))
def test_calibration_error_against_a_naive_loop(seed, images):
    p = (3 * torch.randn(images, 3, generator=seeded(seed), dtype=torch.float64)).softmax(1)
    labels = torch.randint(3, (images,), generator=seeded(seed))
    bin_of = {}
    for row, label in zip(p.tolist(), labels.tolist(), strict=True):
        number = next(b for b in range(1, 16) if max(row) <= b / 15 or b == 15)
        bin_of.setdefault(number, []).append((max(row), row.index(max(row)) == label))
    naive = 0.0
    for members in bin_of.values():
        confidence, right = (sum(column) / len(members) for column in zip(*members, strict=True))
        naive += len(members) / images * abs(right - confidence)
    assert expected_calibration_error(p, labels) == pytest.approx(naive)
