"""The lab's checks: right answers however they are written, and a hint that fits each mistake."""

import math
import re
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from gcl_core import ClassBalancedSampler, GCLLoss, losses
from gcl_core import cloud_sizes as package_cloud_sizes
from gcl_core.course import check
from gcl_core.data.imbalance import class_counts_of
from gcl_core.losses.priors import logit_adjustment
from gcl_core.networks.heads import NormalisedHead
from gcl_core.training.evaluation import Tally
from gcl_core.training.evaluation import weighted_accuracy as package_accuracy

each_check = pytest.mark.parametrize("one", check.CHECKS, ids=lambda one: one.name)


@each_check
def test_the_oracle_is_right_and_each_mistake_gets_its_own_hint(one):
    for function in (one.right, *one.equal):
        verdict = one(function)
        assert verdict
        assert str(verdict) == f"✓ {one.name} is right on 3 random inputs"
    assert len(one.mistakes) >= 3
    for hint, mistake in one.mistakes.items():
        verdict = one(mistake)
        assert not verdict
        assert str(verdict).startswith(f"✗ {one.name}: ")
        assert str(verdict).endswith(f". {hint}"), verdict


@each_check
def test_a_check_is_quick_offline_and_leaves_the_global_generator_alone(one, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *given: pytest.fail("a network is used"))
    before, began = torch.get_rng_state(), time.perf_counter()
    one(one.right)
    assert time.perf_counter() - began < 1
    assert torch.equal(torch.get_rng_state(), before)


# Right answers in other words: loops, numpy, and what the package itself has.


def step_by_hand(model, optimizer, x, y):
    model.zero_grad()
    F.nll_loss(model(x).log_softmax(1), y).backward()
    optimizer.step()


def confusion_loop(confusion, axis):
    rows = confusion.tolist() if axis else list(zip(*confusion.tolist(), strict=True))
    return [row[j] / sum(row) if sum(row) else math.nan for j, row in enumerate(rows)]


def tally_recall(confusion):
    tally = Tally(len(confusion))
    tally.cells = confusion
    return torch.tensor(tally.accuracies({})["per_class"]) / 100


def gcl_logits(cosine, noise, sizes, scale, k):
    loss = GCLLoss([9] * len(sizes), scale=scale, noise_multiplier=k)
    loss.cloud_sizes = sizes
    return loss.logits(cosine, noise)


def normalised(weight, tau):
    head = torch.nn.Linear(weight.shape[1], len(weight))
    head.weight = torch.nn.Parameter(weight)
    return NormalisedHead(head, tau).weight


def frozen_loss(backbone, head, x, y):
    with torch.no_grad():
        features = backbone(x)
    return F.nll_loss(head(features).log_softmax(1), y)


def scipy_interval(ours, others):
    result = stats.ttest_rel(ours.numpy(), others.numpy()).confidence_interval(0.95)
    return (result.low + result.high) / 2, (result.high - result.low) / 2


RIGHT = [
    (check.class_counts, lambda y, c: [int((y == j).sum()) for j in range(c)]),
    (check.class_counts, lambda y, c: np.bincount(y.numpy(), minlength=c)),
    (check.class_counts, class_counts_of),
    (check.training_step, step_by_hand),
    (check.wrong_images, lambda z, y: [i for i in range(len(y)) if z[i].argmax() != y[i]]),
    (check.recall, lambda c: confusion_loop(c, 1)),
    (check.recall, tally_recall),
    (check.precision, lambda c: confusion_loop(c, 0)),
    (check.weighted_accuracy, package_accuracy),
    (
        check.log_odds,
        lambda x, s: (
            (torch.exp(-((x - 1) ** 2) / 2) * s).log()
            - (torch.exp(-((x + 1) ** 2) / 2) * (1 - s)).log()
        ),
    ),
    (check.logit_adjusted, lambda z, n, tau: z - logit_adjustment(n, tau)),
    (check.logit_adjusted, lambda z, n, tau: F.log_softmax(z, 1) - logit_adjustment(n, tau)),
    (check.logit_adjusted, lambda z, n, tau: z - tau * torch.log(n / max(n))),
    (check.tilted_shares, lambda n, t: (t * n.log()).softmax(0)),
    (check.prior_loss, lambda z, y, n: losses.priors.LogitAdjustedLoss(n)(z, y)),
    (check.prior_loss, lambda z, y, n: F.cross_entropy(z + n.log(), y)),
    (check.cloud_sizes, package_cloud_sizes),
    (check.clouded, gcl_logits),
    (check.saturation, lambda z, y: [1 - float(z[i].softmax(0)[j]) for i, j in enumerate(y)]),
    (check.tau_normalised, normalised),
    (check.image_probabilities, lambda y: ClassBalancedSampler(y).weights),
    (check.retraining_loss, frozen_loss),
    (check.paired_interval, scipy_interval),
]


