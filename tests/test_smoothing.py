"""LabelAwareSmoothing against a loop, and its smoothing."""

import math

import pytest
import torch
import torch.nn.functional as F

from gcl_core.losses.smoothing import LabelAwareSmoothing
from losses import COUNTS, is_close, logit_batch, softmax


@pytest.mark.parametrize(("head", "tail"), [(0.3, 0.0), (0.4, 0.1), (1.0, 0.2), (0.0, 0.5)])
def test_values_against_a_loop(head, tail):
    outputs, target = logit_batch()
    expected = []
    for row, y in zip(outputs.tolist(), target.tolist(), strict=True):
        place = (COUNTS[y] - min(COUNTS)) / (max(COUNTS) - min(COUNTS))
        soft = tail + (head - tail) * math.sin(math.pi / 2 * place)
        surprise = [-math.log(p) for p in softmax(row)]
        expected.append((1 - soft) * surprise[y] + soft * sum(surprise) / 4)
    result = LabelAwareSmoothing(COUNTS, head, tail, reduction="none")(outputs, target)
    is_close(result, expected)


def test_smoothing_goes_from_tail_to_head_and_is_concave():
    smoothing = LabelAwareSmoothing([13, 9, 5, 1], smooth_head=0.4, smooth_tail=0.1).smoothing
    expected = [0.4, 0.1 + 0.3 * math.sin(math.pi / 3), 0.1 + 0.3 * 0.5, 0.1]
    assert smoothing.tolist() == pytest.approx(expected)
    assert (smoothing[1:3] > torch.tensor([0.3, 0.2])).all()  # above the straight line
    shuffled = LabelAwareSmoothing([5, 13, 1, 9], smooth_head=0.4, smooth_tail=0.1).smoothing
    assert torch.equal(shuffled, smoothing[[2, 0, 3, 1]])
    assert LabelAwareSmoothing([2, 1]).smoothing.tolist() == pytest.approx([0.3, 0.0])


def test_equal_counts_are_all_smoothed_like_the_head():
    """As PyTorch's own label smoothing, whose mean is over all classes too."""
    outputs, target = logit_batch()
    expected = F.cross_entropy(outputs, target, label_smoothing=0.2)
    is_close(
        LabelAwareSmoothing([7] * 4, smooth_head=0.2, smooth_tail=0.1)(outputs, target), expected
    )
