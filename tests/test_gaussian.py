import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from gcl_core import GCLLoss, cloud_sizes, long_tailed_counts
from gcl_core.analysis import gaussian
from gcl_core.analysis.saturation import cloud_quadrature, expected_probabilities
from gcl_core.errors import GCLError
from gcl_core.figures.cloud import jensen_gap
from gcl_core.losses.priors import LogitAdjustedLoss, logit_adjustment
from toys import seeded

SIGMA = 1 / 3


def test_clouded_cosines_are_eq_6_and_7():
    feature = torch.randn(5, dtype=torch.float64, generator=seeded(1))
    anchors = torch.randn(3, 5, dtype=torch.float64, generator=seeded(2))
    noise = torch.randn(4, 5, dtype=torch.float64, generator=seeded(3))
    exact, linear = gaussian.clouded_cosines(feature, anchors, noise, 0.7)
    # In the paper's own units: delta = 0.7 |f|.
    moved = feature + 0.7 * feature.norm() * noise
    for i in range(4):
        for j in range(3):
            cosine = F.cosine_similarity(moved[i], anchors[j], dim=0)
            assert float(exact[i, j]) == pytest.approx(float(cosine))
            clean = F.cosine_similarity(feature, anchors[j], dim=0)
            projected = 0.7 * (anchors[j] / anchors[j].norm()) @ noise[i]
            assert float(linear[i, j]) == pytest.approx(float(clean + projected))


