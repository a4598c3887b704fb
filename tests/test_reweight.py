"""Class weights: their formulas, the weighted mean, and from which epoch on they count."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gcl_core import training
from gcl_core.batches import Streams
from gcl_core.methods import METHODS, resolve
from gcl_core.reweight import EffectiveNumberWeights, PowerWeights, Reweighted
from toys import seeded, toy_dataset

COUNTS = torch.tensor([500, 40, 7, 1])


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_effective_number_weights_against_a_loop(beta):
    plain = [(1 - beta) / (1 - beta**n) for n in COUNTS.tolist()]
    expected = torch.tensor([4 * w / sum(plain) for w in plain], dtype=torch.float64)
    weights = EffectiveNumberWeights(beta).weights(COUNTS)
    torch.testing.assert_close(weights, expected)
    assert weights.sum() == pytest.approx(4)


@pytest.mark.parametrize("rho", [0.0, 1.0, 1.2])
def test_power_weights_against_a_loop(rho):
    plain = [n**-rho for n in COUNTS.tolist()]
    expected = torch.tensor([4 * w / sum(plain) for w in plain], dtype=torch.float64)
    torch.testing.assert_close(PowerWeights(rho).weights(COUNTS), expected)


@pytest.mark.parametrize("kind", [EffectiveNumberWeights(), PowerWeights()])
def test_equal_counts_have_equal_weights(kind):
    torch.testing.assert_close(
        kind.weights(torch.tensor([9, 9, 9])), torch.ones(3, dtype=torch.float64)
    )


def test_the_weighted_mean_is_that_of_cross_entropy():
    outputs = torch.randn(12, 4, generator=seeded(1))
    target = torch.randint(4, (12,), generator=seeded(2))
    weights = PowerWeights().weights(COUNTS)
    criterion = Reweighted(nn.CrossEntropyLoss(reduction="none"), weights)
    expected = F.cross_entropy(outputs, target, weights.float())
    torch.testing.assert_close(criterion(outputs, target), expected)


def parts_of(method, **changes):
    settings = resolve("folder:toy", method, epochs=10, batch_size=8, **changes)
    fabric = training.make_fabric(settings, "cpu")
    streams = Streams.seeded(0, 1, 0, fabric.device)
    return training._parts(fabric, settings.stage1, toy_dataset((40, 8, 4)), streams)


def test_deferred_weights_count_from_their_epoch_on():
    parts = parts_of("ldam_drw")
    reweighted = [isinstance(parts(epoch)[1], Reweighted) for epoch in range(10)]
    assert reweighted == [False] * 8 + [True] * 2
    assert all(isinstance(parts_of("class_balanced")(e)[1], Reweighted) for e in range(10))


def test_deferred_sampling_counts_from_its_epoch_on():
    parts = parts_of("ce_drs", deferred=0.5)

    def tail_share(epoch):
        targets = torch.cat([batch.target for _ in range(20) for batch in parts(epoch)[0]])
        return float((targets == 2).double().mean())

    assert [tail_share(epoch) for epoch in (0, 4)] == pytest.approx([4 / 52] * 2)
    assert [tail_share(epoch) for epoch in (5, 9)] == pytest.approx([1 / 3] * 2, abs=0.06)


def test_deferral_keeps_the_images_in_one_place():
    parts = parts_of("ce_drs", deferred=0.5)
    before, after = parts(0)[0], parts(9)[0]
    assert before.crops.data_ptr() == after.crops.data_ptr()


def test_class_weights_can_be_given_and_taken_away():
    given = resolve("digits", "ce", class_weights="power", class_weights_rho="0.5")
    assert given.stage1.class_weights == PowerWeights(0.5)
    assert resolve("digits", "class_balanced", class_weights="none") == resolve("digits", "ce")
    assert METHODS["class_balanced"].stage1.class_weights == EffectiveNumberWeights(0.9999)
