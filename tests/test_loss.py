"""GCLLoss against a loop in float64, its limits and symmetries, its contract and its refusals."""

import doctest
import functools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from gcl_core import (
    ClassBalancedSampler,
    CosineClassifier,
    GCLError,
    GCLLoss,
    cloud_sizes,
    long_tailed_counts,
)
from gcl_core.losses import gcl
from gcl_core.losses.angular import AngularGCLLoss
from losses import COUNTS
from losses import cosine_batch as example
from toys import seeded

CLOUDED = [GCLLoss, AngularGCLLoss, functools.partial(AngularGCLLoss, easy_margin=False)]
clouded = pytest.mark.parametrize("loss", CLOUDED, ids=["cosine", "angle, easy", "angle"])

SETTINGS = [
    {},
    {"scale": 7.0, "noise_multiplier": 1.0},
    {"margin": 0.1},
    {"focal_gamma": 1.0},
    {"scale": 20.0, "margin": 0.1, "focal_gamma": 1.0},
    {"strategy": "power", "exponent": 0.25, "focal_gamma": 0.5},
    {"strategy": "cosine", "margin": -0.2},
]


def loop(cosine, target, noise, counts, **settings):
    """Eq. 11 and 12 with margin and focal factor, entry by entry: logits and losses, in float64."""
    scale = settings.get("scale", 30.0)
    multiplier = settings.get("noise_multiplier", 0.5)
    sizes = cloud_sizes(counts, settings.get("strategy", "log"), settings.get("exponent"))
    logits, losses = [], []
    for i, y in enumerate(target.tolist()):
        row = []
        for j, size in enumerate(sizes.float().tolist()):  # the buffer is float32
            cloud = multiplier * size * abs(min(1.0, max(-1.0, float(noise[i, j]))))
            row.append(scale * (float(cosine[i, j]) - cloud))
        logits.append(list(row))
        row[y] -= scale * settings.get("margin", 0.0)
        most = max(row)
        p = [math.exp(z - most) for z in row]
        p = p[y] / sum(p)
        losses.append((1 - p) ** settings.get("focal_gamma", 0.0) * -math.log(p))
    return torch.tensor(logits, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_logits_and_losses_against_a_loop(settings, dtype, tolerance):
    cosine, target, noise = example(40, dtype=dtype)
    criterion = GCLLoss(COUNTS, reduction="none", **settings)
    logits, losses = loop(cosine, target, noise, COUNTS, **settings)
    result = criterion.logits(cosine, noise)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), logits, rtol=0, atol=tolerance)
    result = criterion(cosine, target, noise)
    assert (result.dtype, result.shape) == (dtype, (40,))
    torch.testing.assert_close(result.double(), losses, rtol=tolerance, atol=tolerance)


@given(
    st.lists(st.integers(1, 5000), min_size=2, max_size=9),
    st.integers(1, 12),
    st.integers(0, 10**6),
    st.sampled_from(SETTINGS),
)
def test_any_counts_and_cosines_against_a_loop(counts, samples, seed, settings):
    cosine, target, noise = example(samples, len(counts), seed)
    criterion = GCLLoss(counts, reduction="none", **settings).double()
    expected = loop(cosine, target, noise, counts, **settings)[1]
    torch.testing.assert_close(criterion(cosine, target, noise), expected, rtol=1e-12, atol=1e-12)


def test_more_values_than_one_block(monkeypatch):
    monkeypatch.setattr(gcl, "BLOCK", 4 * 7)  # of 7 rows, and a rest
    cosine, target, noise = example()
    expected = loop(cosine, target, noise, COUNTS, margin=0.1)[1]
    result = GCLLoss(COUNTS, margin=0.1, reduction="none").double()(cosine, target, noise)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


def test_the_example_of_the_docstring_is_true():
    known = {"torch": torch, "GCLLoss": GCLLoss}
    example = doctest.DocTestParser().get_doctest(GCLLoss.__doc__, known, "GCLLoss", None, None)
    assert doctest.DocTestRunner().run(example) == (0, 4)


