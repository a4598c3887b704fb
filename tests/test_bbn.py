"""BBN: its loss and its network against a loop, and the turn from one branch to the other."""

import math

import pytest
import torch

from gcl_core.data.epoch import TrainingImages
from gcl_core.data.streams import Streams
from gcl_core.methods.objectives import BBN
from gcl_core.methods.registry import resolve
from gcl_core.networks.backbones import DigitsCNN
from gcl_core.networks.bbn import BilateralLoss, BilateralNetwork
from gcl_core.networks.network import initialise
from gcl_core.training.two_stages import run
from losses import is_close, logit_batch, softmax
from toys import seeded, toy_dataset


def network():
    made = BilateralNetwork(DigitsCNN(3), 4)
    initialise(made, seeded())
    return made.eval()


def images(seed):
    return torch.randn(5, 3, 8, 8, generator=seeded(seed))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_loss_against_a_loop(share):
    logits, first = logit_batch()
    _, second = logit_batch(seed=1)
    expected = 0.0
    for row, y, other in zip(logits.tolist(), first.tolist(), second.tolist(), strict=True):
        p = softmax(row)
        expected -= (share * math.log(p[y]) + (1 - share) * math.log(p[other])) / len(logits)
    is_close(
        BilateralLoss()((logits, torch.tensor(share)), torch.stack((first, second), 1)), expected
    )


def test_the_branches_start_differently_and_share_the_trunk():
    backbone = network().backbone
    weights = [backbone.conventional[0].weight, backbone.rebalancing[0].weight]
    assert weights[0].shape == weights[1].shape
    assert not torch.equal(*weights)
    assert len(backbone.trunk.layers) == 6  # of nine: the last block is in the branches


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_pair_against_its_formula(share):
    made = network()
    first, second = images(1), images(2)
    logits, alpha = made((first, second, torch.tensor(share)))
    assert float(alpha) == share
    both = [made.features(x).double() for x in (first, second)]  # (N, 128): f_c, then f_r
    mixed = torch.cat((2 * share * both[0][:, :64], 2 * (1 - share) * both[1][:, 64:]), 1)
    weight, bias = made.head.weight.double(), made.head.bias.double()
    torch.testing.assert_close(logits.double(), mixed @ weight.T + bias, rtol=1e-5, atol=1e-5)


def test_at_both_ends_one_branch_decides_and_alone_is_trained():
    made, first, second = network().train(), images(1), images(2)
    for share, silent in ((1.0, "rebalancing"), (0.0, "conventional")):
        made.zero_grad()
        logits, alpha = made((first, second, torch.tensor(share)))
        target = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]])
        BilateralLoss()((logits, alpha), target).backward()
        for name, weight in made.backbone.named_parameters():
            assert (weight.grad.abs().max() == 0) == name.startswith(silent)


def test_in_evaluation_both_branches_count_alike():
    made = network()
    features = made.features(images(1))
    assert features.shape == (5, 128)
    assert torch.equal(made(images(1)), made.head(features))
    half, _ = made((images(1), images(1), torch.tensor(0.5)))
    torch.testing.assert_close(half, made(images(1)))


def test_the_share_falls_from_one_and_the_samples_are_reversed():
    dataset = toy_dataset((90, 10))
    streams = Streams.seeded(0, 1, 0, torch.device("cpu"))
    order = torch.arange(100).split(20)

    class InOrder:
        def draw(self):
            return torch.cat(order)

        def __len__(self):
            return 100

    shown = TrainingImages(dataset, InOrder(), 20, streams, torch.device("cpu"))
    shares = []
    for epoch in range(10):
        pairs = BBN().batches(shown, epoch / 10)
        assert len(pairs) == 5
        seconds = []
        for batch in pairs:
            first, second, share = batch.inputs
            assert first.shape == second.shape == (20, 3, 8, 8)
            seconds.append(batch.target[:, 1])
        shares.append(float(share))
        assert torch.cat(seconds).bincount(minlength=2)[1] > 75  # 90 % of 100 are expected
    assert shares == pytest.approx([1 - (epoch / 10) ** 2 for epoch in range(10)])
    assert shares[0] == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_share_follows_the_epochs_of_a_run(tmp_path, monkeypatch, precision):
    shares = []
    loss = BilateralLoss.forward

    def seen(self, outputs, target):
        shares.append(float(outputs[1]))
        return loss(self, outputs, target)

    monkeypatch.setattr(BilateralLoss, "forward", seen)
    small = {"network": "digits_cnn", "precision": precision, "epochs": 5, "batch_size": 64}
    settings = resolve("folder:toy", "bbn", **small)
    run(settings, tmp_path, dataset=toy_dataset(), progress="none")
    rounding = 2**-8 if precision == "bfloat16" else 1e-6  # as of every input
    assert shares == pytest.approx([1 - (epoch / 5) ** 2 for epoch in range(5)], rel=rounding)
