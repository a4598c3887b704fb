"""What is chosen on validation parts, and its intervals on test parts."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from gcl_core.analysis.intervals import interval
from gcl_core.results.chosen import SAME_MEAN, chosen, chosen_table, few_line, gain, label


def record(method, split, validation, test, **changes):
    return {
        "method": method,
        "data_seed": split,
        "changes": changes,
        "validation": {"top1": validation, "class_mean": 1.0},
        "per_class": [test, None, test + 2],
        **dict.fromkeys(("top1", "many", "medium", "few", "macro_f1"), test),
    }


RECORDS = [
    record("ce", 0, 70, 60, lr=0.1),
    record("ce", 0, 71, 50, lr=0.2),
    record("ce", 0, 71, 99, lr=0.3),
    record("ce", 1, 70, 61, lr=0.1),
    record("ce", 1, 69, 99, lr=0.2),
    record("ce", 1, 70, 40, sampler="class"),
    record("gcl", 1, 10, 63),
    record("gcl", 0, 10, 55),
]


def test_the_validation_part_chooses_and_the_test_part_has_no_say():
    found = chosen(RECORDS)
    assert [found["ce"][split]["top1"] for split in (0, 1)] == [50, 61]
    assert list(found) == ["ce", "ce, balanced classes", "gcl"]
    assert label(RECORDS[5]) == "ce, balanced classes"


def test_a_row_is_named_by_what_not_all_rows_share():
    same = {"network": "resnet32", "schedule": "cosine"}
    kinds = ({}, {"stage2_sampler": "instance"}, {"layer_decay": 0.8, "lr": 0.1})
    found = chosen([record("gcl_crt", 0, 1, 2, **same, **each) for each in kinds])
    others = ["with stage2_sampler instance", "with layer_decay 0.8"]
    assert list(found) == ["gcl_crt", *(f"gcl_crt {each}" for each in others)]
    assert chosen([]) == {}


def test_the_table_has_means_and_intervals_and_gains_are_paired():
    table = chosen_table(RECORDS)
    half = scipy.stats.t.interval(0.95, 1, 55.5, scipy.stats.sem([50, 61]))[1] - 55.5
    assert f"| ce | 55.5 ± {half:.1f} | 56.5 ± {half:.1f} |" in table
    assert "| ce, balanced classes | 40.0 | 41.0 |" in table
    half = scipy.stats.t.interval(0.95, 1, 3.5, scipy.stats.sem([5, 2]))[1] - 3.5
    assert f"few +3.5 ± {half:.1f}" in gain(RECORDS, "gcl", "ce")


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=9))
def test_intervals_are_scipys(values):
    middle, half = interval(values)
    error = scipy.stats.sem(values)
    assert middle == pytest.approx(np.mean(values), abs=1e-9)
    assert half == pytest.approx(scipy.stats.t.ppf(0.975, len(values) - 1) * error, abs=1e-9)


def test_one_split_has_no_interval():
    assert math.isnan(interval([3.0])[1])


def test_few_is_also_the_mean_of_its_classes_with_test_images_split_by_split():
    counts = {"images": {"class_counts": [9, 8, 7, 6, 5, 4, 3, 2, 1, 1]}}  # few: the last three
    change = {"objective": SAME_MEAN.rpartition(" ")[2]}
    made = [
        record("ce", 0, 1, 0) | {"per_class": [100] * 7 + [10, None, 20]},
        record("ce", 1, 1, 0) | {"per_class": [100] * 7 + [20, 40, 60]},
        record("gcl", 1, 1, 0) | {"per_class": [100] * 7 + [30, 60, 90]},
        record("gcl", 0, 1, 0) | {"per_class": [100] * 7 + [30, 40, 20]},
        record("gcl", 0, 1, 0, **change) | {"per_class": [100] * 7 + [25, 25, 25]},
    ]
    line = few_line([each | {"identity": counts} for each in made])
    half = scipy.stats.t.interval(0.95, 1, 0, scipy.stats.sem([15, 20]))[1]
    assert f"`gcl` − `ce` +17.5 ± {half:.1f}, " in line
    assert line.endswith("cloud's mean` +5.0.")
    assert line.startswith("As the mean of its classes few is: `ce` 27.5 ± ")