def test_clouds_drawn_block_by_block_are_those_of_the_logits():
    counts, generator = long_tailed_counts(5000, 3000, 50), seeded(4)
    cosine, target, _ = example(300, 3000)  # four blocks
    criterion = GCLLoss(counts, generator=generator, reduction="none")
    loss = criterion(cosine, target)
    generator.manual_seed(4)
    logits = criterion.logits(cosine)
    assert len(logits.sub(30 * cosine).unique(dim=0)) == 300  # every sample has its own
    expected = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_derivatives_are_those_of_the_plain_composition(settings, reduction):
    """The first, and the second: that of a gradient penalty, through which MAML goes as well."""
    cosine, target, noise = example(9)
    criterion = GCLLoss(COUNTS, reduction=reduction, **settings).double()
    ours, plain = (cosine.clone().requires_grad_() for _ in range(2))
    weights = torch.linspace(0.5, 2, 9, dtype=torch.float64)  # unequal upstream gradients
    loss = criterion(ours, target, noise)
    own = (loss * weights if reduction == "none" else loss).sum()

    logits = criterion.logits(plain, noise)
    shift = criterion.scale * criterion.margin * F.one_hot(target, 4)
    losses = F.cross_entropy(logits - shift, target, reduction="none")
    losses = losses * (1 - torch.exp(-losses.detach())) ** criterion.focal_gamma
    whole = {"mean": losses.mean(), "sum": losses.sum(), "none": (losses * weights).sum()}[
        reduction
    ]
    expected = losses if reduction == "none" else whole
    torch.testing.assert_close(loss.detach(), expected.detach())
    derivatives = []
    for value, source in ((own, ours), (whole, plain)):
        (first,) = torch.autograd.grad(value, source, create_graph=True)
        (value + first.square().sum()).backward()
        derivatives.append((first.detach(), source.grad))
    torch.testing.assert_close(*derivatives)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_gradcheck(reduction, margin):
    # The focal factor is not differentiated, so finite differences only agree without it.
    cosine, target, noise = example(3)
    criterion = GCLLoss(COUNTS, scale=5.0, margin=margin, reduction=reduction).double()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda c: criterion(c, target, noise), cosine.requires_grad_(), rtol=1e-3)


def test_gradient_reaches_a_classifier():
    features = torch.randn(8, 5, generator=seeded())
    head = CosineClassifier(5, 4)
    GCLLoss(COUNTS)(head(features), torch.arange(8) % 4).backward()
    assert head.weight.grad.abs().sum() > 0
    assert head.weight.grad.isfinite().all()


@clouded
def test_focal_factor_is_not_differentiated(loss):
    cosine, target, noise = example(1)
    plain, focal = (loss(COUNTS, focal_gamma=g).double() for g in (0.0, 2.0))
    gradients = [
        torch.autograd.grad(c(x := cosine.clone().requires_grad_(), target, noise), x)[0]
        for c in (plain, focal)
    ]
    p = torch.exp(-plain(cosine, target, noise))
    torch.testing.assert_close(gradients[1], (1 - p) ** 2 * gradients[0])


@clouded
def test_without_noise_it_is_cross_entropy_of_scaled_cosines(loss):
    cosine, target, noise = example(dtype=torch.float32)
    plain = F.cross_entropy(30 * cosine, target)
    torch.testing.assert_close(loss(COUNTS)(cosine, target, torch.zeros_like(noise)), plain)
    torch.testing.assert_close(loss(COUNTS, noise_multiplier=0.0)(cosine, target), plain)
    torch.testing.assert_close(loss(COUNTS, sigma=0.0)(cosine, target), plain)
    torch.testing.assert_close(loss([9] * 4)(cosine, target), plain)  # equal counts: no cloud
    assert torch.equal(loss(COUNTS, sigma=0.0).logits(cosine), 30 * cosine)
    assert loss(COUNTS)(cosine, target) != plain


@given(st.permutations(range(4)), st.integers(0, 1000))
def test_permuted_classes_give_the_same_loss(order, seed):
    cosine, target, noise = example(7, seed=seed)
    permuted = torch.tensor([order.index(y) for y in target.tolist()])
    settings = {"margin": 0.1, "focal_gamma": 1.0, "reduction": "none"}
    before = GCLLoss(COUNTS, **settings).double()(cosine, target, noise)
    after = GCLLoss([COUNTS[j] for j in order], **settings).double()(
        cosine[:, order], permuted, noise[:, order]
    )
    torch.testing.assert_close(before, after)


@clouded
def test_sign_of_the_noise_does_not_matter_and_its_size_is_clamped(loss):
    cosine, target, noise = example()
    criterion = loss(COUNTS)
    assert torch.equal(criterion(cosine, target, noise), criterion(cosine, target, -noise))
    full = criterion.logits(cosine, torch.full_like(noise, 1.0))
    assert torch.equal(criterion.logits(cosine, torch.full_like(noise, 99.0)), full)
    if loss is GCLLoss:
        expected = 30 * (cosine - 0.5 * cloud_sizes(COUNTS))
        torch.testing.assert_close(full, expected, rtol=0, atol=1e-5)


def test_head_logit_has_no_cloud():
    cosine = example()[0].float()
    logits = GCLLoss(COUNTS).logits(cosine)
    assert torch.equal(logits[:, 0], 30 * cosine[:, 0])
    assert (logits[:, 1:] < 30 * cosine[:, 1:]).all()


