"""Logit adjustment and LADE against loops, and what the priors do."""

import math

import pytest
import torch
import torch.nn.functional as F

from gcl_core import GCLError
from gcl_core.losses.priors import LADELoss, LogitAdjustedLoss, logit_adjustment
from losses import COUNTS, PRIOR, is_close, logit_batch, softmax

# Three kinds of image: P(x | y) in row x for each of the four classes.
LIKELIHOOD = torch.tensor(
    [[0.7, 0.2, 0.1, 0.1], [0.2, 0.6, 0.3, 0.1], [0.1, 0.2, 0.6, 0.8]], dtype=torch.float64
)
JOINT = LIKELIHOOD * torch.tensor(PRIOR, dtype=torch.float64)


def adjusted_losses(outputs, target, tau=1.0, scale=1.0):
    return [
        -math.log(
            softmax([scale * z + tau * math.log(q) for z, q in zip(row, PRIOR, strict=True)])[y]
        )
        for row, y in zip(outputs.tolist(), target.tolist(), strict=True)
    ]


def lader(outputs, target, regulariser):
    """LADER of a batch, class by class."""
    rows, labels, classes = outputs.tolist(), target.tolist(), len(PRIOR)
    total = 0.0
    for c in set(labels):
        own = [row[c] for row, y in zip(rows, labels, strict=True) if y == c]
        shifted = [row[c] - math.log(PRIOR[c]) + math.log(1 / classes) for row in rows]
        ratio = math.log(sum(math.exp(z) for z in shifted) / len(rows))
        total -= PRIOR[c] * (sum(own) / len(own) - ratio - regulariser * ratio**2)
    return total


@pytest.mark.parametrize(("tau", "scale"), [(1.0, 1.0), (0.5, 3.0), (2.0, 0.5), (0.0, 2.0)])
def test_logit_adjustment_against_a_loop(tau, scale):
    outputs, target = logit_batch()
    result = LogitAdjustedLoss(COUNTS, tau, scale, reduction="none")(outputs, target)
    is_close(result, adjusted_losses(outputs, target, tau, scale))


def test_the_adjustment_is_tau_log_prior():
    expected = [1.5 * math.log(q) for q in PRIOR]
    assert logit_adjustment(COUNTS, 1.5).tolist() == pytest.approx(expected, rel=1e-14)
    assert torch.equal(logit_adjustment(COUNTS), logit_adjustment(COUNTS, 1.0))
    torch.testing.assert_close(
        LogitAdjustedLoss(COUNTS).adjustment, logit_adjustment(COUNTS).float()
    )
    with pytest.raises(GCLError, match="tau must be >= 0, got -1"):
        logit_adjustment(COUNTS, -1.0)


def test_without_a_shift_it_is_cross_entropy():
    outputs, target = logit_batch()
    plain = F.cross_entropy(outputs, target)
    torch.testing.assert_close(LogitAdjustedLoss([7] * 4)(outputs, target), plain)
    torch.testing.assert_close(LogitAdjustedLoss(COUNTS, tau=0.0)(outputs, target), plain)
    assert not torch.isclose(LogitAdjustedLoss(COUNTS)(outputs, target), plain)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_training_and_post_hoc_adjustment_agree(tau):
    """What cross-entropy learns, adjusted afterwards, is what the adjusted loss learns."""
    outputs, target = logit_batch()
    afterwards = outputs - logit_adjustment(COUNTS, tau)
    is_close(LogitAdjustedLoss(COUNTS, tau)(afterwards, target), F.cross_entropy(outputs, target))


def test_the_optimum_is_the_balanced_posterior():
    """The expected loss has no gradient where softmax(z) is P(y | x) of balanced classes."""
    criterion = LogitAdjustedLoss(COUNTS, reduction="none")
    kinds, classes = torch.cartesian_prod(torch.arange(3), torch.arange(4)).T

    def slope(outputs):
        outputs = outputs.clone().requires_grad_()
        (JOINT.flatten() * criterion(outputs[kinds], classes)).sum().backward()
        return outputs.grad.abs().max()

    assert slope(LIKELIHOOD.log()) < 1e-7
    assert slope(JOINT.log()) > 0.01  # what plain cross-entropy would learn


BATCHES = {
    "every class": logit_batch()[1],
    "one class": torch.full((40,), 2),
    "no head, no tail": torch.arange(40) % 2 + 1,
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("weight", "regulariser"), [(0.1, 0.1), (0.05, 0.5), (2.0, 0.0)])
def test_lade_against_a_loop(batch, weight, regulariser):
    outputs, target = logit_batch()[0], BATCHES[batch]
    expected = lader(outputs, target, regulariser)
    criterion = LADELoss(COUNTS, weight, regulariser, reduction="none")
    is_close(criterion.lader(outputs, target), expected)
    losses = [loss + weight * expected for loss in adjusted_losses(outputs, target)]
    is_close(criterion(outputs, target), losses)
    is_close(LADELoss(COUNTS, weight, regulariser)(outputs, target), sum(losses) / 40)


def test_lader_leaves_classes_alone_that_a_batch_lacks():
    outputs = logit_batch()[0].requires_grad_()
    LADELoss(COUNTS).lader(outputs, BATCHES["no head, no tail"]).backward()
    assert (outputs.grad[:, [0, 3]] == 0).all()
    assert (outputs.grad[:, [1, 2]] != 0).all()


@pytest.mark.parametrize("regulariser", [0.0, 0.1])
def test_the_optimum_of_lader_is_the_posterior_over_the_uniform_prior(regulariser):
    """On a batch like the training data LADER has no gradient where z_c = log C P(c | x)."""
    images = torch.tensor([[12, 3, 1, 1], [5, 6, 2, 1], [3, 1, 2, 3]])  # of each kind and class
    kinds = torch.arange(3).repeat_interleave(images.sum(1))
    classes = torch.arange(4).repeat(3).repeat_interleave(images.flatten())
    criterion = LADELoss(images.sum(0), regulariser=regulariser)

    def slope(shift):
        outputs = (4 * images / images.sum(1, keepdim=True)).double().log()
        outputs = (outputs + shift).requires_grad_()
        criterion.lader(outputs[kinds], classes).backward()
        return outputs.grad.abs().max()

    assert slope(0.0) < 1e-7
    assert (slope(1.0) > 0.01) == (regulariser > 0)  # which alone fixes a constant
    assert slope(torch.tensor([[1.0], [0.0], [0.0]])) > 0.01


def test_large_logits_do_not_overflow():
    outputs = 1e4 * logit_batch(dtype=torch.float32)[0].requires_grad_()
    for loss in (LogitAdjustedLoss, LADELoss):
        result = loss(COUNTS)(outputs, logit_batch()[1])
        assert result.isfinite()
        assert torch.autograd.grad(result, outputs, retain_graph=True)[0].isfinite().all()
