"""OLTR: attention, meta-embedding and loss against loops, and how stage 2 begins."""

import math

import pytest
import torch
from torch import nn

from gcl_core.methods.rebalance import MetaEmbed, RebalanceInputs
from gcl_core.networks import oltr
from gcl_core.networks.backbones import DigitsCNN
from gcl_core.networks.network import Network
from gcl_core.networks.oltr import Attraction, MetaEmbedding, ModulatedAttention, OLTRLoss
from gcl_core.training.stage import parameter_groups
from losses import is_close, logit_batch, softmax
from toys import seeded

FEATURES = torch.randn(9, 5, generator=seeded(1))
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])


def product(weight, bias, x):
    """W x + b of lists."""
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + b
        for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
    ]


def test_meta_embedding_against_a_loop():
    head = MetaEmbedding(nn.Linear(5, 3), torch.randn(3, 5, generator=seeded(2)))
    centroids = head.centroids.tolist()
    for x, outputs in zip(FEATURES.tolist(), head(FEATURES), strict=True):
        shares = softmax(product(head.hallucinator.weight, head.hallucinator.bias, x))
        memory = [sum(p * c[d] for p, c in zip(shares, centroids, strict=True)) for d in range(5)]
        gate = [math.tanh(v) for v in product(head.selector.weight, head.selector.bias, x)]
        reach = 10 / min(math.dist(x, c) for c in centroids)
        meta = [reach * (v + g * m) for v, g, m in zip(x, gate, memory, strict=True)]
        squashed = [v / (1 + math.hypot(*meta)) for v in meta]
        for j, w in enumerate(head.classifier.weight.tolist()):
            dot = sum(a * b for a, b in zip(squashed, w, strict=True))
            assert outputs[j].item() == pytest.approx(16 * dot / math.hypot(*w), abs=1e-4)


def test_a_feature_on_a_centroid_has_finite_outputs_and_gradients():
    centroids = torch.randn(3, 5, generator=seeded(2))
    head = MetaEmbedding(nn.Linear(5, 3), centroids.clone())
    features = centroids.clone().requires_grad_()
    head(features).sum().backward()
    assert features.grad.isfinite().all()
    assert head.centroids.grad is None  # a constant here


def test_a_small_distance_to_a_centroid_is_exact():
    """With more than 25 rows cdist would take a matrix product, and lose most of its digits."""
    centroids = 30 * torch.randn(40, 16, generator=seeded(2))
    features = centroids.roll(3, 0) + 0.003 * torch.randn(40, 16, generator=seeded(3))
    head = MetaEmbedding(nn.Linear(16, 40), centroids, reach=7.0)
    head.classifier, head.selector = nn.Identity(), nn.Identity()  # x_meta itself,
    nn.init.zeros_(head.hallucinator.weight)
    nn.init.zeros_(head.hallucinator.bias)  # with the mean centroid as memory
    memory = centroids.double().mean(0)
    for x, meta in zip(features.double(), head(features).double(), strict=True):
        nearest = min(math.dist(x.tolist(), c) for c in centroids.tolist())
        expected = 7 / nearest * (x + x.tanh() * memory)
        torch.testing.assert_close(meta, expected, rtol=1e-4, atol=1e-2)


def naive_attention(layer, maps):
    """Of one image: maps (D, positions)."""
    columns = maps.T.tolist()
    inner = [
        [product(f.weight.flatten(1), f.bias, x) for x in columns]
        for f in (layer.query, layer.key, layer.value)
    ]
    query, key, value = inner
    scores = [product(layer.where.weight.flatten(1), layer.where.bias, x)[0] for x in columns]
    where = softmax(scores)
    result = []
    for i, x in enumerate(columns):
        weights = softmax([sum(a * b for a, b in zip(query[i], k, strict=True)) for k in key])
        mixed = [
            sum(w * v[c] for w, v in zip(weights, value, strict=True)) for c in range(len(query[i]))
        ]
        assert layer.out.bias is None
        out = product(layer.out.weight.flatten(1), torch.zeros(len(x)), mixed)
        result.append([a + where[i] * b for a, b in zip(x, out, strict=True)])
    return torch.tensor(result).T


