"""The circle of a planar embedding, its figures, and the choice of classes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import planar, planar_figures
from gcl_core.dataset import load_dataset
from gcl_core.embedding import neighbour_agreement
from gcl_core.errors import GCLError
from gcl_core.methods import resolve
from gcl_core.settings import DataSettings
from gcl_core.training import run

ANGLES = st.lists(st.integers(0, 719), min_size=2, max_size=6, unique=True).map(
    lambda halves: torch.deg2rad(torch.tensor(halves, dtype=torch.float64) / 2)
)


def on_circle(angles):
    return torch.stack([angles.cos(), angles.sin()], 1)


@given(ANGLES)
def test_shares_are_what_a_grid_of_directions_counts(angles):
    anchors = on_circle(angles)
    grid = on_circle((torch.arange(20_000) + 0.5).double() * (2 * math.pi / 20_000))
    counted = torch.bincount((grid @ anchors.T).argmax(1), minlength=len(anchors)) / 20_000
    shares = planar.circle_shares(anchors)
    assert float(shares.sum()) == pytest.approx(1)
    torch.testing.assert_close(shares, counted.double(), rtol=0, atol=2e-4)


@given(ANGLES)
def test_the_nearest_anchor_changes_at_each_end_of_a_sector(angles):
    anchors = on_circle(angles)
    for j, (start, end) in enumerate(planar.circle_sectors(anchors).tolist()):
        for edge, inwards in ((start, 1), (end, -1)):
            around = torch.tensor([edge + inwards * 1e-6, edge - inwards * 1e-6])
            inside, outside = (on_circle(around.double()) @ anchors.T).argmax(1).tolist()
            assert inside == j != outside


def test_a_full_cloud_moves_the_boundary_to_where_the_clouded_cosines_are_equal():
    anchors = on_circle(torch.deg2rad(torch.tensor([0.0, 100.0, 220.0])))
    cloud = torch.tensor([0.0, 0.2, 0.5])
    moved = planar.cloud_angles(anchors, cloud)
    edge = float(planar.circle_sectors(anchors)[1, 1] - moved[1, 1])
    own, _, other = (on_circle(torch.tensor([edge])) @ anchors.double().T)[0].roll(-1).tolist()
    assert own - 0.2 == pytest.approx(other if False else math.cos(edge - math.radians(220)))
    assert moved[0].tolist() == [0, 0]


def test_anchors_must_be_in_the_plane():
    with pytest.raises(GCLError, match=r"anchors must be \(C, 2\), got \(3, 4\)"):
        planar.circle_shares(torch.zeros(3, 4))


def test_classes_are_chosen_in_the_order_that_is_asked_for():
    whole = load_dataset(DataSettings(imbalance_ratio=None))
    some = load_dataset(DataSettings(classes=(5, 2), class_counts=(20, 4)))
    assert (some.class_names, some.class_counts) == (("5", "2"), (20, 4))
    assert torch.bincount(some.train_labels).tolist() == [20, 4]
    for new, old in ((0, 5), (1, 2)):
        mine = some.test_images[some.test_labels == new]
        assert torch.equal(mine, whole.test_images[whole.test_labels == old])
    other = load_dataset(DataSettings(classes=(2, 5), class_counts=(20, 4)))
    assert len({whole.fingerprint, some.fingerprint, other.fingerprint}) == 3


@pytest.mark.parametrize("classes", [(1,), (1, 1), (1, 10)], ids=str)
def test_classes_that_there_are_not_are_refused(classes):
    with pytest.raises(GCLError, match="classes must be two or more different ones of 0 to 9, got"):
        load_dataset(DataSettings(classes=classes))


def test_maps_agree_with_themselves_turned_and_not_with_noise():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(200, 2, generator=generator)
    turned = points @ torch.tensor([[0.0, 3.0], [-3.0, 0.0]])
    assert neighbour_agreement(points, turned) == 1
    noise = torch.randn(200, 2, generator=generator)
    assert neighbour_agreement(points, noise) == pytest.approx(10 / 199, abs=0.03)
    with pytest.raises(GCLError, match="k must be at least 1 and below the 200 points"):
        neighbour_agreement(points, noise, k=200)


@pytest.fixture(scope="module")
def planar_run(tmp_path_factory):
    settings = resolve(
        "digits",
        "gcl",
        "smoke",
        network="planar_cnn",
        classes=(0, 1, 2),
        class_counts=(20, 9, 4),
        epochs=2,
    )
    return run(settings, tmp_path_factory.mktemp("runs"), progress="none", keep=[0, 2])


def test_a_figure_has_every_test_image_sector_and_anchor(planar_run):
    figure = planar_figures.circles_at({"GCL": planar_run}, 0)
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "GCL, epoch 0"
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [50, 50, 50]
    assert len([line for line in axes.lines if line.get_linewidth() == 6]) == 3
    assert len(axes.texts) == 3  # arrows
    text = [each.get_text() for each in figure.legends[0].texts]
    assert text == ["“0”: 20 images", "“1”: 9 images", "“2”: 4 images"]
