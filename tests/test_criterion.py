"""What holds for every loss of the compared methods: precision, reductions, eval mode, refusals."""

import math

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import GCLError, GCLLoss, long_tailed_counts
from gcl_core.losses.angular import AngularGCLLoss
from gcl_core.losses.equalization import EqualizationLoss
from gcl_core.losses.focal import FocalLoss
from gcl_core.losses.ldam import LDAMLoss
from gcl_core.losses.priors import LADELoss, LogitAdjustedLoss
from gcl_core.losses.smoothing import LabelAwareSmoothing
from losses import COUNTS, cosine_batch
from toys import seeded

CLOUDED = {"margin": 0.1, "focal_gamma": 1.0}
LOSSES = {
    "focal": lambda counts, **options: FocalLoss(2.0, scale=7.0, **options),
    "logit_adjusted": lambda counts, **options: LogitAdjustedLoss(counts, scale=7.0, **options),
    "lade": LADELoss,
    "equalization": lambda counts, **options: EqualizationLoss(
        counts, generator=seeded(), **options
    ),
    "ldam": LDAMLoss,
    "smoothing": LabelAwareSmoothing,
    "angular": lambda counts, **options: AngularGCLLoss(
        counts, generator=seeded(), **CLOUDED, **options
    ),
    "gcl": lambda counts, **options: GCLLoss(counts, generator=seeded(), **CLOUDED, **options),
}
BUFFERS = {
    "focal": set(),
    "logit_adjusted": {"adjustment"},
    "lade": {"adjustment"},
    "equalization": {"rare"},
    "ldam": {"margins"},
    "smoothing": {"smoothing"},
    "angular": {"cloud_sizes"},
    "gcl": {"cloud_sizes"},
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
def test_reductions(name):
    cosine, target, _ = cosine_batch()
    none, total, mean = (
        LOSSES[name](COUNTS, reduction=r)(cosine, target) for r in ("none", "sum", "mean")
    )
    assert none.shape == (40,)
    torch.testing.assert_close(none.sum(), total)
    torch.testing.assert_close(none.mean(), mean)
    assert torch.equal(LOSSES[name](COUNTS)(cosine, target), mean)


@every_loss
def test_evaluation_is_plain_cross_entropy(name):
    cosine, target, _ = cosine_batch()
    criterion = LOSSES[name](COUNTS)
    plain = F.cross_entropy(criterion.scale * cosine, target)
    assert not torch.isclose(criterion(cosine, target), plain)
    torch.testing.assert_close(criterion.eval()(cosine, target), plain)


@every_loss
def test_every_sample_has_a_gradient(name):
    cosine, target, _ = cosine_batch(classes=3)
    criterion = LOSSES[name]([50, 20, 1])
    cosine.requires_grad_()
    criterion(cosine, target).backward()
    assert cosine.grad.isfinite().all()
    assert (cosine.grad.abs().sum(1) > 0).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(name, dtype):
    cosine, target, _ = cosine_batch(dtype=dtype)
    expected = LOSSES[name](COUNTS)(cosine.float(), target)
    cosine.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](COUNTS)(cosine, target)
        clean = LOSSES[name](COUNTS).eval()(cosine, target)
    assert loss.dtype == clean.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert cosine.grad.dtype == dtype
    assert cosine.grad.isfinite().all()


@every_loss
def test_float64_is_kept(name):
    cosine, target, _ = cosine_batch()
    loss, single = (LOSSES[name](COUNTS)(c, target) for c in (cosine, cosine.float()))
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss.float(), single)


@every_loss
@pytest.mark.parametrize("classes", [2, 100])
def test_few_and_many_classes(name, classes):
    counts = long_tailed_counts(500, classes, 100)
    cosine, target, _ = cosine_batch(64, classes, dtype=torch.float32)
    loss = LOSSES[name](counts)(cosine.requires_grad_(), target)
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    assert cosine.grad.isfinite().all()


@every_loss
@given(st.permutations(range(40)))
def test_permuted_samples(name, order):
    batch = batch_for(name)
    criterion = LOSSES[name](COUNTS, reduction="none")
    permuted = criterion(*(entry[order] for entry in batch))
    torch.testing.assert_close(permuted, criterion(*batch)[order])