def test_attention_against_a_loop():
    layer = ModulatedAttention(4)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=seeded(parameter.numel()))
    maps = torch.randn(2, 4, 2, 3, generator=seeded(3))
    for each, attended in zip(maps, layer(maps), strict=True):
        expected = naive_attention(layer, each.flatten(1)).view(4, 2, 3)
        torch.testing.assert_close(attended, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("few", [0, oltr.FEW])
@pytest.mark.parametrize("spread", [0.1, 2.0])
def test_loss_against_a_loop(spread, few, monkeypatch):
    monkeypatch.setattr(oltr, "FEW", few)
    logits, target = logit_batch(classes=3)
    features = spread * torch.randn(40, 5, generator=seeded(4), dtype=torch.float64)
    centroids = spread * torch.randn(3, 5, generator=seeded(5), dtype=torch.float64)
    entropy = attract = others = 0.0
    for row, y, x in zip(logits.tolist(), target.tolist(), features.tolist(), strict=True):
        entropy -= math.log(softmax(row)[y]) / 40
        for j, c in enumerate(centroids.tolist()):
            if j == y:
                attract += math.dist(x, c) ** 2 / 2 / 40
            else:
                others += math.dist(x, c) ** 2 / 120
    repel = max(0, 10 - others)
    assert (repel > 0) == (spread < 1)
    expected = entropy + 0.3 * (attract + 0.01 * repel)
    is_close(OLTRLoss(0.3)((logits, features, centroids), target), expected)


@pytest.mark.parametrize("weight", [0.01, 1.0])
def test_centroids_move_as_in_the_published_code(weight):
    """sum_{i in j} (c_j - x_i) / (1 + n_j) / N: the weight of the loss is not in it."""
    features = torch.randn(7, 4, generator=seeded(4), dtype=torch.float64).requires_grad_()
    centroids = torch.randn(3, 4, generator=seeded(5), dtype=torch.float64).requires_grad_()
    target = torch.tensor([0, 0, 0, 0, 2, 2, 0])  # none of class 1
    (weight * Attraction.apply(features, centroids, target)).backward()
    moved = torch.zeros(3, 4, dtype=torch.float64)
    for j, count in ((0, 5), (2, 2)):
        for x, y in zip(features.detach(), target, strict=True):
            if y == j:
                moved[j] += (centroids.detach()[j] - x) / (1 + count) / 7
    torch.testing.assert_close(centroids.grad, moved)
    for x, y, own in zip(features.detach(), target, features.grad, strict=True):
        torch.testing.assert_close(own, weight * (x - centroids.detach()[y]) / 7)


@pytest.mark.parametrize("few", [0, oltr.FEW])
def test_the_loss_moves_centroids_by_attraction_and_repulsion(few, monkeypatch):
    monkeypatch.setattr(oltr, "FEW", few)
    logits = torch.zeros(7, 3, dtype=torch.float64)
    features = 0.1 * torch.randn(7, 4, generator=seeded(4), dtype=torch.float64)
    centroids = (0.1 * torch.randn(3, 4, generator=seeded(5), dtype=torch.float64)).requires_grad_()
    target = torch.tensor([0, 0, 0, 0, 2, 2, 0])
    OLTRLoss(0.5)((logits, features, centroids), target).backward()
    for j, c in enumerate(centroids.detach()):
        own = features[target == j]
        attract = (c - own).sum(0) / (1 + len(own)) / 7
        repel = -0.5 * 0.01 * 2 * (c - features[target != j]).sum(0) / (7 * 3)
        torch.testing.assert_close(centroids.grad[j], attract + repel)


def test_stage_2_begins_where_stage_1_ended():
    network = Network(DigitsCNN(3), nn.Linear(64, 3))
    images = torch.randn(9, 3, 8, 8, generator=seeded(6))
    before = network.eval().features(images)
    weight = network.head.weight.clone()
    inputs = RebalanceInputs(torch.bincount(LABELS), lambda: [(before.detach(), LABELS)], seeded())
    begun = MetaEmbed(slow_factor=0.2).network(network, inputs).eval()
    torch.testing.assert_close(begun.features(images), before)  # attention adds nothing yet
    assert torch.equal(begun.head.hallucinator.weight, weight)
    for j in range(3):
        torch.testing.assert_close(begun.head.centroids[j], before[j == LABELS].mean(0))
    slow = {id(p) for p in [*begun.backbone.parameters(), begun.head.centroids]}
    groups = {g["lr_factor"]: {id(p) for p in g["params"]} for g in parameter_groups(begun)}
    assert groups[0.2] == slow
    assert groups[1.0] == {id(p) for p in begun.parameters()} - slow


def test_in_training_it_gives_what_the_loss_takes():
    network = Network(DigitsCNN(3), nn.Linear(64, 3))
    images = torch.randn(9, 3, 8, 8, generator=seeded(6))
    inputs = RebalanceInputs(
        torch.bincount(LABELS), lambda: [(torch.rand(9, 64), LABELS)], seeded()
    )
    begun = MetaEmbed().network(network, inputs).train()
    outputs = begun(images)
    OLTRLoss(0.01)(outputs, LABELS).backward()
    assert all(p.grad is not None for p in begun.parameters())
    assert begun.eval()(images).shape == (9, 3)
