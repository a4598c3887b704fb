"""EqualizationLoss against a loop, and whom it spares."""

import math

import pytest
import torch
import torch.nn.functional as F

from gcl_core import GCLError
from gcl_core.losses.equalization import EqualizationLoss
from losses import COUNTS, PRIOR, is_close, logit_batch
from toys import seeded


def example(samples=40):
    outputs, target = logit_batch(samples)
    return outputs, target, torch.rand(samples, 4, generator=seeded(1)) < 0.6


@pytest.mark.parametrize("threshold", [0.0, 0.04, 0.05, 0.5, 1.0])
def test_values_against_a_loop(threshold):
    outputs, target, drop = example()
    expected = []
    for row, y, dropped in zip(outputs.tolist(), target.tolist(), drop.tolist(), strict=True):
        weights = [
            1 - b * (share < threshold) * (1 - (k == y))
            for k, (b, share) in enumerate(zip(dropped, PRIOR, strict=True))
        ]
        total = sum(w * math.exp(z) for w, z in zip(weights, row, strict=True))
        expected.append(-math.log(math.exp(row[y]) / total))
    criterion = EqualizationLoss(COUNTS, threshold, reduction="none")
    is_close(criterion(outputs, target, drop), expected, 1e-9)
    is_close(criterion(outputs, target, drop=drop), expected, 1e-9)


def test_a_class_at_the_threshold_is_not_rare():
    assert EqualizationLoss([90, 6, 4], threshold=0.06).rare.tolist() == [False, False, True]
    assert EqualizationLoss([94, 5, 1]).rare.tolist() == [False, False, True]  # default 0.05


def test_rare_classes_get_no_gradient_from_other_classes():
    outputs, target, _ = example()
    outputs.requires_grad_()
    EqualizationLoss(COUNTS, threshold=0.1, gamma=1.0)(outputs, target).backward()
    others = F.one_hot(target, 4) == 0
    rare = torch.tensor([False, False, True, True])
    assert torch.equal(outputs.grad == 0, others & rare)


def test_only_rare_others_are_dropped_and_as_often_as_gamma_says():
    outputs = torch.zeros(100_000, 4, requires_grad=True)
    target = torch.zeros(len(outputs), dtype=torch.int64)
    EqualizationLoss(COUNTS, threshold=0.1, gamma=0.7, generator=seeded())(
        outputs, target
    ).backward()
    dropped = (outputs.grad == 0).float()
    assert dropped[:, :2].sum() == 0
    torch.testing.assert_close(dropped[:, 2:].mean(0), torch.full((2,), 0.7), rtol=0, atol=0.01)
    together = (dropped[:, 2] * dropped[:, 3]).mean()  # independent draws
    assert together.item() == pytest.approx(0.49, abs=0.01)


def test_a_generator_decides_the_draws():
    outputs, target, _ = example()
    generator = seeded(4)
    criterion = EqualizationLoss(COUNTS, gamma=0.5, generator=generator)
    first, second = criterion(outputs, target), criterion(outputs, target)
    assert first != second
    generator.manual_seed(4)
    assert criterion(outputs, target) == first
    state = generator.get_state()
    criterion.eval()(outputs, target)
    assert torch.equal(generator.get_state(), state)


def test_a_hugely_wrong_rare_class_costs_nothing_when_dropped():
    outputs = torch.tensor([[0.0, 0.0, 0.0, 1e30]])
    criterion, target = EqualizationLoss(COUNTS), torch.tensor([0])
    result = criterion(outputs, target, torch.tensor([[True] * 4]))
    assert result.item() == pytest.approx(math.log(2))  # classes 2 and 3 are rare


@pytest.mark.parametrize("drop", [torch.ones(40, 4), torch.ones(40, 1, dtype=torch.bool)])
def test_a_wrong_mask_is_refused(drop):
    outputs, target, _ = example()
    with pytest.raises(GCLError, match=r"drop must be \(40, 4\) torch.bool, got \(40, [14]\) "):
        EqualizationLoss(COUNTS)(outputs, target, drop)
