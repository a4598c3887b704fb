"""Cloud sizes against the paper's table, a loop, and their limits and symmetries."""

import math
from collections import Counter

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import GCLError, GCLLoss, class_groups, cloud_sizes, long_tailed_counts
from gcl_core.data.imbalance import nested_subset
from gcl_core.data.samplers import cben_shares
from gcl_core.losses.angular import AngularGCLLoss
from gcl_core.losses.equalization import EqualizationLoss
from gcl_core.losses.ldam import LDAMLoss
from gcl_core.losses.priors import LADELoss, LogitAdjustedLoss, logit_adjustment
from gcl_core.losses.smoothing import LabelAwareSmoothing
from gcl_core.methods.reweight import EffectiveNumberWeights, PowerWeights
from toys import seeded

COUNTS = st.lists(st.integers(1, 10**6), min_size=2, max_size=30)
FORMS = [("log", None), ("power", 1 / 3), ("power", 0.25), ("cosine", None)]


@pytest.mark.parametrize(
    ("strategy", "exponent", "expected"),
    [
        ("cosine", None, [0, 0.589, 0.845, 0.943, 0.980, 0.993, 0.997, 0.999, 1, 1]),
        ("power", 1 / 3, [0, 0.200, 0.369, 0.511, 0.631, 0.731, 0.817, 0.888, 0.949, 1]),
        ("power", 1 / 4, [0, 0.176, 0.330, 0.466, 0.586, 0.691, 0.784, 0.865, 0.938, 1]),
        ("log", None, [0, 0.111, 0.222, 0.333, 0.445, 0.556, 0.667, 0.778, 0.890, 1]),
    ],
)
def test_sizes_of_cifar10_at_ratio_100(strategy, exponent, expected):
    sizes = cloud_sizes(long_tailed_counts(5000, 10, 100), strategy, exponent)
    assert [round(x, 3) for x in sizes.tolist()] == expected


def loop(counts, strategy, exponent):
    most = max(counts)
    form = {
        "log": lambda n: math.log(most) - math.log(n),
        "power": lambda n: most**exponent - n**exponent,
        "cosine": lambda n: math.cos(math.pi / 2 * n / most) if n < most else 0.0,
    }[strategy]
    sizes = [form(n) for n in counts]
    return [x / max(sizes) if max(sizes) else 0.0 for x in sizes]


@pytest.mark.parametrize(("strategy", "exponent"), FORMS)
@given(counts=COUNTS)
def test_sizes_against_a_loop(strategy, exponent, counts):
    sizes = cloud_sizes(counts, strategy, exponent)
    assert sizes.dtype == torch.float64
    torch.testing.assert_close(
        sizes, torch.tensor(loop(counts, strategy, exponent), dtype=torch.float64)
    )
    assert sizes[counts.index(max(counts))] == 0
    assert sizes.max() == (1 if len(set(counts)) > 1 else 0)
    order = sorted(range(len(counts)), key=lambda j: counts[j])
    assert (sizes[order].diff() <= 1e-12).all()  # never a larger cloud for more images


@pytest.mark.parametrize(("strategy", "exponent"), FORMS)
@given(counts=COUNTS, seed=st.integers(0, 99))
def test_permuted_counts_give_permuted_sizes(strategy, exponent, counts, seed):
    shuffle = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    permuted = torch.tensor(counts)[shuffle]
    expected = cloud_sizes(counts, strategy, exponent)[shuffle]
    assert torch.equal(cloud_sizes(permuted, strategy, exponent), expected)


@pytest.mark.parametrize(("strategy", "exponent"), FORMS)
def test_equal_counts_have_no_cloud(strategy, exponent):
    assert cloud_sizes([37] * 5, strategy, exponent).tolist() == [0.0] * 5


@given(COUNTS, st.integers(2, 1000))
def test_log_sizes_depend_on_ratios_only(counts, factor):
    torch.testing.assert_close(cloud_sizes(counts), cloud_sizes([factor * n for n in counts]))