def drawn_clouds(dtype, samples=200_000, **settings):
    """|eps| clamped, as drawn for the rarest of two classes, recovered from the logits."""
    criterion = GCLLoss([10, 1], scale=1.0, noise_multiplier=1.0, generator=seeded(3), **settings)
    return -criterion.logits(torch.zeros(samples, 2, dtype=dtype))[:, 1].double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drawn_noise_has_the_right_distribution(dtype):
    clouds = drawn_clouds(dtype)
    # 200,000 draws: standard errors 0.00045 and 0.0003 of mean and deviation, 0.0011 of a share.
    assert float(clouds.mean()) == pytest.approx(0.26571, abs=0.002)
    assert float(clouds.std()) == pytest.approx(0.1997, abs=0.0015)
    assert float((clouds == 1).double().mean()) == pytest.approx(0.0027, abs=0.0005)
    assert float(clouds.max()) <= 1
    for quantile in (0.05, 0.2, 0.5, 0.8, 0.95, 0.99):
        expected = math.erf(quantile / (math.sqrt(2) / 3))
        share = float((clouds < quantile).double().mean())
        assert share == pytest.approx(expected, abs=0.005)
    wider = drawn_clouds(dtype, sigma=0.1)
    assert float(wider.mean()) == pytest.approx(0.1 * math.sqrt(2 / math.pi), abs=0.001)


def test_noise_is_independent_over_samples_and_classes():
    criterion = GCLLoss([10, 1, 1, 1], scale=1.0, generator=seeded())
    clouds = criterion.logits(torch.zeros(50_000, 4))[:, 1:]
    correlation = torch.corrcoef(torch.cat([clouds[:-1].T, clouds[1:].T])) - torch.eye(6)
    assert correlation.abs().max() < 0.025
    assert not torch.equal(criterion.logits(torch.zeros(3, 4)), criterion.logits(torch.zeros(3, 4)))


@pytest.mark.parametrize(
    ("scale", "multiplier", "n_max", "classes", "ratio", "reduction", "tau"),
    [
        (30, 0.5, 5000, 10, 50, 3.986, 1.02),
        (30, 0.5, 5000, 10, 100, 3.986, 0.865),
        (30, 0.5, 5000, 10, 200, 3.986, 0.752),
        (30, 0.5, 500, 100, 200, 3.986, 0.722),
        (20, 0.5, 5000, 10, 100, 2.657, 0.577),
    ],
)
def test_expected_logits_are_a_logit_adjustment(
    scale, multiplier, n_max, classes, ratio, reduction, tau
):
    counts = torch.tensor(long_tailed_counts(n_max, classes, ratio)).double()
    criterion = GCLLoss(counts, scale=scale, noise_multiplier=multiplier, generator=seeded())
    zeros = torch.zeros(40_000, classes, dtype=torch.float64)
    lowered = -criterion.logits(zeros).mean(0)
    assert float(lowered[-1]) == pytest.approx(reduction, rel=0.02)
    fitted = lowered[1:] / torch.log(counts[0] / counts[1:])
    torch.testing.assert_close(fitted, torch.full_like(fitted, tau), rtol=0.03, atol=0)


@clouded
def test_a_generator_decides_the_noise(loss):
    cosine, target, _ = example(50, dtype=torch.float32)
    generator = seeded(4)
    criterion = loss(COUNTS, generator=generator)
    first, second = criterion(cosine, target), criterion(cosine, target)
    assert first != second
    generator.manual_seed(4)
    assert [criterion(cosine, target), criterion(cosine, target)] == [first, second]
    torch.manual_seed(5)
    first = loss(COUNTS)(cosine, target)
    torch.manual_seed(5)
    assert loss(COUNTS)(cosine, target) == first
    assert criterion(cosine, target) != first


@clouded
def test_evaluation_is_clean_and_draws_nothing(loss):
    cosine, target, noise = example(20, dtype=torch.float32)
    generator = seeded()
    before = generator.get_state()
    criterion = loss(COUNTS, margin=0.3, focal_gamma=1.0, generator=generator).eval()
    plain = F.cross_entropy(30 * cosine, target)
    torch.testing.assert_close(criterion(cosine, target), plain)
    torch.testing.assert_close(criterion(cosine, target, noise), plain)
    assert torch.equal(criterion.logits(cosine), 30 * cosine)
    assert torch.equal(generator.get_state(), before)
    assert criterion.train()(cosine, target) != criterion(cosine, target)


@clouded
def test_margin_applies_to_the_target_only(loss):
    cosine, target, noise = example()
    logits = [loss(COUNTS, margin=m).logits(cosine, noise) for m in (0.0, 0.2)]
    assert torch.equal(*logits)  # the clouded logits are for anyone, before a target is known
    losses = [loss(COUNTS, margin=m)(cosine, target, noise) for m in (0.0, 0.2)]
    assert losses[1] > losses[0]
    if loss is GCLLoss:
        shifted = logits[0] - 30 * 0.2 * F.one_hot(target, 4)
        torch.testing.assert_close(losses[1], F.cross_entropy(shifted, target))


