"""Counts against the published tables and exact arithmetic; subsets nested; groups by the rule."""

from decimal import Decimal, getcontext
from math import floor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import GCLError, class_groups, long_tailed_counts
from gcl_core.data.imbalance import class_counts_of, nested_subset
from toys import seeded

getcontext().prec = 50


@pytest.mark.parametrize(
    ("n_max", "classes", "ratio", "total", "rarest"),
    [
        (5000, 10, 50, 13996, 100),
        (5000, 10, 100, 12406, 50),
        (5000, 10, 200, 11203, 25),
        (500, 100, 50, 12608, 10),
        (500, 100, 100, 10847, 5),
        (500, 100, 200, 9502, 2),  # floor of 2.5: the true ratio is 250
    ],
)
def test_cifar_sizes_of_the_literature(n_max, classes, ratio, total, rarest):
    counts = long_tailed_counts(n_max, classes, ratio)
    assert (sum(counts), counts[0], counts[-1]) == (total, n_max, rarest)


def test_rounding_does_not_lose_an_image():
    assert long_tailed_counts(300, 2, 3) == [300, 100]  # 300 * 3^-1 is 99.99... in floating point
    assert long_tailed_counts(100, 3, 100) == [100, 10, 1]


@given(st.integers(1, 20000), st.integers(2, 120), st.data())
def test_counts_against_exact_arithmetic(n_max, classes, data):
    ratio = data.draw(st.integers(1, n_max))
    exact = [n_max * Decimal(ratio) ** (Decimal(-i) / (classes - 1)) for i in range(classes)]
    counts = long_tailed_counts(n_max, classes, ratio)
    assert counts == [floor(x + Decimal("1e-9")) for x in exact]
    assert min(counts) >= 1


@given(st.integers(1, 5000), st.integers(2, 50), st.data())
def test_step_profile_has_two_levels(n_max, classes, data):
    ratio = data.draw(st.integers(1, n_max))
    counts = long_tailed_counts(n_max, classes, ratio, "step")
    head = (classes + 1) // 2
    assert counts == [n_max] * head + [n_max // ratio] * (classes - head)


@pytest.mark.parametrize("profile", ["exp", "step"])
def test_ratio_one_is_balanced(profile):
    assert long_tailed_counts(7, 4, 1, profile) == [7] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 10, 0.5), "imbalance_ratio must be a number >= 1, got 0.5"),
        ((100, 10, float("nan")), "imbalance_ratio must be a number >= 1"),
        ((100, 10, float("inf")), "imbalance_ratio must be a number >= 1"),
        ((100, 10, 100.5), "it can be at most 100"),
        ((0, 10, 1), "n_max must be at least 1"),
        ((100, 1, 10), "num_classes must be at least 2"),
        ((100, 10, 10, "linear"), "profile 'linear' is unknown; allowed: exp, step"),
    ],
)
def test_counts_refuse(arguments, message):
    with pytest.raises(GCLError, match=message):
        long_tailed_counts(*arguments)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_class_counts_against_a_loop(labels):
    counts = class_counts_of(torch.tensor(labels), 9)
    assert counts.tolist() == [labels.count(j) for j in range(9)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [([], "no labels"), ([0, -1], "got -1"), ([0, 3], "below 3, got 3")],
)
def test_class_counts_refuse(labels, message):
    with pytest.raises(GCLError, match=message):
        class_counts_of(torch.tensor(labels, dtype=torch.int64), 3)


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=6),
    st.integers(0, 1000),
    st.data(),
)
def test_subsets_are_nested(available, seed, data):
    labels = torch.arange(len(available)).repeat_interleave(torch.tensor(available))
    if not len(labels):
        return
    labels = labels[torch.randperm(len(labels), generator=seeded(seed))]
    large = [data.draw(st.integers(0, n)) for n in available]
    small = [data.draw(st.integers(0, n)) for n in large]
    outer = nested_subset(labels, large, seeded(seed))
    inner = nested_subset(labels, small, seeded(seed))
    assert labels[outer].tolist() == [j for j, n in enumerate(large) for _ in range(n)]
    assert labels[inner].tolist() == [j for j, n in enumerate(small) for _ in range(n)]
    assert len(set(outer.tolist())) == len(outer)
    assert set(inner.tolist()) <= set(outer.tolist())


def test_subsets_differ_by_seed_and_not_by_repetition():
    labels = torch.zeros(100, dtype=torch.int64)
    first, again, other = (nested_subset(labels, [20], seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first.sort().values, other.sort().values)


def test_subset_refuses_more_than_there_is():
    with pytest.raises(GCLError, match="class 1 has 2 images, 3 are asked for"):
        nested_subset(torch.tensor([0, 0, 0, 1, 1]), [3, 3], seeded())


def test_groups_of_a_hundred_classes_go_by_images():
    counts = [500, 101, 100, 20, 19, 1] + [50] * 94
    groups = class_groups(counts)
    assert groups["many"] == [0, 1]
    assert groups["few"] == [4, 5]
    assert groups["medium"] == [2, 3, *range(6, 100)]


def test_groups_of_ten_classes_go_by_rank():
    assert class_groups([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) == {
        "many": [7, 8, 9],
        "medium": [3, 4, 5, 6],
        "few": [0, 1, 2],
    }
    assert class_groups([5] * 10)["many"] == [0, 1, 2]  # ties keep class order


@given(st.lists(st.integers(1, 600), min_size=2, max_size=150))
def test_groups_are_a_partition_ordered_by_count(counts):
    groups = class_groups(counts)
    assert list(groups) == ["many", "medium", "few"]
    assert sorted(sum(groups.values(), [])) == list(range(len(counts)))
    of = {g: [counts[j] for j in members] for g, members in groups.items()}
    for upper, lower in (("many", "medium"), ("medium", "few"), ("many", "few")):
        assert min(of[upper], default=10**9) >= max(of[lower], default=0)
    if len(counts) < 100:
        assert len(groups["many"]) == len(groups["few"]) >= 1
