"""Classifier against a loop; networks by their size, their shortcuts and their generator."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gcl_core import CosineClassifier, GCLError, digits_cnn, resnet32
from gcl_core.networks.backbones import BACKBONES, BasicBlock, pooled
from gcl_core.networks.models import NETWORKS, build_network
from gcl_core.networks.network import Classifier, initialise
from toys import seeded


@given(st.integers(1, 5), st.integers(1, 6), st.integers(2, 5), st.integers(0, 999))
def test_cosines_against_a_loop(samples, dimensions, classes, seed):
    head = CosineClassifier(dimensions, classes)
    head.reset_parameters(seeded(seed))
    features = torch.randn(samples, dimensions, generator=seeded(seed))
    cosine = head(features).tolist()
    for i, f in enumerate(features.tolist()):
        for j, w in enumerate(head.weight.tolist()):
            dot = sum(a * b for a, b in zip(f, w, strict=True))
            expected = dot / math.hypot(*f) / math.hypot(*w)
            assert cosine[i][j] == pytest.approx(expected, abs=1e-5)


def test_cosines_do_not_depend_on_lengths():
    head = CosineClassifier(7, 3)
    features = torch.randn(4, 7, generator=seeded())
    before = head(features)
    with torch.no_grad():
        head.weight *= torch.tensor([[0.01], [3.0], [200.0]])
    torch.testing.assert_close(head(features * torch.tensor([[1e-3], [1], [9], [1e3]])), before)
    assert head(torch.zeros(1, 7)).tolist() == [[0.0, 0.0, 0.0]]  # no direction, and no NaN


def test_anchors_start_with_unit_length():
    head = CosineClassifier(64, 10)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(10))
    assert head.weight.min() < 0 < head.weight.max()
    head.reset_parameters(seeded(1))
    again = CosineClassifier(64, 10)
    assert not torch.equal(head.weight, again.weight)
    again.reset_parameters(seeded(1))
    assert torch.equal(head.weight, again.weight)


def test_weights_of_other_classifiers_are_uniform_in_a_bound():
    weight = Classifier(64, 100).weight.detach()
    assert float(weight.abs().max()) == pytest.approx(1 / 8, rel=0.01)
    assert float(weight.std()) == pytest.approx(1 / 8 / math.sqrt(3), rel=0.05)


def test_cosines_are_float32_under_autocast():
    head, features = CosineClassifier(64, 10), torch.randn(5, 64, generator=seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosine = head(features)
        low = head(features.bfloat16())
    assert cosine.dtype == low.dtype == torch.float32
    assert torch.equal(cosine, head(features))


@pytest.mark.parametrize(
    ("make", "weights", "channels", "size"),
    [(resnet32, 464_154, 3, 32), (digits_cnn, 24_058, 1, 8)],
)
def test_networks_have_their_size_and_shapes(make, weights, channels, size):
    linear, cosine = make(10, "linear"), make(10)
    assert sum(p.numel() for p in linear.parameters()) == weights
    assert sum(p.numel() for p in cosine.parameters()) == weights - 10  # no bias
    images = torch.randn(4, channels, size, size, generator=seeded())
    for network in (linear, cosine):
        network.eval()
        features = network.features(images)
        assert features.shape == (4, 64)
        assert torch.equal(network(images), network.head(features))
        assert network(images).shape == (4, 10)
    assert isinstance(cosine.head, CosineClassifier)
    assert cosine(images).abs().max() <= 1 + 1e-6


def test_resnet32_has_five_blocks_of_each_width():
    layers = [m for m in resnet32(10).modules() if isinstance(m, nn.Conv2d)]
    assert len(layers) + 1 == 32  # and the classifier
    assert [c.out_channels for c in layers] == [16] * 11 + [32] * 10 + [64] * 10
    assert [i for i, c in enumerate(layers) if c.stride == (2, 2)] == [11, 21]


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (8, 2)])
def test_shortcut_subsamples_and_pads_with_zeros(channels, stride):
    block = BasicBlock(4, channels, stride).eval()
    nn.init.zeros_(block.bn2.weight)  # silences the convolutions
    x = torch.randn(2, 4, 6, 6, generator=seeded())
    expected = torch.zeros(2, channels, 6 // stride, 6 // stride)
    before = (channels - 4) // 2
    expected[:, before : before + 4] = x[:, :, ::stride, ::stride]
    assert torch.equal(block(x), F.relu(expected))


@pytest.mark.parametrize("name", ["resnet32", "digits_cnn"])
@pytest.mark.parametrize("head", NETWORKS)
def test_a_generator_decides_every_weight(name, head):
    torch.manual_seed(1)
    first = build_network(name, 5, head, 1, seeded(3)).state_dict()
    torch.manual_seed(2)
    again = build_network(name, 5, head, 1, seeded(3)).state_dict()
    other = build_network(name, 5, head, 1, seeded(4)).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    drawn = [k for k in first if k.endswith("weight") and first[k].ndim > 1]
    assert len(drawn) >= 4
    assert not any(torch.equal(first[k], other[k]) for k in drawn)


def test_initialisation_is_kaiming_normal():
    network = build_network("resnet32", 1000, "linear", generator=seeded())
    head = network.head.weight.detach()
    assert float(head.std()) == pytest.approx(math.sqrt(2 / 64), rel=0.02)
    convolution = network.backbone.blocks[-1].conv2.weight.detach()
    assert float(convolution.std()) == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)
    assert network.head.bias.abs().max() == 0
    for layer in (head, convolution):
        assert abs(float(layer.mean())) < 0.01


def test_initialise_resets_normalisation():
    layer = nn.BatchNorm2d(3)
    layer(torch.randn(4, 3, 2, 2, generator=seeded()) + 5)
    nn.init.constant_(layer.weight, 7)
    initialise(layer)
    assert layer.weight.tolist() == [1, 1, 1]
    assert layer.running_mean.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: build_network("vgg", 10),
            "network 'vgg' is unknown; allowed: resnet32, digits_cnn",
        ),
        (lambda: resnet32(10, "angular"), "head 'angular' is unknown; allowed: cosine, linear, "),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(GCLError, match=message):
        call()


@pytest.mark.parametrize("name", ["resnet32", "digits_cnn"])
def test_the_last_block_can_be_taken_off(name):
    backbone = BACKBONES[name](in_channels=3).eval()
    images = torch.randn(2, 3, 8, 8, generator=seeded())
    whole = backbone.maps(images)
    assert torch.equal(pooled(whole), backbone(images))
    weights = sum(p.numel() for p in backbone.parameters())
    block = backbone.pop_block().eval()
    assert torch.equal(block(backbone.maps(images)), whole)
    parts = [sum(p.numel() for p in part.parameters()) for part in (backbone, block)]
    assert sum(parts) == weights
    assert min(parts) > 0


def test_cosines_of_tokens_are_those_of_each():
    classifier, tokens = CosineClassifier(5, 3), torch.randn(2, 4, 5)
    apart = classifier(tokens.flatten(0, 1)).view(2, 4, 3)
    torch.testing.assert_close(classifier(tokens), apart)
