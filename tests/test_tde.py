"""De-confound-TDE: classifier, moving average and counterfactual against loops."""

import math

import pytest
import torch

from gcl_core.methods.rebalance import TDE, RebalanceInputs
from gcl_core.networks.tde import CounterfactualHead, MultiHeadClassifier
from toys import seeded

FEATURES = torch.randn(7, 6, generator=seeded(1))


def classifier():
    head = MultiHeadClassifier(6, 4)
    head.reset_parameters(seeded())
    with torch.no_grad():
        head.weight *= torch.tensor([[0.1], [1.0], [3.0], [9.0]])
    head.mean.copy_(torch.tensor([1.0, -2, 0.5, 0.3, 0, 4]))
    return head.eval()


def naive(features, head, alpha):
    """Outputs of one image, group by group."""
    outputs = []
    for weight in head.weight.tolist():
        total = 0.0
        for k in range(2):
            x, w, mean = (v[3 * k : 3 * k + 3] for v in (features, weight, head.mean.tolist()))
            x, mean = ([v / math.hypot(*row) for v in row] for row in (x, mean))
            cosine = sum(a * b for a, b in zip(x, mean, strict=True))
            left = [a - alpha * cosine * b for a, b in zip(x, mean, strict=True)]
            length = math.hypot(*w) + 1 / 32
            total += sum(a * b / length for a, b in zip(left, w, strict=True))
        outputs.append(16 / 2 * total)
    return outputs


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_outputs_against_a_loop(alpha):
    head = classifier()
    for features, outputs in zip(FEATURES, CounterfactualHead(head, alpha)(FEATURES), strict=True):
        assert outputs.tolist() == pytest.approx(naive(features.tolist(), head, alpha), abs=1e-4)


def test_without_a_counterfactual_it_is_its_own_classifier():
    head = classifier()
    assert torch.equal(CounterfactualHead(head, 0.0)(FEATURES), head(FEATURES))
    empty = MultiHeadClassifier(6, 4).eval()  # no mean yet: nothing to take away
    assert torch.equal(CounterfactualHead(empty, 1.0)(FEATURES), empty(FEATURES))


def test_what_lies_along_the_mean_is_taken_away():
    head = classifier()
    along = 5 * head.mean[None]
    torch.testing.assert_close(
        CounterfactualHead(head, 1.0)(along), torch.zeros(1, 4), rtol=0, atol=1e-5
    )
    assert head(along).abs().max() > 1


def test_the_mean_moves_in_training_only():
    head = MultiHeadClassifier(6, 4)
    head(FEATURES)
    head(2 * FEATURES)
    mean = FEATURES.mean(0)
    torch.testing.assert_close(head.mean, 0.9 * mean + 2 * mean)
    before = head.mean.clone()
    head.eval()(FEATURES)
    assert torch.equal(head.mean, before)
    assert not head.mean.requires_grad


def test_the_rebalancing_is_untrained_and_leaves_the_classifier():
    head = classifier().train()
    labels = torch.tensor([0, 1, 2, 3])
    rebalanced = TDE(alpha=2.0).build(
        head, RebalanceInputs(labels, lambda: [(FEATURES, labels)], seeded())
    )
    assert not any(p.requires_grad for p in rebalanced.parameters())
    assert all(p.requires_grad for p in head.parameters())
    before = head.mean.clone()
    rebalanced(FEATURES)
    assert torch.equal(rebalanced.head.mean, before)


def test_features_must_divide():
    with pytest.raises(ValueError, match="7 features do not divide into 2 groups"):
        MultiHeadClassifier(7, 3)