@pytest.mark.parametrize(("one", "answer"), RIGHT, ids=[one.name for one, _ in RIGHT])
def test_a_right_answer_in_other_words_is_right(one, answer):
    assert one(answer), one(answer)


def test_every_check_has_a_right_answer_in_other_words_and_three_planted_wrong_ones():
    assert {one.name for one, _ in RIGHT} == {one.name for one in check.CHECKS}
    planted = [one.name for one, *_ in PLANTED]
    assert {one.name: planted.count(one.name) >= 3 for one in check.CHECKS} == dict.fromkeys(
        (one.name for one in check.CHECKS), True
    )


# Wrong answers as somebody would write them, and a word of the hint that each has to get.


def without_step(model, optimizer, x, y):
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()


def zeroed_too_late(model, optimizer, x, y):
    F.cross_entropy(model(x), y).backward()
    optimizer.zero_grad()
    optimizer.step()


def never_zeroed(model, optimizer, x, y):
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


def softmax_first(model, optimizer, x, y):
    optimizer.zero_grad()
    F.cross_entropy(F.softmax(model(x), dim=-1), y).backward()
    optimizer.step()


def numpy_interval(a, b):
    d = (a - b).numpy()
    return d.mean(), stats.t.ppf(0.975, len(d) - 1) * d.std() / len(d) ** 0.5


def normal_interval(a, b):
    return (a - b).mean(), 2 * (a - b).std() / len(a) ** 0.5


def spread(a, b):
    return (a - b).mean(), stats.t.ppf(0.975, len(a) - 1) * (a - b).std()


def both_ends(ours, others):
    d = (ours - others).numpy()
    return stats.t.interval(0.95, len(d) - 1, d.mean(), stats.sem(d))


def two_samples(a, b):
    error = (a.std() ** 2 / len(a) + b.std() ** 2 / len(b)) ** 0.5
    return a.mean() - b.mean(), stats.t.ppf(0.975, len(a) - 1) * error


def target_alone(logits, labels, counts):
    prior, rows = counts.log() - counts.sum().log(), torch.arange(len(labels))
    logits = logits.clone()
    logits[rows, labels] += prior[labels]
    return F.cross_entropy(logits, labels)


def first_is_largest(counts):
    differences = counts[0].log() - counts.log()
    return differences / differences.max()


def by_class(labels):
    inverse = 1 / torch.bincount(labels)
    return inverse / inverse.sum()


def with_backward(backbone, head, x, y):
    loss = frozen_loss(backbone, head, x, y)
    loss.backward()
    return loss


def one_sided(a, b):
    return (a - b).mean(), stats.t.ppf(0.95, len(a) - 1) * (a - b).std() / len(a) ** 0.5


def degrees_of_freedom(a, b):
    return (a - b).mean(), stats.t.ppf(0.975, len(a)) * (a - b).std() / len(a) ** 0.5


