"""The fast loop and the plain one agree: in the accuracy over seeds, and the measure itself."""

import math

import pytest
import torch

from gcl_core.analysis.intervals import t_factor
from gcl_core.benchmark.plain import PlainImages, plain_accuracy, same_accuracy
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.methods.registry import resolve
from gcl_core.training.side_by_side import run_many


def test_same_accuracy_over_seeds(tmp_path):
    settings = [resolve("digits", "ce", epochs=25, seed=seed) for seed in range(5)]
    fast = [run.result["top1"] for run in run_many(settings, tmp_path, workers=1)]
    compared = same_accuracy(fast, [plain_accuracy(each) for each in settings])
    assert compared["half_interval"] < 9
    assert abs(compared["difference"]) < 1.3 * compared["half_interval"]
    assert min(compared["fast"] + compared["plain"]) > 40  # chance is 10


def test_the_plain_loop_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    plain_accuracy(resolve("digits", "ce", epochs=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_plain_images_are_those_of_the_data_set():
    dataset = load_dataset(DataSettings(crop_padding=0))
    image, label = PlainImages(dataset)[7]
    expected = (dataset.train.images.pixels[7] / 255 - dataset.mean[0]) / dataset.std[0]
    torch.testing.assert_close(image, expected)
    assert label == dataset.train.labels[7]


@pytest.mark.parametrize(("shift", "within"), [(0.5, True), (5.0, False)])
def test_difference_against_its_interval(shift, within):
    fast = [1.0, 2.0, 3.0, 4.0]
    compared = same_accuracy(fast, [value - shift for value in fast])
    assert compared["difference"] == shift
    assert compared["half_interval"] == 2.23  # t of 6 degrees, 2.447, by sqrt(2 * (5 / 3) / 4)
    assert compared["within"] is within


def test_each_side_has_its_own_spread():
    ours, other = 5 / 3 / 4, 8 / 2  # variances of the means
    freedom = (ours + other) ** 2 / (ours**2 / 3 + other**2)  # Welch and Satterthwaite's
    half = t_factor(freedom) * math.sqrt(ours + other)
    assert same_accuracy([1, 2, 3, 4], [0, 4])["half_interval"] == pytest.approx(half, abs=0.01)
