import math

import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, stats

from gcl_core import GCLLoss
from gcl_core.analysis.saturation import (
    binary_gradient,
    cloud_quadrature,
    expected_binary_gradient,
    expected_probabilities,
    saturation,
    softmax_gradient,
)
from gcl_core.data.epoch import TrainingImages
from gcl_core.data.streams import Streams
from gcl_core.errors import GCLError
from gcl_core.methods.registry import resolve
from gcl_core.training.two_stages import run
from toys import seeded, toy_dataset

SIGMA = 1 / 3


def test_softmax_gradient_is_autograds():
    logits = torch.randn(6, 4, dtype=torch.float64, generator=seeded()).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    F.cross_entropy(logits, target, reduction="sum").backward()
    torch.testing.assert_close(softmax_gradient(logits.detach(), target), logits.grad)


def test_binary_gradient_is_eq_3_and_the_two_class_case_of_eq_2():
    difference = torch.tensor([-40.0, -1.0, 0.0, 2.0, 40.0], dtype=torch.float64)
    logits = torch.stack([difference, torch.zeros(5, dtype=torch.float64)], 1)
    expected = softmax_gradient(logits, torch.zeros(5, dtype=torch.int64))[:, 0]
    torch.testing.assert_close(binary_gradient(difference), expected, rtol=1e-12, atol=1e-16)
    assert float(binary_gradient(torch.tensor(2.0))) == pytest.approx(-1 / (1 + math.exp(2)))


@pytest.mark.parametrize("sigma", [0.01, 0.1, SIGMA, 1.0, 5.0])
def test_quadrature_has_the_moments_of_the_clamped_half_normal(sigma):
    point, weight = cloud_quadrature(sigma)
    normal = stats.norm(scale=sigma)
    for power in (0, 1, 2, 7):
        inside, _ = integrate.quad(
            lambda x, k=power: 2 * x**k * normal.pdf(x), 0, min(1, 12 * sigma)
        )
        assert float((weight * point**power).sum()) == pytest.approx(
            inside + 2 * normal.sf(1), rel=1e-8
        )


def test_quadrature_gives_the_mean_shift_of_the_facts():
    point, weight = cloud_quadrature(SIGMA)
    assert float((point * weight).sum()) == pytest.approx(0.26571, abs=1e-5)


def test_quadrature_refuses_a_negative_sigma():
    with pytest.raises(GCLError, match="sigma must be >= 0"):
        cloud_quadrature(-1)


def test_expected_binary_gradient_is_the_double_integral():
    normal = stats.norm(scale=SIGMA)

    def oracle(difference, own, other):
        edge = 2 * normal.sf(1)

        def at(x, y):
            return -1 / (1 + math.exp(difference - own * x + other * y))

        density = lambda x: 2 * normal.pdf(x)  # noqa: E731
        both, _ = integrate.dblquad(lambda y, x: at(x, y) * density(x) * density(y), 0, 1, 0, 1)
        one, _ = integrate.quad(lambda x: at(x, 1) * density(x), 0, 1)
        two, _ = integrate.quad(lambda y: at(1, y) * density(y), 0, 1)
        return both + edge * (one + two) + edge**2 * at(1, 1)

    for difference, own, other in ((0.0, 15.0, 0.0), (5.0, 15.0, 0.0), (3.0, 4.0, 9.0)):
        given = torch.tensor(difference, dtype=torch.float64)
        result = float(expected_binary_gradient(given, own, other, SIGMA))
        assert result == pytest.approx(oracle(difference, own, other), rel=1e-6)


def test_without_a_cloud_the_expected_gradient_is_the_plain_one():
    difference = torch.linspace(-3, 9, 7)
    plain = binary_gradient(difference)
    torch.testing.assert_close(expected_binary_gradient(difference, 0.0), plain)
    torch.testing.assert_close(expected_binary_gradient(difference, 15.0, sigma=0.0), plain)