def test_without_noise_both_cosines_are_the_clean_one():
    feature, anchors = torch.tensor([3.0, 4.0]), torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    for cosines in gaussian.clouded_cosines(feature, anchors, torch.ones(1, 2), 0.0):
        torch.testing.assert_close(cosines, torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize(("size", "dimension"), [(0.0, 64), (0.1, 64), (1.0, 2), (1.0, 512)])
def test_the_length_grows_as_stated(size, dimension):
    noise = SIGMA * torch.randn(4000, dimension, generator=seeded())
    unit = torch.zeros(dimension)
    unit[0] = 1
    length = (unit + size * noise).square().sum(1).mean().sqrt()
    assert float(length) == pytest.approx(gaussian.norm_growth(size, dimension), rel=0.02)


def test_projections_of_the_same_noise_are_correlated_like_their_anchors():
    anchors = F.normalize(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    noise = torch.randn(50_000, 3, generator=seeded())
    assert float(torch.corrcoef((noise @ anchors.T).T)[0, 1]) == pytest.approx(0.5**0.5, abs=0.01)


def test_true_statements_pass_and_false_ones_fail_each_test():
    sample = 2 + 3 * torch.randn(20_000, generator=seeded())
    right = gaussian.gaussian_test(sample, 2, 3)
    assert min(right.mean, right.variance, right.shape) > 0.01
    assert gaussian.gaussian_test(sample, 2.1, 3).mean < 1e-3
    for wrong in (2.9, 3.1):
        assert gaussian.gaussian_test(sample, 2, wrong).variance < 1e-3
    uniform = 2 + 3 * (12**0.5) * (torch.rand(20_000, generator=seeded()) - 0.5)
    same_moments = gaussian.gaussian_test(uniform, float(uniform.mean()), float(uniform.std()))
    assert same_moments.shape < 1e-6 < 0.5 < same_moments.mean


def test_p_values_of_true_statements_are_evenly_spread():
    generator = seeded()
    tests = [gaussian.gaussian_test(torch.randn(50, generator=generator), 0, 1) for _ in range(400)]
    for key in ("mean", "variance", "shape"):
        values = [getattr(test, key) for test in tests]
        assert stats.kstest(values, "uniform").pvalue > 0.001, key


@given(st.floats(0.02, 20))
def test_moments_are_those_of_the_quadrature(sigma):
    point, weight = cloud_quadrature(sigma)
    mean = float((point * weight).sum())
    deviation = math.sqrt(max(0.0, float(((point - mean) ** 2 * weight).sum())))
    assert gaussian.cloud_moments(sigma) == pytest.approx((mean, deviation), rel=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 1 / 3, 1.0, 4.0])
def test_the_mean_is_the_integral(sigma):
    grid = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    density = torch.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
    expected = torch.trapezoid((sigma * grid).clamp(-1, 1).abs() * density, grid)
    assert gaussian.cloud_moments(sigma)[0] == pytest.approx(float(expected), abs=1e-8)


def test_moments_at_the_papers_sigma_and_in_the_limits():
    assert gaussian.cloud_moments()[0] == pytest.approx(0.26571, abs=1e-5)
    mean, deviation = gaussian.cloud_moments(1e-3)
    assert mean == pytest.approx(1e-3 * math.sqrt(2 / math.pi))
    assert deviation == pytest.approx(1e-3 * math.sqrt(1 - 2 / math.pi))
    assert gaussian.cloud_moments(1e6)[0] == pytest.approx(1, abs=1e-5)  # all of it is clamped
    with pytest.raises(GCLError, match="sigma must be > 0"):
        gaussian.cloud_moments(0.0)


@pytest.mark.parametrize(
    ("n_max", "classes", "ratio", "scale", "tau"),
    [  # derived from the published settings
        (5000, 10, 50, 30, 1.019),
        (5000, 10, 100, 30, 0.865),
        (5000, 10, 200, 30, 0.752),
        (5000, 10, 100, 20, 0.577),
        (500, 100, 200, 30, 0.722),  # 500 to 2 images: after rounding down the ratio is 250
    ],
)
def test_matched_tau_of_the_published_settings(n_max, classes, ratio, scale, tau):
    result = gaussian.matched_tau(long_tailed_counts(n_max, classes, ratio), scale)
    assert round(result, 3) == tau


@given(
    st.lists(st.integers(1, 5000), min_size=2, max_size=6).filter(lambda n: len(set(n)) > 1),
    st.floats(1, 40),
    st.floats(0, 2),
)
def test_gcl_at_the_mean_cloud_is_logit_adjustment(counts, scale, multiplier):
    cosine = 2 * torch.rand(8, len(counts), dtype=torch.float64, generator=seeded()) - 1
    target = torch.arange(8) % len(counts)
    noise = torch.full_like(cosine, gaussian.cloud_moments()[0])
    gcl = GCLLoss(counts, scale=scale, noise_multiplier=multiplier, reduction="none")
    tau = gaussian.matched_tau(counts, scale, multiplier)
    adjusted = LogitAdjustedLoss(counts, tau=tau, scale=scale, reduction="none")
    expected = adjusted(cosine, target)
    torch.testing.assert_close(gcl(cosine, target, noise), expected, rtol=1e-5, atol=1e-5)


@given(
    st.lists(st.integers(1, 10**6), min_size=2, max_size=30).filter(lambda n: len(set(n)) > 1),
    st.floats(1, 60),
    st.floats(0.1, 2),
)
def test_at_the_matched_tau_logit_adjustment_is_the_mean_cloud(counts, scale, multiplier):
    shift = logit_adjustment(counts, gaussian.matched_tau(counts, scale, multiplier))
    mean = -scale * multiplier * gaussian.cloud_moments()[0] * cloud_sizes(counts)
    assert torch.allclose(shift - shift.max(), mean, atol=1e-9)


def test_equal_classes_have_no_tau():
    with pytest.raises(GCLError, match="equal size"):
        gaussian.matched_tau([7, 7])


def test_expected_loss_is_the_integral():
    normal = stats.norm(scale=SIGMA)

    def at(d, reach, x):
        return math.log1p(math.exp(-(d - reach * x)))

    for d, reach in ((0.0, 15.0), (5.0, 15.0), (-3.0, 4.0), (2.0, 0.0)):
        inside, _ = integrate.quad(
            lambda x, d=d, reach=reach: 2 * normal.pdf(x) * at(d, reach, x), 0, 1
        )
        result = gaussian.expected_binary_loss(torch.tensor(d).double(), reach, SIGMA)
        assert float(result) == pytest.approx(inside + 2 * normal.sf(1) * at(d, reach, 1), rel=1e-6)


@given(st.floats(-10, 20), st.floats(0, 30), st.floats(0.05, 1))
def test_the_mean_loss_is_above_the_loss_at_the_mean(d, reach, sigma):
    difference = torch.tensor(d, dtype=torch.float64)
    mean = gaussian.expected_binary_loss(difference, reach, sigma)
    held = F.softplus(reach * gaussian.cloud_moments(sigma)[0] - difference)
    assert float(mean) >= float(held) - 1e-9


def test_the_signed_gradient_is_the_mean_over_signed_noise():
    eps = (SIGMA * torch.randn(400_000, dtype=torch.float64, generator=seeded())).clamp(-1, 1)
    for d, reach in ((0.0, 15.0), (5.0, 15.0), (-2.0, 6.0)):
        drawn = -torch.sigmoid(-(d + reach * eps))
        result = gaussian.signed_binary_gradient(torch.tensor(d).double(), reach, SIGMA)
        assert float(result) == pytest.approx(float(drawn.mean()), abs=5 * float(drawn.std()) / 632)


def test_sampled_gradients_are_one_minus_p_of_clouded_logits():
    logits = 3 * torch.randn(5, 4, dtype=torch.float64, generator=seeded(1))
    target, reach = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([0.0, 1.0, 4.0, 8.0])
    drawn = gaussian.sampled_gradients(logits, target, reach, 2, seeded(5), 0.8)
    generator = seeded(5)
    for row in drawn:
        noise = 0.8 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
        for i in range(5):
            z = [float(logits[i, j] - reach[j] * min(abs(noise[i, j]), 1)) for j in range(4)]
            share = math.exp(z[target[i]]) / sum(map(math.exp, z))
            assert float(row[i]) == pytest.approx(1 - share)


def test_sampled_gradients_have_the_mean_of_the_quadrature():
    logits = 3 * torch.randn(6, 4, dtype=torch.float64, generator=seeded(1))
    target, reach = torch.arange(6) % 4, torch.tensor([0.0, 5.0, 10.0, 15.0]).double()
    drawn = gaussian.sampled_gradients(logits, target, reach, 20_000, seeded(2))
    expected = 1 - expected_probabilities(logits, reach).gather(1, target[:, None])[:, 0]
    error = (drawn.mean(0) - expected).abs() / (drawn.std(0) / 20_000**0.5 + 1e-12)
    assert float(error.max()) < 5


def test_the_cloud_that_is_held_is_held_at_its_mean():
    loss, gradient = jensen_gap(15.0, SIGMA).axes
    held = torch.linspace(-5, 20, 251, dtype=torch.float64) - 15 * 0.26571
    ours = [torch.from_numpy(axes.lines[1].get_ydata()) for axes in (loss, gradient)]
    torch.testing.assert_close(ours[0], F.softplus(-held), rtol=0, atol=1e-3)
    torch.testing.assert_close(ours[1], torch.sigmoid(-held), rtol=0, atol=1e-3)
