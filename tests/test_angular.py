"""AngularGCLLoss against a loop over angles, its limits, and its gradient at theta = 0 and pi."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import GCLError, GCLLoss, cloud_sizes
from gcl_core.losses.angular import AngularGCLLoss
from losses import COUNTS, cosine_batch, is_close, softmax
from toys import seeded

SETTINGS = [
    {},
    {"easy_margin": False},
    {"scale": 7.0, "noise_multiplier": 1.0, "margin": 0.1},
    {"noise_multiplier": 1.5, "margin": 0.3, "easy_margin": False},
    {"margin": -0.2, "focal_gamma": 1.0},
    {"strategy": "power", "exponent": 0.25, "focal_gamma": 0.5, "easy_margin": False},
]


def loop(cosine, target, noise, settings):
    """Losses from angles, entry by entry; a target of -1 has no margin. Also the logits."""
    scale = settings.get("scale", 30.0)
    sizes = cloud_sizes(COUNTS, settings.get("strategy", "log"), settings.get("exponent")).tolist()
    logits, losses = [], []
    for i, y in enumerate(target.tolist()):
        row = []
        for j, size in enumerate(sizes):
            eps = abs(min(1.0, max(-1.0, float(noise[i, j]))))
            angle = math.pi / 2 * settings.get("noise_multiplier", 0.5) * size * eps
            angle += settings.get("margin", 0.0) * (j == y)
            theta = math.acos(cosine[i, j])
            if settings.get("easy_margin", True):
                wide = math.cos(theta + angle) if theta < math.pi / 2 else math.cos(theta)
            elif theta + angle < math.pi:
                wide = math.cos(theta + angle)
            else:
                wide = math.cos(theta) - math.sin(angle)
            row.append(scale * wide)
        logits.append(row)
        p = softmax(row)[y]
        losses.append((1 - p) ** settings.get("focal_gamma", 0.0) * -math.log(p))
    return logits, losses


@pytest.mark.parametrize("settings", SETTINGS)
def test_logits_and_losses_against_a_loop(settings):
    cosine, target, noise = cosine_batch(200)
    criterion = AngularGCLLoss(COUNTS, reduction="none", **settings)
    is_close(criterion(cosine, target, noise), loop(cosine, target, noise, settings)[1], 1e-5)
    logits = loop(cosine, torch.full_like(target, -1), noise, settings)[0]
    is_close(criterion.logits(cosine, noise), logits, 1e-5)


@pytest.mark.parametrize("easy_margin", [True, False])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_gradient(easy_margin, margin):
    # The focal factor is not differentiated, so finite differences only agree without it.
    cosine, target, noise = cosine_batch(12)
    criterion = AngularGCLLoss(
        COUNTS, scale=5.0, margin=margin, easy_margin=easy_margin, reduction="none"
    )
    assert torch.autograd.gradcheck(
        lambda c: criterion(c, target, noise), cosine.requires_grad_(), rtol=1e-4
    )


@pytest.mark.parametrize("easy_margin", [True, False])
def test_head_is_never_perturbed_and_the_others_never_raised(easy_margin):
    cosine = cosine_batch(500, dtype=torch.float32)[0]
    criterion = AngularGCLLoss(COUNTS, easy_margin=easy_margin, generator=seeded())
    logits = criterion.logits(cosine)
    assert torch.equal(logits[:, 0], 30 * cosine[:, 0])
    assert (logits <= 30 * cosine).all()
    lowered = (logits < 30 * cosine)[:, 1:]
    assert torch.equal(lowered, (cosine > 0)[:, 1:] if easy_margin else torch.ones_like(lowered))


def test_small_clouds_are_the_derivative_of_the_cosine():
    """cos(theta + m) is about cos theta - m sin theta, the cosine form with a width of its own."""
    cosine, _, noise = cosine_batch()
    cosine = cosine.abs()
    angular = AngularGCLLoss(COUNTS, noise_multiplier=1e-4).logits(cosine, noise)
    plain = GCLLoss(COUNTS, noise_multiplier=1e-4).logits(cosine, noise)
    lowered = (30 * cosine - plain) * math.pi / 2 * (1 - cosine**2).sqrt()
    is_close(angular, 30 * cosine - lowered)


@given(
    st.sampled_from([-1.0, 1.0, 1 - 2**-24, 2**-24 - 1, 1 + 2**-22]),
    st.booleans(),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.5]),
)
def test_gradient_is_finite_at_and_beyond_the_ends(end, easy_margin, size, margin):
    cosine = torch.full((2, 4), end, requires_grad=True)
    criterion = AngularGCLLoss(COUNTS, easy_margin=easy_margin, margin=margin)
    loss = criterion(cosine, torch.tensor([0, 3]), torch.full((2, 4), size))
    loss.backward()
    assert loss.isfinite()
    assert cosine.grad.isfinite().all()
    assert cosine.grad.abs().max() < 30 * 1000


@pytest.mark.parametrize("easy_margin", [True, False])
def test_the_smallest_sine_changes_logits_by_a_thousandth_of_the_scale_at_most(easy_margin):
    theta = torch.cat([torch.linspace(0, 0.002, 201), math.pi - torch.linspace(0, 0.002, 201)])
    cosine, noise = theta.double().cos()[:, None].expand(-1, 4), torch.ones(402, 4)
    settings = {"noise_multiplier": 1.0, "easy_margin": easy_margin}
    expected = torch.tensor(loop(cosine, torch.full((402,), -1), noise, settings)[0])
    error = (AngularGCLLoss(COUNTS, **settings).logits(cosine, noise) - expected).abs()
    assert error.max() < 30 * 0.001 + 1e-9
    assert error[(theta > 0.0011) & (theta < math.pi - 0.0011)].max() < 1e-5


def test_widths_of_drawn_clouds():
    """At theta = pi/2 - small, cos(theta + m) is -sin m: the mean of m is pi/2 k 0.26571 delta."""
    cosine = torch.full((50_000, 4), 1e-7, dtype=torch.float64)
    logits = AngularGCLLoss(COUNTS, scale=1.0, generator=seeded()).logits(cosine)
    widths = (-logits).clamp(0).asin().mean(0)
    expected = math.pi / 2 * 0.5 * 0.26571 * cloud_sizes(COUNTS)
    torch.testing.assert_close(widths, expected, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("easy_margin", [True, False])
def test_a_cloud_lowers_an_output_beyond_one(easy_margin):
    """It goes on from c = 1, has a gradient, and is refused unless it is asked for."""
    outputs = torch.tensor([[1.5] * 4, [1.0] * 4], requires_grad=True)
    noise = torch.full((2, 4), 0.8)
    options = {"scale": 1.0, "easy_margin": easy_margin}
    logits = AngularGCLLoss(COUNTS, check_range=False, **options).logits(outputs, noise)
    angles = math.pi / 2 * 0.5 * cloud_sizes(COUNTS).float() * 0.8
    torch.testing.assert_close(
        logits, outputs.detach() * angles.cos() - 0.001 * angles.sin(), rtol=1e-6, atol=1e-6
    )
    logits.sum().backward()
    torch.testing.assert_close(outputs.grad, angles.cos().expand(2, 4))
    with pytest.raises(GCLError, match="cosine must be in"):
        AngularGCLLoss(COUNTS, **options).logits(outputs, noise)