def test_of_two_classes_the_expected_probabilities_are_the_binary_ones_and_no_shift_counts():
    difference = torch.linspace(-5, 25, 13, dtype=torch.float64)
    logits = torch.stack([torch.zeros_like(difference), difference], 1)
    reach = torch.tensor([7.0, 15.0])
    result = expected_probabilities(logits, reach, SIGMA)
    expected = -expected_binary_gradient(difference, 15.0, 7.0, SIGMA)
    torch.testing.assert_close(result[:, 0], expected, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(result, expected_probabilities(logits + 1000, reach, SIGMA))


def test_expected_probabilities_agree_with_simulation():
    logits = 5 * torch.randn(8, 5, dtype=torch.float64, generator=seeded(1))
    reach = torch.tensor([0.0, 2.0, 5.0, 10.0, 15.0], dtype=torch.float64)
    result = expected_probabilities(logits, reach, SIGMA)
    torch.testing.assert_close(result.sum(1), torch.ones(8).double(), rtol=0, atol=1e-7)
    eps = (torch.randn(100_000, 5, dtype=torch.float64, generator=seeded(2)) * SIGMA).clamp(-1, 1)
    for z, values in zip(logits, result, strict=True):
        drawn = (z - reach * eps.abs()).softmax(1)
        assert bool(((values - drawn.mean(0)).abs() < 5 * drawn.std(0) / 316 + 1e-9).all())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data = toy_dataset(counts=(30, 12, 5))
    changes = {"network": "digits_cnn", "epochs": 1, "stage2_epochs": 1}
    settings = resolve("folder:toy", "gcl_crt", "smoke", precision="float32", **changes)
    return run(settings, tmp_path_factory.mktemp("runs"), dataset=data, progress="none")


def test_saturation_of_a_run_is_that_of_its_clean_outputs(trained):
    data = trained.dataset
    mean = torch.tensor(data.mean).view(1, -1, 1, 1)
    std = torch.tensor(data.std).view(1, -1, 1, 1)
    with torch.no_grad():
        cosine = trained.network((data.train.images.pixels / 255 - mean) / std)
    # Scale 20 is that of stage 2.
    expected = 1 - (20 * cosine).softmax(1).gather(1, data.train.labels[:, None])[:, 0]
    result = saturation(trained, threshold=0.5)
    torch.testing.assert_close(result.gradient.float(), expected, rtol=1e-3, atol=1e-5)
    for j in range(3):
        members = expected[data.train.labels == j]
        assert float(result.mean[j]) == pytest.approx(float(members.mean()), abs=1e-4)
        assert float(result.active[j]) == pytest.approx(float((members > 0.5).float().mean()))
        part = float(members.sum() / expected.sum())
        assert float(result.share[j]) == pytest.approx(part, rel=1e-3)


def test_saturation_as_trained_is_autograds_over_a_mixed_epoch(trained):
    stage, labels, cpu = trained.settings.stage1, trained.dataset.train.labels, torch.device("cpu")
    streams = Streams.seeded(trained.settings.seed, 1, 0, cpu)
    sampler = stage.sampler.build(labels, streams.order)
    batches = TrainingImages(
        *(trained.dataset, sampler, stage.batch_size, streams, cpu), mixup_alpha=stage.mixup_alpha
    )
    lifted, lowered, weight = torch.zeros(3).double(), torch.zeros(3).double(), torch.zeros(3)
    by_image = []
    for batch in batches:
        with torch.no_grad():  # scale 20 is that of stage 2
            logits = 20 * trained.network(batch.inputs).double()
        logits.requires_grad_()
        batch.loss(torch.nn.CrossEntropyLoss(reduction="sum"), logits).backward()
        by_image.append(logits.grad.abs().sum(1) / 2)
        lifted += (-logits.grad).clamp_min(0).sum(0)
        lowered += logits.grad.clamp_min(0).sum(0)
        weight += torch.bincount(batch.target, minlength=3) * batch.share
        weight += torch.bincount(batch.partner, minlength=3) * (1 - batch.share)
    result = saturation(trained, as_trained=True)
    torch.testing.assert_close(result.lifted, lifted, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(result.lowered, lowered, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(result.mean, lifted / weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(result.gradient, torch.cat(by_image), rtol=1e-5, atol=1e-7)
    images = saturation(trained)
    torch.testing.assert_close(images.lifted.sum(), images.lowered.sum())
    assert not torch.allclose(images.mean, result.mean, rtol=0.01)


def test_saturation_with_the_cloud_is_the_mean_over_what_the_loss_draws(trained):
    data, draws = trained.dataset, 4000
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (data.mean, data.std))
    # The published values of stage 2.
    options = {"scale": 20.0, "noise_multiplier": 0.5, "margin": 0.1, "reduction": "none"}
    criterion = GCLLoss(data.class_counts, generator=seeded(3), **options)
    with torch.no_grad():
        cosine = trained.network((data.train.images.pixels / 255 - mean) / std).double()
        drawn = torch.stack(
            [1 - torch.exp(-criterion(cosine, data.train.labels)) for _ in range(draws)]
        )
    error = 5 * drawn.std(0) / draws**0.5 + 1e-4
    result = saturation(trained, cloud=True).gradient
    assert bool(((result - drawn.mean(0)).abs() < error).all())


def test_saturation_with_the_cloud_uses_the_objectives_margin_and_clouds(trained):
    clouded, clean = saturation(trained, cloud=True), saturation(trained)
    labels = trained.dataset.train.labels
    # The target's margin of 0.1 and the wide cloud of the tail leave the tail more gradient.
    assert bool((clouded.gradient > clean.gradient)[labels == 2].all())
    # A head image has no cloud of its own, only the margin: bounded by the margin alone.
    head = labels == 0
    odds = clean.gradient / (1 - clean.gradient) * math.exp(20 * 0.1)
    assert bool((clouded.gradient < odds / (1 + odds))[head].all())
