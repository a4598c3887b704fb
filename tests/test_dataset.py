"""The long-tailed data set: counts, ratio, groups, statistics and fingerprint."""

import dataclasses
import itertools

import pytest
import torch

from gcl_core import GCLError, long_tailed_counts
from gcl_core.data.augment import PadCrop
from gcl_core.data.dataset import Split
from gcl_core.data.images import MemoryImages
from gcl_core.data.load import DataSettings, load_dataset
from toys import image_folder, load_source


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


@pytest.mark.parametrize("order", ["index", "reversed", "0", "1"])
def test_class_order_decides_which_classes_are_the_tail(order):
    plain, other = load(imbalance_ratio=50), load(imbalance_ratio=50, class_order=order)
    assert sorted(other.class_counts) == sorted(plain.class_counts)
    head_to_tail = sorted(range(10), key=lambda j: -other.class_counts[j])
    if order in ("index", "reversed"):
        assert head_to_tail == list(range(10))[:: 1 if order == "index" else -1]
        assert other.groups["few"] == ([7, 8, 9] if order == "index" else [0, 1, 2])
    else:
        expected = torch.randperm(10, generator=torch.Generator().manual_seed(int(order)))
        assert head_to_tail == expected.tolist()
    assert (other.described == plain.described) == (order == "index")
    assert torch.equal(other.test.images.pixels, plain.test.images.pixels)
    for j in range(10):  # of each class the same images, more or fewer of them
        ours, theirs = (
            {image.numpy().tobytes() for image in d.train.images.pixels[d.train.labels == j]}
            for d in (other, plain)
        )
        assert ours <= theirs or theirs <= ours


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
    pixels = load_source(f"folder:{tmp_path}").train.images.pixels.double() / 255
    assert dataset.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert dataset.std == pytest.approx(pixels.std((0, 2, 3), unbiased=False).tolist(), abs=1e-4)
    assert len(set(dataset.mean)) == 3


def test_augmentation_is_the_source_s_unless_asked_otherwise():
    assert load().augment == PadCrop(1, flip=False)
    assert load(crop_padding=0, flip=True).augment == PadCrop(0, flip=True)


def test_fingerprint_is_of_the_images_and_labels(tmp_path):
    assert load().fingerprint == load().fingerprint
    prints = {load(imbalance_ratio=r, data_seed=s).fingerprint for r in (10, 50) for s in (0, 1)}
    assert len(prints) == 4
    for name in ("one", "two"):
        image_folder(tmp_path / name, ("a", "b"))
    one, two = (load(dataset=f"folder:{tmp_path / n}", imbalance_ratio=2) for n in ("one", "two"))
    assert one.fingerprint == two.fingerprint  # wherever the folder lies


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("what", ["images", "labels"])
def test_every_part_of_the_data_is_in_the_fingerprint(part, what):
    dataset = load()
    split = getattr(dataset, part)
    images, labels = split.images.pixels, split.labels
    images, labels = (images.flip(0), labels) if what == "images" else (images, labels.flip(0))
    other = dataclasses.replace(dataset, **{part: Split(MemoryImages(images), labels)})
    assert other.fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_order": "up", "imbalance_ratio": 2}, "class_order must be index, reversed or a s"),
        ({"class_order": str(2**32), "imbalance_ratio": 2}, "class_order must be index, reversed"),
        ({"class_order": "reversed"}, "class_order goes with an imbalance_ratio"),
        ({"class_order": "7", "class_counts": (3,) * 10}, "class_order goes with an imbalance"),
        ({"imbalance_ratio": 125}, "it can be at most 124"),
        ({"n_max": 40, "imbalance_ratio": None}, "n_max goes with an imbalance_ratio"),
        ({"n_max": 40, "class_counts": (3,) * 10}, "n_max goes with an imbalance_ratio"),
        (
            {"n_max": 130, "imbalance_ratio": 1},
            r"class '0' has 128 training images, 130 are asked for \(and \d more classes have too",
        ),
        ({"class_counts": (5, 4, 3)}, "class_counts names 3 classes, digits has 10"),
        (
            {"class_counts": (999, *range(1, 10))},
            "class '0' has 128 training images, 999 are asked for$",
        ),
    ],
)
def test_impossible_counts_are_refused(settings, message):
    with pytest.raises(GCLError, match=message):
        load(**settings)
