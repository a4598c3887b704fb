"""The long-tailed data set: counts, ratio, groups, statistics and fingerprint."""

import dataclasses
import itertools

import pytest
import torch

from gcl_core import GCLError, long_tailed_counts
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.data.sources import load_source
from toys import image_folder


def load(**settings):
    return load_dataset(DataSettings(**settings))


def pairs(dataset):
    return zip(dataset.train.images.pixels, dataset.train.labels.tolist(), strict=True)


def images_of(dataset):
    return {image.numpy().tobytes() for image in dataset.train.images.pixels}


def test_digits_are_long_tailed_and_the_test_set_is_not():
    dataset = load(imbalance_ratio=50)
    assert list(dataset.class_counts) == long_tailed_counts(124, 10, 50)
    assert torch.bincount(dataset.train.labels).tolist() == list(dataset.class_counts)
    assert torch.bincount(dataset.test.labels).tolist() == [50] * 10
    assert dataset.imbalance_ratio == 62  # 124 / 2: the true one, after rounding down
    assert dataset.groups == {"many": [0, 1, 2], "medium": [3, 4, 5, 6], "few": [7, 8, 9]}
    for text in (
        "ratio 62",
        "class counts [124, ",
        "many 3, medium 4, few 3",
        "digits",
        "500 test",
    ):
        assert text in str(dataset)


def test_subsets_are_nested_across_ratios_of_one_seed():
    subsets = [images_of(load(imbalance_ratio=r)) for r in (1, 10, 50, 124)]
    for larger, smaller in itertools.pairwise(subsets):
        assert smaller < larger
    assert not images_of(load(imbalance_ratio=124, data_seed=1)) <= subsets[1]


def test_images_keep_their_labels():
    source = load_source("digits")
    by_image = {
        image.numpy().tobytes(): label
        for image, label in zip(
            source.train.images.pixels, source.train.labels.tolist(), strict=True
        )
    }
    dataset = load(imbalance_ratio=10)
    for image, label in zip(
        dataset.train.images.pixels, dataset.train.labels.tolist(), strict=True
    ):
        assert by_image[image.numpy().tobytes()] == label


def test_step_profile_and_explicit_counts_and_no_change():
    assert load(imbalance_ratio=10, profile="step").class_counts == (124,) * 5 + (12,) * 5
    assert load(imbalance_ratio=10, n_max=50).class_counts == tuple(long_tailed_counts(50, 10, 10))
    counts = (9, 8, 7, 6, 5, 4, 3, 2, 1, 11)
    explicit = load(class_counts=counts, imbalance_ratio=50)
    assert explicit.class_counts == counts
    assert explicit.groups["few"] == [6, 7, 8]  # by images, not by position
    whole = load(imbalance_ratio=None)
    assert sum(whole.class_counts) == 1797 - 500


def test_a_folder_keeps_its_own_distribution(tmp_path):
    image_folder(tmp_path, ("a", "b"), train=4)
    image_folder(tmp_path, ("c",), train=9)
    dataset = load(dataset=f"folder:{tmp_path}", imbalance_ratio=None)
    assert dataset.class_counts == (4, 4, 9)
    assert dataset.class_names == ("a", "b", "c")


def test_a_ratio_that_a_folder_cannot_have_is_refused_with_a_way_out(tmp_path):
    image_folder(tmp_path, ("a", "b"), train=4)
    with pytest.raises(GCLError, match="at most 4; imbalance_ratio none takes the images as they"):
        load(dataset=f"folder:{tmp_path}", imbalance_ratio=100)


def test_statistics_against_all_pixels():
    source, dataset = load_source("digits"), load()
    pixels = source.train.images.pixels.double() / 255  # the whole source, so that ratios compare
    assert dataset.mean[0] == pytest.approx(float(pixels.mean()), abs=1e-4)
    assert dataset.std[0] == pytest.approx(float(pixels.std(unbiased=False)), abs=1e-4)


def test_statistics_by_channel(tmp_path):
    image_folder(tmp_path, ("a", "b"))
    dataset = load(dataset=f"folder:{tmp_path}", imbalance_ratio=None)
    pixels = load_source(f"folder:{tmp_path}").train_images.double() / 255
    assert dataset.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert dataset.std == pytest.approx(pixels.std((0, 2, 3), unbiased=False).tolist(), abs=1e-4)
    assert len(set(dataset.mean)) == 3


def test_augmentation_is_the_source_s_unless_asked_otherwise():
    assert (load().crop_padding, load().flip) == (1, False)
    other = load(crop_padding=0, flip=True)
    assert (other.crop_padding, other.flip) == (0, True)


def test_fingerprint_is_of_the_images_and_labels(tmp_path):
    assert load().fingerprint == load().fingerprint
    prints = {load(imbalance_ratio=r, data_seed=s).fingerprint for r in (10, 50) for s in (0, 1)}
    assert len(prints) == 4
    for name in ("one", "two"):
        image_folder(tmp_path / name, ("a", "b"))
    one, two = (load(dataset=f"folder:{tmp_path / n}", imbalance_ratio=2) for n in ("one", "two"))
    assert one.fingerprint == two.fingerprint  # wherever the folder lies


@pytest.mark.parametrize("part", ["train_images", "train_labels", "test_images", "test_labels"])
def test_every_part_of_the_data_is_in_the_fingerprint(monkeypatch, part):
    before, source = load(imbalance_ratio=None), load_source("digits")
    other = dataclasses.replace(source, **{part: getattr(source, part).flip(0)})
    monkeypatch.setattr("gcl_core.data.dataset.load_source", lambda *_, **__: other)
    assert load(imbalance_ratio=None).fingerprint != before.fingerprint


def test_the_object_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().name = "other"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"imbalance_ratio": 125}, "it can be at most 124"),
        ({"n_max": 40, "imbalance_ratio": None}, "n_max goes with an imbalance_ratio"),
        ({"n_max": 40, "class_counts": (3,) * 10}, "n_max goes with an imbalance_ratio"),
        ({"n_max": 130}, r"class \d has \d+ images, \d+ are asked for"),
        ({"class_counts": (5, 4, 3)}, "class_counts names 3 classes, digits has 10"),
        ({"class_counts": (999, *range(1, 10))}, "class 0 has 128 images, 999 are asked for"),
    ],
)
def test_impossible_counts_are_refused(settings, message):
    with pytest.raises(GCLError, match=message):
        load(**settings)