def test_small_exponents_approach_the_logarithm():
    counts = long_tailed_counts(5000, 10, 100)
    errors = [
        (cloud_sizes(counts, "power", e) - cloud_sizes(counts)).abs().max() for e in (0.1, 1e-6)
    ]
    assert errors[1] < 1e-5 < errors[0]


@given(COUNTS)
def test_strategies_are_ordered(counts):
    third, quarter, log = (cloud_sizes(counts, *form) for form in (FORMS[1], FORMS[2], FORMS[0]))
    assert (third >= quarter - 1e-12).all()
    assert (quarter >= log - 1e-12).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([3, 0],), "class 1 has 0"),
        (([3, -2],), "class 1 has -2"),
        (([math.nan, 2],), "class 0 has nan"),
        (([math.inf, 2],), "class 0 has inf"),
        (([3],), "at least 2 classes"),
        (([[3, 2], [1, 1]],), "at least 2 classes"),
        (([3, 2], "linear"), "strategy 'linear' is unknown; allowed: log, power, cosine"),
        (([3, 2], "power"), r"exponent in \(0, 1\), got None"),
        (([3, 2], "power", 1.0), r"exponent in \(0, 1\), got 1.0"),
        (([3, 2], "power", 0.0), r"exponent in \(0, 1\), got 0.0"),
        (([3, 2], "power", math.nan), r"exponent in \(0, 1\), got nan"),
        (([3, 2], "log", 0.5), "exponent belongs to strategy 'power'"),
    ],
)
def test_sizes_refuse(arguments, message):
    with pytest.raises(GCLError, match=message):
        cloud_sizes(*arguments)


LABELS = pd.Series([2] * 500 + [0] * 60 + [1] * 6)
TAKES_COUNTS = {
    "cloud_sizes": cloud_sizes,
    "logit_adjustment": logit_adjustment,
    "gcl": lambda counts: GCLLoss(counts).cloud_sizes,
    "angular": lambda counts: AngularGCLLoss(counts).cloud_sizes,
    "ldam": lambda counts: LDAMLoss(counts).margins,
    "logit_adjusted": lambda counts: LogitAdjustedLoss(counts).adjustment,
    "lade": lambda counts: LADELoss(counts).adjustment,
    "equalization": lambda counts: EqualizationLoss(counts).rare,
    "smoothing": lambda counts: LabelAwareSmoothing(counts).smoothing,
    "effective": EffectiveNumberWeights().weights,
    "power": PowerWeights().weights,
    "cben_shares": cben_shares,
    "groups": lambda counts: torch.tensor(list(class_groups(counts).values())),
    "subset": lambda counts: nested_subset(torch.arange(1500) % 3, counts, seeded()),
}


@pytest.mark.parametrize("name", TAKES_COUNTS)
@pytest.mark.parametrize(
    "counts",
    [LABELS.value_counts(), Counter(LABELS), {2.0: 500, 0.0: 60, 1.0: 6}],
    ids=["Series", "Counter", "dict"],
)
def test_counts_by_label_are_taken_by_label(name, counts):
    in_order = TAKES_COUNTS[name]([60, 6, 500])
    assert torch.equal(TAKES_COUNTS[name](counts), in_order)
    assert not torch.equal(in_order, TAKES_COUNTS[name]([500, 60, 6]))  # in order of size


def test_groups_of_a_hundred_counts_by_label():
    by_size = pd.Series({j: 5 + 2 * j for j in reversed(range(120))})
    assert class_groups(by_size)["few"] == list(range(8))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cat": 9, "dog": 3}, "labels 0 to C - 1, each once, got 'cat', 'dog'"),
        ({0: 9, 2: 3}, "got 0, 2: number the classes, or list the counts"),
        (pd.Series([9, 3, 1], index=[0, 1, 1]), "each once, got 0, 1"),
        ({0: "many", 1: 3}, "must be numbers, got list"),
        (["9", "3"], "must be numbers, got list"),
        (None, "must be numbers, got NoneType"),
    ],
)
def test_counts_without_an_order_are_refused(counts, message):
    with pytest.raises(GCLError, match=message) as refusal:
        cloud_sizes(counts)
    assert "\n" not in str(refusal.value)
