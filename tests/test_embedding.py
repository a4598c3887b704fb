import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gcl_core.analysis import embedding
from gcl_core.errors import GCLError
from gcl_core.methods.registry import resolve
from gcl_core.training.evaluation import outputs_of
from gcl_core.training.two_stages import run
from toys import seeded, toy_dataset


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch for each re-balancing."""
    runs, data = tmp_path_factory.mktemp("runs"), toy_dataset(counts=(30, 12, 5))
    changes = {"network": "digits_cnn", "precision": "float32"}
    return {
        kind: run(
            resolve("folder:toy", "gcl_crt", "smoke", stage2_rebalance=kind, **changes),
            runs,
            dataset=data,
            progress="none",
        )
        for kind in ("crt", "lws", "tau_norm")
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_features_give_the_networks_cosines(trained, split):
    finished = trained["crt"]
    features, labels = embedding.features_of(finished, split)
    data = finished.dataset
    assert torch.equal(labels, getattr(data, split).labels)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(len(labels)))
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.mean, data.std))
    with torch.no_grad():
        cosine = finished.network((getattr(data, split).images.pixels / 255 - mean) / std)
    product = features @ embedding.class_anchors(finished).T
    torch.testing.assert_close(product, cosine, rtol=1e-3, atol=1e-4)


def test_anchors_are_found_in_every_kind_of_classifier(trained):
    kept = embedding.class_anchors(trained["tau_norm"])
    torch.testing.assert_close(embedding.class_anchors(trained["lws"]), kept)
    assert kept.shape == (3, 64)
    torch.testing.assert_close(kept.norm(dim=1), torch.ones(3))


def test_norms_are_those_of_what_the_classifier_multiplies_by(trained):
    lws = trained["lws"].network.head
    expected = [
        abs(scale) * math.hypot(*row)
        for scale, row in zip(lws.scales.tolist(), lws.head.weight.tolist(), strict=True)
    ]
    assert embedding.weight_norms(trained["lws"]).tolist() == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(lws.scales, torch.ones(3))
    crt = trained["crt"].network.head.weight
    torch.testing.assert_close(embedding.weight_norms(trained["crt"]), crt.norm(dim=1).detach())


def test_spread_of_features_on_a_cone_is_the_cones_angle():
    angle = math.radians(25)
    turns = torch.arange(12) * (2 * math.pi / 12)
    cone = torch.stack(
        [
            math.sin(angle) * turns.cos(),
            math.sin(angle) * turns.sin(),
            torch.full((12,), math.cos(angle)),
        ],
        1,
    )
    features = torch.cat([cone * torch.linspace(1, 9, 12)[:, None], torch.eye(3)[:1]])
    labels = torch.tensor([0] * 12 + [1])
    spread = embedding.angular_spread(features, labels, 3)
    # Lengths do not count; one image, and none, have no spread.
    assert float(spread[0]) == pytest.approx(25, abs=1e-4)
    assert torch.isnan(spread[1:]).all()


def test_angles_between_anchors_are_those_of_a_simplex_and_of_a_circle():
    simplex = (torch.eye(10) - 0.1) * torch.linspace(1, 5, 10)[:, None]
    apart = embedding.anchor_angles(simplex)[~torch.eye(10, dtype=torch.bool)]
    assert apart.tolist() == pytest.approx([math.degrees(math.acos(-1 / 9))] * 90)
    at = torch.tensor([0.0, 10.0, 40.0, 200.0], dtype=torch.float64).deg2rad()
    angles = embedding.anchor_angles(torch.stack([at.cos(), at.sin()], 1))
    assert angles.diagonal().isnan().all()
    assert angles[0, 1:].tolist() == pytest.approx([10, 40, 160])
    assert angles[3, :3].tolist() == pytest.approx([160, 170, 160])


def test_answers_are_counted_as_if_the_images_were_balanced():
    confusion = torch.tensor([[3, 1, 0], [0, 0, 0], [1, 0, 0]])  # class 1 has no image
    assert embedding.answer_shares(confusion).tolist() == [0.875, 0.125, 0]


def test_room_between_images_is_that_of_all_pairs_of_classes_alike(trained):
    finished = trained["lws"]
    data, labels = finished.dataset, finished.dataset.test.labels
    features = outputs_of(finished.network.features, data.test, data, torch.device("cpu"))
    expected = torch.zeros(3)
    for i, one in enumerate(features):
        for j, other in enumerate(features):
            if labels[i] != labels[j]:
                answer = finished.network.head((one + other)[None] / 2).argmax()
                weight = 1 / ((labels == labels[i]).sum() * (labels == labels[j]).sum())
                expected[answer] += weight / 6
    found = embedding.shares_between(finished)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=0.015)
    assert torch.equal(found, embedding.shares_between(finished))


def test_overlap_is_the_naive_count():
    features = torch.randn(40, 3, generator=seeded())
    labels = torch.randint(4, (40,), generator=seeded(1))
    unit = F.normalize(features).numpy()
    expected = np.zeros(5)
    for i in range(40):
        order = sorted((j for j in range(40) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
        expected[labels[i]] += np.mean([labels[j] != labels[i] for j in order[:7]])
    counts = np.bincount(labels.numpy(), minlength=5)
    result = embedding.overlap(features, labels, 5, k=7).numpy()
    np.testing.assert_allclose(result[:4], expected[:4] / counts[:4])
    assert np.isnan(result[4])


def test_tsne_keeps_clusters_apart_and_is_reproducible():
    centres = torch.eye(3).repeat_interleave(20, 0)
    features = centres + 0.05 * torch.randn(60, 3, generator=seeded())
    first, second = (embedding.tsne(features, perplexity=10) for _ in range(2))
    assert torch.equal(first, second)
    labels = torch.arange(3).repeat_interleave(20)
    distances = torch.cdist(first, first).fill_diagonal_(torch.inf)
    assert torch.equal(labels[distances.argmin(1)], labels)


def test_tsne_sees_directions_only():
    features = torch.randn(30, 4, generator=seeded())
    # Powers of two: not even the last bit of a direction changes.
    longer = features * 2.0 ** (torch.arange(30) % 7)[:, None]
    maps = [embedding.tsne(x, perplexity=5) for x in (features, longer)]
    assert torch.equal(*maps)


def test_maps_of_few_images_lower_the_perplexity(trained):
    positions, labels = embedding.map_of(trained["crt"], "test", points=1000, perplexity=50)
    assert positions.shape == (12, 2)
    assert torch.equal(labels, trained["crt"].dataset.test.labels)


def test_thinning_keeps_proportions_and_every_class():
    labels = torch.tensor([0] * 900 + [1] * 99 + [2])
    kept = embedding.thinned(labels, 100)
    assert torch.bincount(labels[kept]).tolist() == [90, 9, 1]
    assert torch.equal(kept, embedding.thinned(labels, 100))
    assert torch.equal(embedding.thinned(labels, 1000), torch.arange(1000))
    assert torch.bincount(labels[embedding.thinned(labels, 10)]).tolist() == [9, 1, 1]


def test_group_means_leave_out_what_has_no_value():
    values = torch.tensor([1.0, 3.0, torch.nan, 8.0])
    means = embedding.group_means(values, {"many": [0, 1], "few": [2, 3]})
    assert means == {"many": 2.0, "few": 8.0}


def test_room_is_the_radius_of_a_class_in_units_of_the_map():
    positions = torch.tensor([[0.0, 0], [2, 0], [10, 5], [10, 11]])
    labels = torch.tensor([0, 0, 2, 2])
    whole = float((positions - positions.mean(0)).square().sum(1).mean().sqrt())
    room = embedding.room(positions, labels, 3)
    assert room[[0, 2]].tolist() == pytest.approx([1 / whole, 3 / whole])
    assert torch.isnan(room[1])
    torch.testing.assert_close(
        embedding.room(7 * positions - 3, labels, 3), room, equal_nan=True, rtol=1e-6, atol=0
    )


def test_a_map_that_keeps_neighbours_is_told_from_a_random_one():
    angles = 3 * torch.rand(200, generator=seeded())
    lengths = 1 + 9 * torch.rand(200, 1, generator=seeded(1))
    features = lengths * torch.stack([angles.cos(), angles.sin()], 1)
    kept = torch.stack([angles, 0 * angles], 1)
    assert embedding.neighbours_kept(features, kept) > 0.999
    shuffled = kept[torch.randperm(200, generator=seeded(2))]
    assert embedding.neighbours_kept(features, shuffled) == pytest.approx(0.5, abs=0.06)
    # Points that the map piles up though they lie apart count; neighbours torn apart do not.
    folded = torch.stack([(angles - 1.5).abs(), 0 * angles], 1)
    torn = torch.stack([angles + 10 * (angles > 1.5), 0 * angles], 1)
    assert embedding.neighbours_kept(features, folded) < 0.9
    assert embedding.neighbours_kept(features, torn) > 0.99
    for k in (0, 100):
        with pytest.raises(
            GCLError, match=f"k must be at least 1 and below half of 200 .* got {k}"
        ):
            embedding.neighbours_kept(features, kept, k)