PLANTED = [
    (check.class_counts, lambda y, c: torch.unique(y, return_counts=True)[1], "without an image"),
    (check.class_counts, lambda y, c: y.bincount(), "how many classes"),
    (check.class_counts, lambda y, c: F.one_hot(y, c).float().mean(0), "shares"),
    (check.training_step, without_step, "do not move"),
    (check.training_step, zeroed_too_late, "do not move"),
    (check.training_step, never_zeroed, r"zero_grad\(\) comes first"),
    (check.training_step, softmax_first, "softmax in it"),
    (check.wrong_images, lambda z, y: torch.where(z.argmax(1) == y)[0], "the right ones"),
    (check.wrong_images, lambda z, y: z.argmax(1).ne(y), "indices"),
    (check.wrong_images, lambda z, y: torch.argwhere(z.argmax(1) != y), "flatten"),
    (check.recall, lambda c: torch.diag(c) / c.sum(dim=0), "precision"),
    (check.recall, lambda c: torch.diag(c) / c.sum(), "not by all images"),
    (check.recall, lambda c: (c.sum(1) - c.diag()) / c.sum(1), "wrong ones"),
    (check.precision, lambda c: torch.diag(c) / c.sum(dim=-1), "recall"),
    (check.precision, lambda c: torch.diag(c) / c.sum(), "not by all images"),
    (check.precision, lambda c: (c.sum(0) - c.diag()) / c.sum(0), "wrong ones"),
    (check.weighted_accuracy, lambda r, w: r @ w, "divide by their sum"),
    (check.weighted_accuracy, lambda r, w: r.sum() / len(r), "use the weights"),
    (check.weighted_accuracy, lambda r, w: torch.mean(w * r), "mean of the products"),
    (check.log_odds, lambda x, s: ((x + 1) ** 2 - (x - 1) ** 2) / 2, "prior is missing"),
    (check.log_odds, lambda x, s: 2 * x - torch.logit(s), "sign"),
    (check.log_odds, lambda x, s: 2 * x + math.log(s), "other class"),
    (check.log_odds, lambda x, s: (x + 1) ** 2 - (x - 1) ** 2 + torch.logit(s), "half"),
    (check.logit_adjusted, lambda z, n, t: z + t * (n / n.sum()).log(), "sign"),
    (check.logit_adjusted, lambda z, n, t: z - t * n, "without a logarithm"),
    (check.logit_adjusted, lambda z, n, t: z - t * (n / n.sum()), "shares"),
    (check.logit_adjusted, lambda z, n, t: z - (n / n.sum()).log(), "tau is not used"),
    (check.tilted_shares, lambda n, t: n.double().pow(t), "add up to 1"),
    (check.tilted_shares, lambda n, t: (-t * n.log()).softmax(0), "sign of the tilt"),
    (check.tilted_shares, lambda n, t: (n / n.sum()).pow(t), "Take the power first"),
    (check.prior_loss, lambda z, y, n: F.cross_entropy(z - (n / n.sum()).log(), y), "sign"),
    (check.prior_loss, lambda z, y, n: F.cross_entropy(n + z, y), "without a logarithm"),
    (check.prior_loss, lambda z, y, n: F.cross_entropy(z, y, weight=n.sum() / n), "class weights"),
    (check.prior_loss, lambda z, y, n: -z.log_softmax(1)[range(len(y)), y].mean(), "missing"),
    (check.cloud_sizes, lambda n: n.max().log() - n.log(), "divide by the largest"),
    (check.cloud_sizes, lambda n: 1 - (n - n.min()) / (n.max() - n.min()), "not the counts"),
    (check.cloud_sizes, lambda n: 1 - package_cloud_sizes(n), "1 for the head"),
    (check.clouded, lambda c, e, d, s, k: s * (c - k * d * e), "absolute value"),
    (check.clouded, lambda c, e, d, s, k: s * c + s * k * d * e.abs(), "lowers"),
    (check.clouded, lambda c, e, d, s, k: s * c - k * d * e.abs(), "multiplies the cloud"),
    (check.clouded, lambda c, e, d, s, k: s * (c - k * e.abs()), "sizes are missing"),
    (check.saturation, lambda z, y: z.softmax(1)[torch.arange(len(y)), y], "p_y itself"),
    (check.saturation, lambda z, y: 1 - z.softmax(1).max(1).values, "own class"),
    (check.saturation, lambda z, y: F.cross_entropy(z, y, reduction="none"), "the loss"),
    (check.tau_normalised, lambda w, t: w / w.norm(dim=0) ** t, "a row"),
    (check.tau_normalised, lambda w, t: w / (t * w.norm(dim=1, keepdim=True)), "exponent"),
    (check.tau_normalised, lambda w, t: w * w.norm(dim=1, keepdim=True) ** t, "Divide"),
    (check.image_probabilities, lambda y: 1 / torch.bincount(y)[y], "do not sum to 1"),
    (check.image_probabilities, lambda y: torch.full((len(y),), 1 / len(y)), "as likely"),
    (
        check.image_probabilities,
        lambda y: torch.bincount(y)[y] / torch.bincount(y)[y].sum(),
        "head more often",
    ),
    (check.retraining_loss, lambda b, h, x, y: F.cross_entropy(h(b(x)), y), "detach"),
    (
        check.retraining_loss,
        lambda b, h, x, y: F.cross_entropy(h(b(x)).detach(), y),
        "has no gradient",
    ),
    (
        check.retraining_loss,
        lambda b, h, x, y: F.cross_entropy(h(b(x).detach()).softmax(-1), y),
        "softmax",
    ),
    (check.paired_interval, numpy_interval, "n - 1"),
    (check.paired_interval, normal_interval, "factor of 2"),
    (check.paired_interval, spread, "square root of n"),
    (check.paired_interval, two_samples, "seed by seed"),
    (check.paired_interval, both_ends, "two ends"),
    (check.recall, lambda c: 100 * c.diagonal() / c.sum(1), "no percent"),
    (check.tilted_shares, lambda n, t: -(n**t) / (n**t).sum(), "sign is the other"),
    (check.tilted_shares, lambda n, t: n**t / (n**t).max(), r"This is 2.37 times what is wanted$"),
    # Plausible answers that the checks had no hint for, or a wrong one.
    (check.wrong_images, lambda z, y: y[z.argmax(1) != y], "labels, not the places"),
    (check.wrong_images, lambda z, y: (z.argmax(1) != y).nonzero(as_tuple=True), "a tuple"),
    (
        check.wrong_images,
        lambda z, y: (z.max(1).values != y).nonzero()[:, 0],
        "largest logit itself",
    ),
    (
        check.wrong_images,
        lambda z, y: torch.where(z.argmax(0) != y)[0],
        r"size of tensor.*argmax\(1\)",
    ),
    (check.log_odds, lambda x, s: (2 * x).exp() * s / (1 - s), "take their logarithm"),
    (check.log_odds, lambda x, s: torch.logit(s) - 2 * x, "classes are exchanged"),
    (check.log_odds, lambda x, s: 2 * x + s / (1 - s), "prior stands there without"),
    (check.prior_loss, target_alone, "label alone"),
    (
        check.prior_loss,
        lambda z, y, n: F.cross_entropy(z + n.log(), y, reduction="none"),
        "one number",
    ),
    (check.cloud_sizes, first_is_largest, "is 0 at"),
    (check.clouded, lambda c, e, d, s, k: s * (c - k * d), "noise is missing"),
    (check.saturation, lambda z, y: 1 - F.softmax(z, 1)[:, y], "torch.arange"),
    (check.saturation, lambda z, y: 1 - torch.gather(z.softmax(1), 1, y), r"labels\[:, None\]"),
    (check.tau_normalised, lambda w, t: w / w.norm(2, 1) ** t, "keepdim=True"),
    (check.image_probabilities, by_class, "One number for each image"),
    (check.image_probabilities, lambda y: by_class(y)[y], "not over the classes"),
    (check.image_probabilities, lambda y: (y[:, None] == y).float().mean(1), "share of each image"),
    (
        check.retraining_loss,
        lambda b, h, x, y: frozen_loss(b, h, x, y).item(),
        "returns float; a tensor",
    ),
    (check.retraining_loss, lambda b, h, x, y: h(b(x).detach()), "the mean loss is one number"),
    (check.retraining_loss, with_backward, r"calls backward\(\)"),
    (check.paired_interval, one_sided, "leave 2.5 %"),
    (check.paired_interval, degrees_of_freedom, "n - 1 degrees"),
    (check.paired_interval, lambda a, b: scipy_interval(a, b)[::-1], "mean comes first"),
    (check.paired_interval, lambda a, b: (a - b).mean(), r"one number; shape \(2,\)"),
]