@given(
    st.floats(-1, 1, width=32), st.sampled_from([0.0, 0.5, 1.0, 2.5]), st.sampled_from([30.0, 1e3])
)
def test_saturated_logits_stay_finite(other, gamma, scale):
    cosine = torch.tensor([[1.0, -1.0, other], [-1.0, 1.0, other]], requires_grad=True)
    criterion = GCLLoss([50, 9, 2], scale=scale, focal_gamma=gamma)
    loss = criterion(cosine, torch.tensor([0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert cosine.grad.isfinite().all()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [(2, 0), (2, 3)])
@pytest.mark.parametrize("loss", [GCLLoss, AngularGCLLoss])
def test_bad_cosines_are_refused(loss, bad, position, train):
    cosine, target, _ = example(4, dtype=torch.float32)
    cosine[position] = bad
    criterion = loss(COUNTS, focal_gamma=1.0).train(train)
    with pytest.raises(GCLError, match="sample 2 is not finite"):
        criterion(cosine, target)


@pytest.mark.parametrize("train", [True, False])
def test_logits_and_scaled_cosines_are_refused(train):
    cosine, target, _ = example(4)
    criterion = GCLLoss(COUNTS).train(train)
    for factor in (30, -30):
        largest = f"{float((factor * cosine[0]).abs().max()):.4g}"
        with pytest.raises(
            GCLError, match=rf"cosine must be in \[-1, 1\], got {largest}: .*logits"
        ):
            criterion(factor * cosine, target)
        with pytest.raises(GCLError, match="the scale is in the loss"):
            criterion.logits(factor * cosine)


def test_without_the_check_the_formula_holds_beyond_one():
    cosine, target, noise = example(40)
    settings = {"scale": 7.0, "margin": 0.1, "focal_gamma": 1.0}
    criterion = GCLLoss(COUNTS, reduction="none", check_range=False, **settings)
    expected = loop(2 * cosine, target, noise, COUNTS, **settings)[1]
    assert float((2 * cosine[0]).abs().max()) > 1.01
    torch.testing.assert_close(criterion(2 * cosine, target, noise), expected)


def test_rounding_of_a_cosine_is_not_a_logit():
    features = torch.randn(8, 5, generator=seeded())
    classifier = CosineClassifier(5, 4)
    with torch.no_grad():
        classifier.weight.copy_(features[:4])  # cosines of 1
    target = torch.arange(4)
    cosine = classifier(features[:4])
    GCLLoss(COUNTS)(cosine, target)
    GCLLoss(COUNTS)(cosine.bfloat16() * 1.0078125, target)
    GCLLoss(COUNTS)(torch.empty(0, 4), torch.empty(0, dtype=torch.int64))


@clouded
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda loss, c, y, e: loss(COUNTS).logits(c[:, :3]), r"\(N, 4\), got \(40, 3\)"),
        (lambda loss, c, y, e: loss(COUNTS)(c, y, e[:5]), "noise must have the shape of cosine"),
        (lambda loss, c, y, e: loss(COUNTS).logits(c, e[:, :1]), "noise must have the shape of"),
        (lambda loss, c, y, e: loss([5, -3, 1, 1]), "class 1 has -3: give the training images"),
        (lambda loss, c, y, e: loss(COUNTS, strategy="linear"), "strategy 'linear' is unknown"),
        (lambda loss, c, y, e: loss(COUNTS, exponent=0.5), "exponent belongs to strategy 'power'"),
        (lambda loss, c, y, e: loss(COUNTS, margin=math.nan), "margin must be a number"),
        (
            lambda loss, c, y, e: loss(COUNTS, generator=0),
            r"generator must be a torch.Generator, got int: give torch.Generator\(\).manual_seed",
        ),
    ],
)
def test_wrong_arguments_are_refused(loss, call, message):
    with pytest.raises(GCLError, match=message) as refusal:
        call(loss, *example())
    assert isinstance(refusal.value, ValueError)
    assert "\n" not in str(refusal.value)


def test_alone_in_a_plain_loop():
    """The loss, the sampler and the classifier in anyone's own training loop."""
    torch.manual_seed(0)
    labels = torch.arange(4).repeat_interleave(torch.tensor(COUNTS))
    centres = F.normalize(torch.randn(4, 16))
    features = centres[labels] + 0.3 * torch.randn(len(labels), 16)
    head, criterion = CosineClassifier(16, 4), GCLLoss(COUNTS)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    for indices in BatchSampler(ClassBalancedSampler(labels, num_samples=6400), 64, drop_last=True):
        loss = criterion(head(features[indices]), labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    correct = head(features).argmax(1) == labels
    assert min(float(correct[labels == j].float().mean()) for j in range(4)) > 0.9
