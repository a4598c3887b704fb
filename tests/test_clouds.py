"""Cloud sizes against the paper's table, a loop, and their limits and symmetries."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import GCLError, cloud_sizes, long_tailed_counts

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
