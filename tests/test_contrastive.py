"""Hybrid-SC and Hybrid-PSC: both contrasts against loops, and what their batches hold."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gcl_core.data.epoch import TrainingImages
from gcl_core.data.streams import Streams
from gcl_core.methods.objectives import HybridPSC, HybridSC
from gcl_core.methods.sampling import InstanceBalanced
from gcl_core.networks.backbones import DigitsCNN
from gcl_core.networks.contrastive import (
    ContrastiveNetwork,
    HybridPSCLoss,
    HybridSCLoss,
    PrototypicalNetwork,
)
from losses import cosine_batch, is_close, logit_batch
from toys import seeded, toy_dataset


def naive_supervised(projected, labels, temperature):
    """Khosla et al. 2020, Eq. 2, image by image."""
    unit = [[v / math.hypot(*row) for v in row] for row in projected]
    total = 0.0
    for i, u in enumerate(unit):
        others = [a for a in range(len(unit)) if a != i]
        terms = {
            a: math.exp(sum(x * y for x, y in zip(u, unit[a], strict=True)) / temperature)
            for a in others
        }
        same = [a for a in others if labels[a] == labels[i]]
        if same:
            total -= sum(math.log(terms[p] / sum(terms.values())) for p in same) / len(same)
    return total / len(unit)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.integers(0, 99))
def test_supervised_contrast_against_a_loop(labels, seed):
    projected = torch.randn(len(labels), 3, generator=seeded(seed), dtype=torch.float64)
    expected = naive_supervised(projected.tolist(), labels, 0.5)
    is_close(HybridSCLoss(0.5).contrast(projected, torch.tensor(labels)), expected)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_prototypical_contrast_against_a_loop(temperature):
    cosine, target, _ = cosine_batch()
    expected = 0.0
    for row, y in zip(cosine.tolist(), target.tolist(), strict=True):
        others = sum(math.exp(c / temperature) for j, c in enumerate(row) if j != y)
        expected -= math.log(math.exp(row[y] / temperature) / others) / len(cosine)
    is_close(HybridPSCLoss(temperature).contrast(cosine, target), expected)


def test_gradients():
    projected = torch.randn(6, 4, generator=seeded(), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    for loss in (HybridSCLoss(0.3), HybridPSCLoss(0.3)):
        assert torch.autograd.gradcheck(loss.contrast, (projected, labels))


def test_images_of_a_class_in_one_place_have_the_least_loss():
    labels = torch.tensor([0, 0, 1, 1])
    together = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
    apart = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]])
    assert HybridSCLoss(0.1).contrast(together, labels) < 1e-3
    assert HybridSCLoss(0.1).contrast(apart, labels) > 10


def test_an_image_without_another_of_its_class_counts_as_zero():
    projected = torch.randn(3, 4, generator=seeded())
    assert HybridSCLoss(0.1).contrast(projected, torch.tensor([0, 1, 2])) == 0


@pytest.mark.parametrize("kind", [HybridSCLoss, HybridPSCLoss])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_loss_is_weighted_by_the_share(kind, share):
    logits, balanced = logit_batch(8)
    first, labels, _ = cosine_batch(8, seed=1)
    views = 2 if kind is HybridSCLoss else 1
    first = first.repeat(views, 1) + 0.1 * torch.randn(8 * views, 4, generator=seeded())
    criterion = kind(temperature=0.2)
    alone = criterion.contrast(first, labels.repeat(views))
    expected = share * alone + (1 - share) * F.cross_entropy(logits, balanced)
    target = torch.stack((labels, balanced), 1)
    is_close(criterion((first, logits, torch.tensor(share)), target), expected)


def test_networks_project_one_batch_and_classify_the_other():
    images, others = (torch.randn(n, 3, 8, 8, generator=seeded(n)) for n in (6, 3))
    for kind, width in ((ContrastiveNetwork, 128), (PrototypicalNetwork, 4)):
        network = kind(DigitsCNN(3), 4).eval()
        first, logits, share = network((images, others, torch.tensor(0.3)))
        assert first.shape == (6, width)
        assert torch.equal(logits, network(others))
        assert float(share) == pytest.approx(0.3)
    assert first.abs().max() <= 1 + 1e-6  # cosines to the prototypes


def test_batches_hold_two_views_and_balanced_classes():
    dataset, cpu = toy_dataset((90, 10)), torch.device("cpu")
    streams = Streams.seeded(0, 1, 0, cpu)
    plain = InstanceBalanced().build(dataset.train.labels, streams.order)
    shown = TrainingImages(dataset, plain, 25, streams, cpu)
    contrasted, classified = [], []
    for batch in HybridSC().batches(shown, 0.5):
        views, images, share = batch.inputs
        assert (len(views), len(images)) == (50, 25)
        assert float(share) == 0.75
        assert not torch.equal(views[:25], views[25:])  # cropped and mirrored anew
        contrasted.append(batch.target[:, 0])
        classified.append(batch.target[:, 1])
    assert torch.cat(contrasted).bincount().tolist() == [90, 10]
    assert 30 < torch.cat(classified).bincount()[1] < 70
    single = next(iter(HybridPSC().batches(shown, 0.0))).inputs
    assert len(single[0]) == 25
