"""FocalLoss against a loop, and what makes it focal."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core.losses.focal import FocalLoss
from losses import is_close, logit_batch, softmax


@pytest.mark.parametrize(("gamma", "scale"), [(0.0, 1.0), (1.0, 1.0), (0.5, 3.0), (2.0, 0.3)])
def test_values_against_a_loop(gamma, scale):
    outputs, target = logit_batch()
    p = [
        softmax([scale * z for z in row])[y]
        for row, y in zip(outputs.tolist(), target.tolist(), strict=True)
    ]
    expected = [(1 - q) ** gamma * -math.log(q) for q in p]
    is_close(FocalLoss(gamma, scale, reduction="none")(outputs, target), expected, 1e-9)


@given(st.floats(-60, 60), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_sure_outputs_keep_value_and_gradient(gap, gamma):
    """In float32, where p_y rounds to 1: (1 - p)^gamma (-log p) is about e^(-(gamma + 1) gap)."""
    outputs = torch.tensor([[gap, 0.0]], requires_grad=True)
    loss = FocalLoss(gamma)(outputs, torch.tensor([0]))
    loss.backward()
    surprise = math.log1p(math.exp(-gap))
    wrong = 1 / (1 + math.exp(gap))
    assert loss.item() == pytest.approx(wrong**gamma * surprise, rel=1e-4, abs=1e-37)
    slope = -(wrong**gamma) * (wrong + gamma * (1 - wrong) * surprise)
    assert outputs.grad[0, 0].item() == pytest.approx(slope, rel=1e-4, abs=1e-37)
    assert outputs.grad[0, 1].item() == pytest.approx(-slope, rel=1e-4, abs=1e-37)
