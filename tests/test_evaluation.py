"""Accuracies against a loop; the folded network against the plain one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import GCLError, digits_cnn, resnet32
from gcl_core.training.evaluation import (
    MOST_CONFUSED,
    Tally,
    frozen,
    outputs_of,
    weighted_accuracy,
)
from gcl_core.training.two_stages import make_fabric
from toys import seeded, toy_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def fabric(request):
    return make_fabric("cpu", request.param)


def lived(network, channels):
    """A network whose normalisation has statistics and weights of its own."""
    generator = seeded(2)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
    return network, torch.randn(5, channels, 16, 16, generator=generator)


@pytest.mark.parametrize(("make", "channels"), [(resnet32, 3), (digits_cnn, 1)])
def test_frozen_backbone_is_the_network_in_eval_mode(fabric, make, channels):
    network, images = lived(make(10), channels)
    infer = frozen(network.backbone, fabric)
    assert network.backbone.training  # as it was
    expected = network.eval().features(images).detach()
    got = infer(images)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    tolerance = 1e-5 if fabric._precision.precision == "32-true" else 0.03
    assert float((got - expected).norm() / expected.norm()) < tolerance


def test_frozen_backbone_does_not_follow_the_network(fabric):
    network, images = lived(digits_cnn(10), 1)
    infer = frozen(network.backbone, fabric)
    before = infer(images)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    assert torch.equal(infer(images), before)
    assert not any(p.grad is not None for p in network.parameters())
    assert all(p.requires_grad for p in network.parameters())


def test_frozen_draws_nothing_and_learns_nothing(fabric):
    network, images = lived(digits_cnn(10), 1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    frozen(network.backbone, fabric)(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_outputs_are_those_of_every_image_in_order():
    dataset = toy_dataset((3, 3), tests=80, size=32)  # three batches
    outputs = outputs_of(lambda x: x.mean((2, 3)), dataset.test, dataset, CPU)
    pixels = dataset.test.images.pixels.float().mean((2, 3)) / 255
    expected = (pixels - torch.tensor(dataset.mean)) / torch.tensor(dataset.std)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 10**6))
def test_accuracies_against_a_loop(classes, images, seed):
    generator = seeded(seed)
    outputs = torch.randint(4, (images, classes), generator=generator).float()  # with ties
    labels = torch.randint(classes, (images,), generator=generator)
    groups = {"many": [0], "medium": list(range(1, classes - 1)), "few": [classes - 1]}
    guesses = [row.index(max(row)) for row in outputs.tolist()]  # ties go to the first

    def percent(members):
        right = [g == y for g, y in zip(guesses, labels.tolist(), strict=True) if y in members]
        return round(100 * sum(right) / len(right), 4) if right else None

    tally, few = Tally(classes), images // 2
    confusion = tally.add(outputs[:few], labels[:few]).add(outputs[few:], labels[few:]).confusion
    for true in range(classes):
        for guess in range(classes):
            pairs = list(zip(labels.tolist(), guesses, strict=True))
            assert confusion[true, guess] == pairs.count((true, guess))
    result = tally.accuracies(groups)
    assert result.pop("confusion") == confusion.tolist()
    assert result == {
        "top1": percent(range(classes)),
        **{group: percent(members) for group, members in groups.items()},
        "per_class": [percent([j]) for j in range(classes)],
    }


def test_many_classes_are_counted_without_a_confusion_matrix():
    classes = MOST_CONFUSED + 1
    outputs = torch.rand(500, classes, generator=seeded())
    labels = torch.randint(classes, (500,), generator=seeded(1))
    outputs[::2].scatter_(1, labels[::2, None], 2.0)  # every second one is right
    groups = {"many": [0, 1], "few": list(range(2, classes))}
    tally = Tally(classes).add(outputs, labels)
    assert tally.confusion is None
    assert tally.cells.shape == (classes, 2)
    right = outputs.argmax(1) == labels
    result = tally.accuracies(groups)
    assert "confusion" not in result
    assert result["top1"] == round(100 * float(right.double().mean()), 4) > 50
    for group, members in groups.items():
        own = torch.isin(labels, torch.tensor(members))
        assert result[group] == round(100 * float(right[own].double().mean()), 4)
    assert result["per_class"][3] == round(100 * float(right[labels == 3].double().mean()), 4)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 9)), min_size=2, max_size=6))
def test_weighted_accuracy_is_that_of_so_many_images(pairs):
    images = [accuracy for accuracy, number in pairs for _ in range(number)]
    accuracies, numbers = zip(*pairs, strict=True)
    if images:
        expected = sum(images) / len(images)
        assert weighted_accuracy(accuracies, numbers) == pytest.approx(expected)
    else:
        with pytest.raises(GCLError, match="not all zero"):
            weighted_accuracy(accuracies, numbers)


def test_weighted_accuracy_refuses():
    with pytest.raises(GCLError, match="2 accuracies need as many weights, got 3"):
        weighted_accuracy([50.0, 60.0], [1, 1, 1])
    with pytest.raises(GCLError, match="weights must be >= 0"):
        weighted_accuracy([50.0, 60.0], [2, -1])
