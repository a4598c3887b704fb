"""An embedding in the plane: what the circle belongs to, where clouds move it, and its training."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import GCLLoss, cloud_sizes
from gcl_core.analysis import planar_network as planar
from gcl_core.analysis.gaussian import matched_tau
from gcl_core.data.imbalance import nested_subset
from gcl_core.figures.planar_maps import Trained, planes
from gcl_core.losses.priors import LogitAdjustedLoss
from toys import load_source

COUNTS = planar.COUNTS


def on_circle(*degrees, length=1.0):
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return length * torch.stack([angles.cos(), angles.sin()], 1)


angles = st.lists(st.integers(0, 359), min_size=2, max_size=6, unique=True)
directions = torch.arange(0.25, 360, 0.5, dtype=torch.float64)  # never on a bisector


def given_to(anchors):
    """The class of each of `directions`, by the largest cosine."""
    return (on_circle(*directions.tolist()) @ F.normalize(anchors).T).argmax(1)


@given(angles, st.floats(0.1, 10))
def test_shares_are_those_of_a_fine_grid_and_sum_to_one(degrees, length):
    anchors = on_circle(*degrees, length=length)
    shares = planar.circle_shares(anchors)
    counted = torch.bincount(given_to(anchors), minlength=len(degrees)).double() / len(directions)
    torch.testing.assert_close(shares, counted, atol=1e-9, rtol=0)
    assert float(shares.sum()) == pytest.approx(1)


@given(angles)
def test_the_argmax_changes_at_the_boundaries_and_nowhere_else(degrees):
    anchors = on_circle(*degrees)
    found = planar.boundaries(anchors)
    assert len(found) == len(degrees)
    for boundary in found:
        sides = on_circle(boundary.angle - 0.1, boundary.angle + 0.1) @ anchors.T
        assert sides.argmax(1).tolist() == [boundary.first, boundary.second]
    owner = given_to(anchors)
    changes = (owner != owner.roll(1)).nonzero().flatten()
    between = sorted(float(directions[i] - 0.25) % 360 for i in changes)
    assert between == pytest.approx(sorted(b.angle % 360 for b in found), abs=1e-6)


@given(angles, st.floats(-2.5, 2.5))
def test_a_moved_boundary_is_where_the_cosines_differ_by_the_shift(degrees, shift):
    anchors = on_circle(*degrees)
    for boundary in planar.boundaries(anchors):
        moved = boundary.moved(shift)
        cosine = on_circle(moved) @ anchors.T
        difference = float(cosine[0, boundary.first] - cosine[0, boundary.second])
        largest = 2 * math.sin(math.radians(boundary.half))
        assert difference == pytest.approx(max(-largest, min(largest, shift)), abs=1e-6)
        assert (moved - boundary.angle) * shift <= 0  # towards the first for a positive shift
        assert boundary.moved(0) == boundary.angle


def test_a_full_cloud_of_the_paper_at_equal_angles():
    first = planar.boundaries(on_circle(0, 120, 240))[0]
    assert (first.first, first.second, first.half) == pytest.approx((0, 1, 60))
    assert first.angle - first.moved(1) == pytest.approx(math.degrees(math.asin(3**-0.5)))


def test_the_angle_to_the_boundary_by_hand():
    anchors = on_circle(350, 90, 200)  # boundaries at 40, 145 and 275
    features = on_circle(0, 39, 41, 280, 265, 100, 145 + 180, length=3)
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    expected = [40, 1, -1, 5, -10, 45, -75]
    measured = planar.angles_to_boundary(features, labels, anchors)
    assert measured.tolist() == pytest.approx(expected)


@given(angles, st.integers(0, 10**6))
def test_a_feature_is_inside_exactly_when_it_is_classified_right(degrees, seed):
    anchors = on_circle(*degrees)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(len(degrees), (50,), generator=generator)
    inside = planar.angles_to_boundary(features, labels, anchors) > 0
    assert torch.equal(inside, (features @ anchors.T).argmax(1) == labels)


def test_accuracies_and_medians_are_those_of_a_loop():
    anchors, labels = on_circle(0, 180), torch.tensor([0, 0, 0, 1, 1])
    long_and_short = on_circle(0, 90) * torch.tensor([[5.0], [1.0]])  # only directions count
    right = planar.class_accuracies(on_circle(10, 80, 100, 170, 20), labels, anchors)
    assert right.tolist() == pytest.approx([200 / 3, 50])
    right = planar.class_accuracies(on_circle(55, 40), torch.tensor([1, 0]), long_and_short)
    assert right.tolist() == [100, 100]
    values = torch.tensor([5.0, 1.0, 3.0, 2.0, 7.0])
    assert planar.class_medians(values, labels, 2).tolist() == [3, 2]


# Data.


def test_digits_are_long_tailed_centred_and_drawn_by_the_seed():
    data = planar.few_digits(1)
    assert data.train_images.shape == (158, 64)
    assert data.test_images.shape == (150, 64)
    assert torch.bincount(data.train_labels).tolist() == list(COUNTS) == list(data.class_counts)
    assert torch.bincount(data.test_labels).tolist() == [50, 50, 50]
    assert float(data.train_images.mean(0).abs().max()) < 1e-6
    assert data.class_names == ("3", "5", "9")
    again, other = planar.few_digits(1), planar.few_digits(2)
    assert torch.equal(data.train_images, again.train_images)
    assert not torch.equal(data.test_images, other.test_images)
    assert float(torch.cdist(data.train_images, data.test_images).min()) > 1e-3
    source = load_source("digits", data_seed=1)
    labels = torch.tensor([{3: 0, 5: 1, 9: 2}.get(int(y), -1) for y in source.train.labels])
    pool = source.train.images.pixels[labels >= 0]
    chosen = nested_subset(labels[labels >= 0], list(COUNTS), torch.Generator().manual_seed(1))
    images = pool[chosen].flatten(1) / 255
    torch.testing.assert_close(data.train_images, images - images.mean(0))


# Training.


def cloud(seed=0, **more):
    return GCLLoss(COUNTS, scale=10, generator=torch.Generator().manual_seed(seed), **more)


def test_training_keeps_the_epochs_asked_for_in_order():
    data = planar.few_digits(0)
    kept = planar.train_plane(data, cloud(), epochs=3, keep=[2, 0])
    assert list(kept) == [0, 2, 3]
    for plane in kept.values():
        assert plane.anchors.shape == (3, 2)
        assert plane.train.shape == (158, 2)
        assert plane.test.shape == (150, 2)
        assert not plane.train.requires_grad
    start = kept[0].anchors
    assert planar.directions(start).tolist() == pytest.approx([0, 120, 240], abs=1e-4)
    assert not torch.equal(start, kept[2].anchors)
    # What is kept does not change the training, nor is it changed by it.
    short = planar.train_plane(data, cloud(), epochs=2)
    assert torch.equal(short[2].train, kept[2].train)


def test_training_is_deterministic_and_leaves_the_global_generator_alone():
    data, state = planar.few_digits(0), torch.get_rng_state()
    first, second, other = (
        planar.train_plane(data, cloud(), epochs=5, seed=seed)[5] for seed in (0, 0, 1)
    )
    assert torch.equal(first.test, second.test)
    assert not torch.equal(first.test, other.test)
    assert torch.equal(torch.get_rng_state(), state)
    noisy = planar.train_plane(data, cloud(1), epochs=5)[5]
    assert not torch.equal(first.test, noisy.test)


@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_learned_and_a_margin_takes_the_tail_from_the_boundary(seed):
    data = planar.few_digits(seed)
    tau = matched_tau(COUNTS, 10, 1)
    standing, right = {}, {}
    for name, criterion in {
        "ce": cloud(noise_multiplier=0),
        "fixed": LogitAdjustedLoss(COUNTS, tau=tau, scale=10),
        "gcl": cloud(noise_multiplier=1),
    }.items():
        at = planar.train_plane(data, criterion, seed=seed)[200]
        inner = planar.angles_to_boundary(at.train, data.train_labels, at.anchors)
        standing[name] = float(planar.class_medians(inner, data.train_labels, 3)[2])
        right[name] = planar.class_accuracies(at.test, data.test_labels, at.anchors)
        assert float(right[name].min()) > 45
    assert standing["ce"] + 5 < min(standing["fixed"], standing["gcl"])
    assert float(right["ce"][2]) < min(float(right["fixed"][2]), float(right["gcl"][2]))


# Figures.


def test_the_figure_shows_arcs_clouds_and_margins_in_true_size():
    data = planar.few_digits(0)
    plane = planar.train_plane(data, cloud(), epochs=1)[1]
    sizes = cloud_sizes(COUNTS).tolist()
    means = [0.27 * size for size in sizes]
    drawn = {
        "bare": Trained(plane),
        "margin": Trained(plane, margins=means),
        "cloud": Trained(plane, margins=means, clouds=sizes),
    }
    figure = planes(data, drawn, columns=2)
    bare, margin, clouded, empty = figure.axes
    assert not empty.axison
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == list(drawn)
    shares = planar.circle_shares(plane.anchors)
    arcs = sum(w.theta2 - w.theta1 for w in bare.patches)
    assert arcs == pytest.approx(360)
    assert len(bare.patches) == 6
    assert float(shares.sum()) == pytest.approx(1)
    dashed = [
        [line for line in axes.lines if line.get_linestyle() == "--"] for axes in (bare, margin)
    ]
    assert [len(lines) for lines in dashed] == [0, 3]
    first = planar.boundaries(plane.anchors)[0]
    x, y = dashed[1][0].get_data()
    there = math.degrees(math.atan2(y[1], x[1])) % 360
    assert there == pytest.approx(first.moved(means[first.first] - means[first.second]) % 360)
    # Fans: for each boundary one on either side, of the head without width.
    fans = [(w.theta1, w.theta2) for w in clouded.patches if w.width is None]
    expected = [
        (b.moved(sizes[b.first]), b.moved(-sizes[b.second]))
        for b in planar.boundaries(plane.anchors)
    ]
    assert sum(high - low for low, high in fans) == pytest.approx(
        sum(high - low for low, high in expected)
    )
    for fan in fans:
        assert any(low - 1e-6 <= fan[0] <= fan[1] <= high + 1e-6 for low, high in expected)
    texts = [text.get_text() for text in bare.texts if text.get_text()]
    right = planar.class_accuracies(plane.test, data.test_labels, plane.anchors)
    assert texts == [f"{n}: {r:.0f} %" for n, r in zip(data.class_names, right, strict=True)]
    assert not plt.get_fignums()
