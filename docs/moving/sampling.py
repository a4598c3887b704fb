"""What six samplers show of each class, against its training images."""

import math
from dataclasses import replace
from functools import cache

import torch

from gcl_core.data import samplers
from gcl_core.data.imbalance import long_tailed_counts
from gcl_core.figures.looks import SAMPLER_LOOKS
from moving.drawing import Axis, Moved, Panel, Picture, Slider

MOST, CLASSES = 5000, 10  # of CIFAR-10-LT
RATIOS = [1.0, 10.0, 50.0, 100.0, 200.0]
BETAS = [0.9, 0.99, 0.999, 0.9999]
STEPS = [0.0, 0.1, 0.5, 0.9, 0.99]  # of b, in units of 1 - a, as a + b has to stay below 1
OTHERS = {
    "IB": samplers.InstanceBalancedSampler,
    "SQRT": samplers.SquareRootSampler,
    "CB": samplers.ClassBalancedSampler,
    "REV": samplers.ReversedSampler,
}
LABELS = {"CBEN": "CBEN"}  # here a and b need not be the published ones


@cache
def counts(ratio: float) -> list[int]:
    """Training images of each class."""
    return long_tailed_counts(MOST, CLASSES, ratio)


@cache
def shares(name: str, ratio: float, a: float = 0.0, step: float = 0.0) -> list[float]:
    """Share of each class in what a sampler draws; a is also the beta of EN, b is step (1 - a)."""
    if name in OTHERS:
        labels = torch.arange(CLASSES).repeat_interleave(torch.tensor(counts(ratio)))
        return OTHERS[name](labels).class_probabilities.tolist()
    return samplers.cben_shares(counts(ratio), a, step * (1 - a)).tolist()


def repeats(name: str, ratio: float, *values: float) -> list[float]:
    """How often an epoch shows one image of each class: N P(j) / n_j."""
    images = counts(ratio)
    own = shares(name, ratio, *values)
    return [sum(images) * share / n for share, n in zip(own, images, strict=True)]


def picture() -> Picture:
    """Shares and repetitions against the imbalance ratio, and a and b of CBEN."""
    ratio = Slider("imbalance ratio ρ", RATIOS, 100.0)
    a = Slider("a of CBEN, β of EN", BETAS, 0.9999)
    step = Slider("b of CBEN / (1 − a)", STEPS, 0.1)
    made = Picture(
        "What a sampler shows of each class.",
        f"Ten classes as in CIFAR-10-LT, the head with {MOST} images. It starts with the published"
        " a = 0.9999 and b = 0.00001.",
        ratio, a, step,
    )  # fmt: skip

    def named(j: int) -> Moved:
        return Moved([ratio], lambda ratio: str(counts(ratio)[j]))

    def axis() -> Axis:
        label = "training images of the class"
        return Axis(-0.3, CLASSES - 0.7, {j: named(j) for j in range(0, CLASSES, 3)}, label)

    alt = "A line for each sampler, from the head class on the left to the rarest on the right."
    powers = {float(power): f"{10.0**power:g}" for power in range(-3, 4)}
    left = Panel(made, "Share of the draws (%)", alt, axis(), Axis.every(10, 0, 60))
    right = Panel(made, "How often an epoch shows one image", alt, axis(), Axis(-3, 3, powers))

    def add_sampler(name: str) -> None:
        look = replace(SAMPLER_LOOKS[name], label=LABELS.get(name, SAMPLER_LOOKS[name].label))
        by = {"EN": [ratio, a], "CBEN": [ratio, a, step]}.get(name, [ratio])

        def share(*now: float) -> list[tuple[float, float]]:
            return [(j, 100 * own) for j, own in enumerate(shares(name, *now))]

        def repeat(*now: float) -> list[tuple[float, float]]:
            return [(j, math.log10(own)) for j, own in enumerate(repeats(name, *now))]

        left.draw("line", look, by, share)
        right.draw("line", look, by, repeat)
        made.row(
            look,
            Moved(by, lambda *now: f"{100 * shares(name, *now)[0]:.2f}"),
            Moved(by, lambda *now: f"{100 * shares(name, *now)[-1]:.2f}"),
            Moved(by, lambda *now: f"{repeats(name, *now)[-1]:.2f}"),
        )

    made.header("", "head (% of draws)", "rarest (% of draws)", "rarest (times an image)")
    for name in SAMPLER_LOOKS:
        add_sampler(name)
    return made