@every_loss
def test_saturated_outputs_stay_finite(name):
    cosine = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]], requires_grad=True)
    loss = LOSSES[name]([50, 9, 2])(cosine, torch.tensor([0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert cosine.grad.isfinite().all()


@every_loss
def test_buffers_follow_the_module(name):
    criterion = LOSSES[name](COUNTS)
    assert dict(criterion.named_buffers()).keys() == BUFFERS[name]
    assert not list(criterion.parameters())
    assert all(b.dtype in (torch.float32, torch.bool) for b in criterion.buffers())
    assert all(b.is_meta for b in criterion.to("meta").buffers())


@every_loss
@pytest.mark.parametrize("train", [True, False])
def test_wrong_batches_are_refused(name, train):
    cosine, target, _ = cosine_batch()
    criterion = LOSSES[name](COUNTS).train(train)
    for outputs in (cosine[:, :1], cosine[0], cosine[:, :, None]):
        with pytest.raises(GCLError, match=r"(outputs|cosine) must be \(N, "):
            criterion(outputs, target)
    for labels, hint in (
        (target[:5], r"\(40,\), got \(5,\)$"),
        (target[:, None], r"got \(40, 1\); give target.flatten\(\)"),
        (F.one_hot(target, 4), r"of one-hot labels, give target.argmax\(1\)"),
        (cosine.softmax(1), "of soft labels, add up the losses of each label times its share"),
    ):
        with pytest.raises(GCLError, match=f"target must have one entry for each row.*{hint}"):
            criterion(cosine, labels)
    for dtype in (torch.int32, torch.uint8, torch.float32):
        with pytest.raises(GCLError, match=f"target must be int64, got {dtype}"):
            criterion(cosine, target.to(dtype))
    for bad, hint in ((-1, "leave out"), (-100, "leave out"), (4, "number the 4 classes from 0")):
        wrong = target.clone()
        wrong[1] = bad
        with pytest.raises(GCLError, match=rf"target must be in \[0, 4\), got {bad}; {hint}"):
            criterion(cosine, wrong)
    for labels in (target.tolist(), target.numpy()):
        with pytest.raises(GCLError, match=r"target must be a tensor, got (list|ndarray): give"):
            criterion(cosine, labels)
    with pytest.raises(GCLError, match=r"(outputs|cosine) must be a tensor, got ndarray: give"):
        criterion(cosine.numpy(), target)


@every_loss
@pytest.mark.parametrize("train", [True, False])
def test_an_empty_batch(name, train):
    cosine, target = torch.empty(0, 4, requires_grad=True), torch.empty(0, dtype=torch.int64)
    none, total, mean = (
        LOSSES[name](COUNTS, reduction=r).train(train)(cosine, target)
        for r in ("none", "sum", "mean")
    )
    assert (none.shape, total.item(), math.isnan(mean.item())) == ((0,), 0, True)
    total.backward()


def batch_for(name):
    """Cosines, targets and, of a loss that draws, what is given instead of a draw."""
    cosine, target, noise = cosine_batch()
    given = {"equalization": noise > 0, "angular": noise, "gcl": noise}
    return (cosine, target, given[name]) if name in given else (cosine, target)


# Of those with clouds the focal factor is not differentiated: see their own tests.
@pytest.mark.parametrize("name", [n for n in LOSSES if BUFFERS[n] != {"cloud_sizes"}])
def test_gradcheck(name):
    outputs, *rest = (entry[:6] for entry in batch_for(name))
    criterion = LOSSES[name](COUNTS, reduction="none")
    assert torch.autograd.gradcheck(lambda z: criterion(z, *rest), outputs.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("train", [True, False])
def test_it_compiles_in_one_graph(name, train):
    torch.compiler.reset()
    criterion, batch = LOSSES[name](COUNTS).train(train), batch_for(name)
    if not train:
        batch = batch[:2]
    whole = torch.compile(criterion, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(*batch), criterion(*batch))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("train", [True, False])
def test_gradients_of_each_sample_by_vmap(name, train):
    criterion, batch = LOSSES[name](COUNTS).train(train), batch_for(name)
    if not train:
        batch = batch[:2]

    def loss(*sample):
        return criterion(*(entry[None] for entry in sample))

    gradients = torch.func.vmap(torch.func.grad(loss))(*batch)
    for own, *sample in zip(gradients, *batch, strict=True):
        cosine = sample[0].clone().requires_grad_()
        loss(cosine, *sample[1:]).backward()
        torch.testing.assert_close(own, cosine.grad)


@pytest.mark.parametrize("loss", [GCLLoss, AngularGCLLoss])
def test_clouds_are_drawn_when_traced(loss):
    torch.compiler.reset()
    criterion, cosine = loss([10, 1], scale=1.0), torch.full((4000, 2), 0.1)
    drawn = torch.func.vmap(lambda c: criterion.logits(c[None])[0], randomness="different")(cosine)
    compiled = torch.compile(criterion.logits, backend="eager", fullgraph=True)(cosine)
    mean, error = criterion.logits(cosine).mean(0), 6 * 0.3 / math.sqrt(4000)
    for logits in (drawn, compiled):
        torch.testing.assert_close(logits.mean(0), mean, rtol=0, atol=error)
        assert len(logits[:, 1].unique()) > 3000


@pytest.mark.parametrize("loss", [GCLLoss, AngularGCLLoss, EqualizationLoss])
def test_checkpointed_it_draws_the_same_again(loss):
    cosine, target, _ = cosine_batch(dtype=torch.float32)
    gradients = []
    for run in (
        lambda call, c: call(c),
        lambda call, c: torch.utils.checkpoint.checkpoint(call, c, use_reentrant=False),
    ):
        torch.manual_seed(3)
        criterion, given = loss(COUNTS), cosine.clone().requires_grad_()
        run(lambda c, criterion=criterion: criterion(c, target), given).backward()
        gradients.append(given.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "focal"])
def test_wrong_counts_are_refused(name):
    cosine, target, _ = cosine_batch(classes=3)
    with pytest.raises(GCLError, match=r"must be \(N, 4\), got \(40, 3\)"):
        LOSSES[name](COUNTS)(cosine, target)
    with pytest.raises(GCLError, match="class 1 has 0"):
        LOSSES[name]([5, 0, 1])
    with pytest.raises(GCLError, match="at least 2 classes"):
        LOSSES[name]([5])


@every_loss
def test_unknown_reductions_are_refused(name):
    with pytest.raises(GCLError, match="reduction 'max' is unknown; allowed: mean, sum, none"):
        LOSSES[name](COUNTS, reduction="max")


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf])
@pytest.mark.parametrize(
    ("loss", "argument"),
    [
        (FocalLoss, "gamma"),
        (FocalLoss, "scale"),
        (LogitAdjustedLoss, "tau"),
        (LogitAdjustedLoss, "scale"),
        (LADELoss, "weight"),
        (LADELoss, "regulariser"),
        (EqualizationLoss, "threshold"),
        (EqualizationLoss, "gamma"),
        (LDAMLoss, "max_margin"),
        (LDAMLoss, "scale"),
        (LabelAwareSmoothing, "smooth_head"),
        (LabelAwareSmoothing, "smooth_tail"),
        *((loss, "scale") for loss in (GCLLoss, AngularGCLLoss)),
        *((loss, "noise_multiplier") for loss in (GCLLoss, AngularGCLLoss)),
        *((loss, "sigma") for loss in (GCLLoss, AngularGCLLoss)),
        *((loss, "focal_gamma") for loss in (GCLLoss, AngularGCLLoss)),
    ],
)
def test_wrong_numbers_are_refused(loss, argument, bad):
    counts = [] if loss is FocalLoss else [COUNTS]
    with pytest.raises(GCLError, match=rf"^{argument} must be (>|>=|in) .*, got {bad}$"):
        loss(*counts, **{argument: bad})


@pytest.mark.parametrize("bad", ["1", None, torch.nn.Parameter(torch.tensor(1.0))])
@pytest.mark.parametrize("argument", ["scale", "sigma", "margin", "focal_gamma"])
def test_what_would_not_be_trained_is_no_number(argument, bad):
    with pytest.raises(GCLError, match=rf"^{argument} must be .*, got ('1'|None|Parameter)"):
        GCLLoss(COUNTS, **{argument: bad})


def test_another_default_device_changes_nothing():
    cosine, target, _ = cosine_batch()
    given = {"sigma": 0.123, "generator": torch.Generator().manual_seed(0)}  # quantiles of its own
    with torch.device("meta"):  # stands for a GPU: nothing is computed there
        criterion = GCLLoss(COUNTS, **given)
        loss = criterion(cosine, target)
    given["generator"].manual_seed(0)
    assert torch.equal(criterion.cloud_sizes, GCLLoss(COUNTS).cloud_sizes)
    assert torch.equal(loss, GCLLoss(COUNTS, **given)(cosine, target))


@pytest.mark.parametrize(
    ("loss", "argument"),
    [
        (EqualizationLoss, "threshold"),
        (EqualizationLoss, "gamma"),
        (LabelAwareSmoothing, "smooth_head"),
        (LabelAwareSmoothing, "smooth_tail"),
    ],
)
def test_shares_above_one_are_refused(loss, argument):
    loss(COUNTS, **{argument: 1.0})
    with pytest.raises(GCLError, match=rf"^{argument} must be in \[0, 1\], got 1.5$"):
        loss(COUNTS, **{argument: 1.5})


@pytest.mark.parametrize(
    "name", [n for n in LOSSES if BUFFERS[n] != {"cloud_sizes"}]
)  # these refuse them
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("train", [True, False])
def test_outputs_that_are_not_finite_have_no_finite_loss(name, bad, train):
    cosine, target, _ = cosine_batch(4)
    target[2], cosine[2, 0] = 1, bad
    losses = LOSSES[name](COUNTS, reduction="none").train(train)(cosine, target)
    assert losses.isfinite().tolist() == [True, True, False, True] or name == "lade"
