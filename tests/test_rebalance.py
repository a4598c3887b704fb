"""Re-balancing: what each kind keeps, what it trains, and its formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gcl_core import CosineClassifier
from gcl_core.methods.objectives import GCL, AngularGCL
from gcl_core.methods.rebalance import (
    CRT,
    LWS,
    DisAlign,
    MetaEmbed,
    NearestMean,
    PostHoc,
    RebalanceInputs,
    TauNorm,
)
from gcl_core.networks.backbones import DigitsCNN
from gcl_core.networks.network import Network
from gcl_core.training.stage import parameter_groups
from toys import seeded

FEATURES = torch.randn(6, 5, generator=seeded(1))
TRAINING = torch.randn(9, 5, generator=seeded(2)) + 1
LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2])
COUNTS = torch.bincount(LABELS)


def in_batches():
    return zip(TRAINING.split(4), LABELS.split(4), strict=True)


def inputs(seed=0):
    return RebalanceInputs(COUNTS, in_batches, seeded(seed))


@pytest.fixture(params=["linear", "cosine"])
def head(request):
    """A classifier whose weights have different lengths."""
    head = nn.Linear(5, 3) if request.param == "linear" else CosineClassifier(5, 3)
    with torch.no_grad():
        head.weight *= torch.tensor([[0.5], [2.0], [4.0]])
    return head


def trained(module):
    return [name for name, p in module.named_parameters() if p.requires_grad]


def unchanged(head, rebalanced):
    """Training what is re-balanced leaves the classifier of stage 1 as it was."""
    before = [p.clone() for p in head.parameters()]
    with torch.no_grad():
        for parameter in rebalanced.parameters():
            parameter.add_(1)
    return all(torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True))


def test_crt_starts_from_a_copy_of_stage_1(head):
    copied = CRT().build(head, inputs())
    assert type(copied) is type(head)
    assert torch.equal(copied(FEATURES), head(FEATURES))
    assert trained(copied) == [name for name, _ in head.named_parameters()]
    assert unchanged(head, copied)


def test_crt_with_a_fresh_head_starts_anew(head):
    before = head(FEATURES)
    first, again, other = (CRT(fresh_head=True).build(head, inputs(s)) for s in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert not torch.equal(first.weight, head.weight)
    assert first.weight.shape == head.weight.shape
    assert torch.equal(head(FEATURES), before)
    if isinstance(head, nn.Linear):
        assert first.bias.tolist() == [0, 0, 0]


def test_lws_trains_one_scale_for_each_class(head):
    scaled = LWS().build(head, inputs())
    assert torch.equal(scaled(FEATURES), head(FEATURES))  # scales start at one
    assert trained(scaled) == ["scales"]
    with torch.no_grad():
        scaled.scales.copy_(torch.tensor([1.0, 2.0, -3.0]))
    assert torch.equal(scaled(FEATURES), head(FEATURES) * torch.tensor([1.0, 2.0, -3.0]))
    assert all(p.requires_grad for p in head.parameters())
    assert unchanged(head, scaled)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_tau_normalisation_against_a_loop(head, tau):
    normalised = TauNorm(tau).build(head, inputs())
    assert trained(normalised) == []
    for features, outputs in zip(FEATURES, normalised(FEATURES), strict=True):
        if isinstance(head, CosineClassifier):
            features = features / features.norm()
        for weight, output in zip(head.weight, outputs, strict=True):
            torch.testing.assert_close(output, features @ weight / weight.norm() ** tau)
    assert unchanged(head, normalised)


def test_tau_normalisation_is_float32_under_autocast(head):
    normalised = TauNorm(1.0).build(head, inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(normalised(FEATURES), normalised(FEATURES.float()))
        assert normalised(FEATURES).dtype == torch.float32


@pytest.mark.parametrize("transform", ["none", "l2n", "cl2n"])
def test_nearest_class_mean_against_a_loop(head, transform):
    nearest = NearestMean(transform).build(head, inputs())
    assert trained(nearest) == []

    def placed(features):
        centre = sum(TRAINING) / 9 if transform == "cl2n" else 0
        moved = features - centre
        return moved if transform == "none" else moved / moved.norm()

    for features, outputs in zip(FEATURES, nearest(FEATURES), strict=True):
        for j, output in enumerate(outputs):
            own = [placed(x) for x, y in zip(TRAINING, LABELS, strict=True) if y == j]
            distance = (placed(features) - sum(own) / len(own)).norm()
            torch.testing.assert_close(output, -(distance**2), rtol=1e-4, atol=1e-5)


def test_post_hoc_adjustment_against_a_loop(head):
    adjusted = PostHoc(tau=0.5, scale=3.0).build(head, inputs())
    assert trained(adjusted) == []
    for outputs, before in zip(adjusted(FEATURES), head(FEATURES), strict=True):
        for output, z, n in zip(outputs, before, COUNTS, strict=True):
            torch.testing.assert_close(output, 3 * z - 0.5 * (n / 9).log())
    assert torch.equal(PostHoc(tau=0.0).build(head, inputs())(FEATURES), head(FEATURES))
    assert unchanged(head, adjusted)


def test_disalign_against_a_loop(head):
    calibrated = DisAlign().build(head, inputs())
    assert trained(calibrated) == ["scale", "offset", "confidence.weight", "confidence.bias"]
    with torch.no_grad():
        calibrated.scale.copy_(torch.tensor([1.0, -2.0, 0.5]))
        calibrated.offset.copy_(torch.tensor([0.3, 0.0, -4.0]))
        calibrated.confidence.bias.fill_(0.7)
    for features, outputs in zip(FEATURES, calibrated(FEATURES), strict=True):
        sure = 1 / (1 + torch.exp(-(0.1 * features.sum() + 0.7)))
        for j, z in enumerate(head(features[None])[0]):
            a, b = calibrated.scale[j], calibrated.offset[j]
            torch.testing.assert_close(outputs[j], (1 + sure * a) * z + sure * b)
    assert unchanged(head, calibrated)


@pytest.mark.parametrize("objective", [GCL(focal_gamma=1.0), AngularGCL()])
@pytest.mark.parametrize("kind", [LWS, DisAlign])
def test_gcl_trains_what_takes_cosines_beyond_one(kind, objective):
    """On a CPU as on a GPU, where nothing is checked."""
    head = kind().build(CosineClassifier(5, 3), inputs())
    with torch.no_grad():
        (head.scales if kind is LWS else head.scale).fill_(2)
        head.head.weight[0] = FEATURES[0]  # a cosine of 1, and an output beyond
    outputs = head(FEATURES)
    assert outputs[0].abs().max() > 1.5
    loss = objective.build(COUNTS, seeded())(outputs, torch.arange(6) % 3)
    loss.backward()
    for name in trained(head):
        assert head.get_parameter(name).grad.isfinite().all()
        assert head.get_parameter(name).grad.abs().max() > 0


def test_gcl_of_scaled_cosines_is_cross_entropy_of_their_multiples():
    """Without a cloud; DisAlign and LWS calibrate the logits s cos theta that way."""
    head, target = LWS().build(CosineClassifier(5, 3), inputs()), torch.arange(6) % 3
    with torch.no_grad():
        head.scales.fill_(2)
    criterion = GCL(noise_multiplier=0.0).build(COUNTS, seeded())
    expected = F.cross_entropy(60 * head.head(FEATURES), target)
    torch.testing.assert_close(criterion(head(FEATURES), target), expected)


@pytest.mark.parametrize("transform", ["none", "l2n", "cl2n"])
def test_a_feature_on_a_class_mean_is_of_that_class(head, transform):
    labels = torch.arange(3).repeat_interleave(20)
    places = torch.tensor([[9.0, 0, 0, 0, 1], [0, 9, 0, 0, 1], [0, 0, -9, 0, 1]])
    features = places[labels] + torch.randn(60, 5, generator=seeded(3))
    given = RebalanceInputs(torch.bincount(labels), lambda: [(features, labels)], seeded())
    means = torch.stack([features[labels == j].mean(0) for j in range(3)])
    outputs = NearestMean(transform).build(head, given)(means)
    assert outputs.argmax(1).tolist() == [0, 1, 2]
    if transform == "none":
        torch.testing.assert_close(outputs.diagonal(), torch.zeros(3), atol=1e-5, rtol=0)


def test_lws_can_train_the_classifier_at_its_own_rate(head):
    scaled = LWS(head_lr_factor=0.5).build(head, inputs())
    groups = parameter_groups(scaled)
    sizes = {g["lr_factor"]: sum(p.numel() for p in g["params"]) for g in groups}
    assert sizes == {1.0: 3, 0.5: sum(p.numel() for p in head.parameters())}
    assert unchanged(head, scaled)


@pytest.mark.parametrize("factor", [0.5, 0.0])
@pytest.mark.parametrize("batch_norm", ["frozen", "shifted"])
def test_lws_has_its_rates_in_the_whole_network_too(batch_norm, factor):
    """With shifted statistics it is the network that is trained, not the classifier alone."""
    kind = LWS(factor, batch_norm)
    network = kind.network(Network(DigitsCNN(3), nn.Linear(64, 3)), inputs())
    groups = parameter_groups(network if kind.on_images else network.head)
    sizes = {g["lr_factor"]: sum(p.numel() for p in g["params"]) for g in groups}
    assert sizes == ({1.0: 3, 0.5: 64 * 3 + 3} if factor else {1.0: 3})


def test_oltr_keeps_its_slow_parts():
    network = MetaEmbed(0.1).network(
        Network(DigitsCNN(3), nn.Linear(64, 3)),
        RebalanceInputs(COUNTS, lambda: [(torch.randn(9, 64), LABELS)], seeded()),
    )
    factor = {id(p): g["lr_factor"] for g in parameter_groups(network) for p in g["params"]}
    for name, parameter in network.named_parameters():
        slow = name.startswith("backbone.") or name == "head.centroids"
        assert factor[id(parameter)] == (0.1 if slow else 1.0)


def test_the_outermost_factor_counts():
    inner, outer = nn.Sequential(nn.Linear(2, 2)), nn.Sequential()
    inner.lr_factors = {"0.": 0.5}
    outer.append(inner)
    assert [g["lr_factor"] for g in parameter_groups(outer)] == [0.5]
    outer.lr_factors = {"0.": 0.1}
    assert [g["lr_factor"] for g in parameter_groups(outer)] == [0.1]


@pytest.mark.parametrize("kind", [CRT, LWS])
def test_shifted_batch_norm_moves_statistics_and_nothing_else(kind):
    network = Network(DigitsCNN(3), nn.Linear(64, 3))
    shifted = kind(batch_norm="shifted").network(network, inputs())
    before = {name: part.clone() for name, part in shifted.backbone.state_dict().items()}
    assert not any(p.requires_grad for p in shifted.backbone.parameters())
    shifted.train()(torch.randn(9, 3, 8, 8, generator=seeded()))
    moved = {
        k for k, part in shifted.backbone.state_dict().items() if not torch.equal(part, before[k])
    }
    assert {name.rsplit(".")[-1] for name in moved} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert kind(batch_norm="shifted").on_images
    assert not kind().on_images