@pytest.mark.parametrize(
    ("one", "answer", "hint"), PLANTED, ids=[f"{one.name}-{hint}" for one, _, hint in PLANTED]
)
def test_a_planted_mistake_gets_the_hint_that_fits_it(one, answer, hint):
    verdict = one(answer)
    assert not verdict
    assert re.search(hint, str(verdict)), verdict


def with_a_missing_name(z, n, tau):
    z = z - tau
    return z - missing  # noqa: F821


def adds_in_place(logits, counts, tau):
    return logits.sub_(tau * counts.log())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda *given: None, "logit_adjusted: it returns nothing yet"),
        (
            with_a_missing_name,
            "it raises NameError: name 'missing' is not defined, at `return z - missing",
        ),
        (lambda z, n, tau: "z", "it returns str; numbers are wanted"),
        (lambda z, n, tau: z.mean(0), "the result has shape (5,), not (4, 5)"),
        (lambda z, n, tau: z.sum(), "the result is one number; shape (4, 5) is wanted"),
        (adds_in_place, "it changes its argument number 1; make a new tensor instead"),
        (lambda z, n, tau: z * math.nan, "the result is nan at [0, 0], not "),
    ],
    ids=["nothing", "raises", "text", "shape", "number", "in-place", "nan"],
)
def test_any_other_mistake_is_said_in_one_line(answer, message):
    verdict = check.logit_adjusted(answer)
    assert not verdict
    assert message in str(verdict)
    assert "\n" not in str(verdict)


def test_the_first_difference_is_told():
    def last_row(logits, counts, tau):
        result = check.logit_adjusted.right(logits, counts, tau).clone()
        result[3, 1] = 7.0
        return result

    assert "the result is 7 at [3, 1], not " in str(check.logit_adjusted(last_row))
    half = lambda recall, weights: package_accuracy(recall, weights) / 2  # noqa: E731
    assert "the result is 0." in str(check.weighted_accuracy(half))
