"""LDAMLoss against a loop, and its margins."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core.errors import GCLError
from gcl_core.losses.ldam import LDAMLoss
from losses import COUNTS, cosine_batch, is_close, softmax


@pytest.mark.parametrize(("max_margin", "scale"), [(0.5, 30.0), (0.3, 4.0), (0.0, 30.0)])
def test_values_against_a_loop(max_margin, scale):
    cosine, target, _ = cosine_batch()
    most = max(n**-0.25 for n in COUNTS)
    expected = []
    for row, y in zip(cosine.tolist(), target.tolist(), strict=True):
        row[y] -= max_margin * COUNTS[y] ** -0.25 / most
        expected.append(-math.log(softmax([scale * z for z in row])[y]))
    is_close(LDAMLoss(COUNTS, max_margin, scale, reduction="none")(cosine, target), expected)


@pytest.mark.parametrize("train", [True, False])
def test_logits_are_refused_but_not_re_balanced_cosines(train):
    cosine, target, _ = cosine_batch()
    with pytest.raises(GCLError, match=r"cosine must be in \[-1, 1\], got .*not logits"):
        LDAMLoss(COUNTS).train(train)(30 * cosine, target)
    assert LDAMLoss(COUNTS, check_range=False).train(train)(30 * cosine, target).isfinite()


def test_margins():
    assert LDAMLoss([16 * 81, 81, 16, 1]).margins.tolist() == pytest.approx(
        [0.5 / 6, 0.5 / 3, 0.25, 0.5]
    )
    assert LDAMLoss(COUNTS, max_margin=0.2).margins.max().item() == pytest.approx(0.2)


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=9), st.integers(2, 50))
def test_margins_depend_on_the_ratios_of_the_counts_only(counts, factor):
    expected = LDAMLoss(counts).margins
    torch.testing.assert_close(LDAMLoss([factor * n for n in counts]).margins, expected)
