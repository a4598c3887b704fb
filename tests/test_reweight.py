"""Class weights: their formulas, the weighted mean, and from which epoch on they count."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gcl_core.data.streams import Streams
from gcl_core.errors import GCLError
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.methods.reweight import (
    EffectiveNumberByImages,
    EffectiveNumberWeights,
    PowerWeights,
    Reweighted,
)
from gcl_core.training import two_stages
from gcl_core.training.stage import StageRun
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


def test_the_class_balanced_loss_is_that_of_its_paper():
    """Cui et al. 2019: sum_i w(y_i) CE_i / N with weights that add up to C (cifar_main.py)."""
    dataset = toy_dataset((40, 8, 4))
    criterion = parts_of("class_balanced")(0)[1]
    outputs = torch.randn(12, 3, generator=seeded(1))
    target = torch.randint(3, (12,), generator=seeded(2))
    beta = 0.9999
    plain = [(1 - beta) / (1 - beta**n) for n in dataset.class_counts]
    expected = 0.0
    for row, y in zip(outputs.tolist(), target.tolist(), strict=True):
        weight = 3 * plain[y] / sum(plain)
        expected += weight * (math.log(sum(map(math.exp, row))) - row[y]) / 12
    assert criterion(outputs, target).item() == pytest.approx(expected, rel=1e-5)
    # Cao et al. 2019 divide by the weights' sum instead: the weighted mean of PyTorch.
    deferred = parts_of("ce_drw")(9)[1]
    weights = torch.tensor(plain, dtype=torch.float32)
    torch.testing.assert_close(deferred(outputs, target), F.cross_entropy(outputs, target, weights))


@pytest.mark.parametrize("method", ["class_balanced", "class_balanced_focal"])
def test_both_class_balanced_losses_are_divided_by_the_number_of_images(method):
    assert METHODS[method].stage1.class_weights == EffectiveNumberByImages(0.9999)
    criterion = parts_of(method)(0)[1]
    outputs, target = torch.zeros(5, 3), torch.tensor([0, 0, 0, 0, 2])
    focal = 2 / 3 if "focal" in method else 1.0  # (1 - p)^1 at p = 1/3
    weights = EffectiveNumberWeights().weights(torch.tensor([40, 8, 4]))
    expected = float(4 * weights[0] + weights[2]) / 5 * focal * math.log(3)
    assert criterion(outputs, target).item() == pytest.approx(expected)


def parts_of(method, epochs=10, **changes):
    settings = resolve("folder:toy", method, epochs=epochs, batch_size=8, **changes)
    fabric = two_stages.make_fabric("cpu", settings.precision)
    streams = Streams.seeded(0, 1, 0, fabric.device)
    data, first = toy_dataset((40, 8, 4)), settings.stage1
    return StageRun(1, first, data, None, None, streams, None, fabric).epoch


def test_deferred_weights_count_from_their_epoch_on():
    parts = parts_of("ldam_drw")
    reweighted = [isinstance(parts(epoch)[1], Reweighted) for epoch in range(10)]
    assert reweighted == [False] * 8 + [True] * 2
    assert all(isinstance(parts_of("class_balanced")(e)[1], Reweighted) for e in range(10))


@pytest.mark.parametrize("method", ["ce_drw", "ce_drs", "ldam_drw"])
def test_a_deferral_that_leaves_no_epoch_is_refused(method):
    for epochs, first in ((3, 2), (5, 4), (60, 48), (200, 160)):
        assert resolve("digits", method, epochs=epochs).stage1.balanced_from == first
    assert resolve("digits", method, "smoke").stage1.balanced_from < 3
    for epochs in (1, 2):
        with pytest.raises(GCLError, match=f"deferred 0.8 leaves .* none of the {epochs} epochs"):
            resolve("digits", method, epochs=epochs)


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
    assert before.images is after.images


def test_class_weights_can_be_given_and_taken_away():
    given = resolve("digits", "ce", class_weights="power", class_weights_rho="0.5")
    assert given.stage1.class_weights == PowerWeights(0.5)
    assert resolve("digits", "class_balanced", class_weights="none") == resolve("digits", "ce")
