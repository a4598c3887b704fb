"""Two classes on a circle: what the cloud of the tail does to boundary and gradient in training."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from scipy import stats
from torch import Tensor

from gcl_core.analysis.gaussian import cloud_moments
from gcl_core.analysis.planar_network import Boundary
from gcl_core.analysis.saturation import binary_gradient, expected_binary_gradient
from gcl_core.figures.cloud import CLOUD, FIXED, PLAIN
from gcl_core.figures.looks import GROUP_LOOKS, Look
from moving.drawing import (
    BLACK,
    Axis,
    Moved,
    Panel,
    Picture,
    Point,
    Slider,
    Words,
    arc,
    arrow,
    towards,
    wedge,
)

SIGMA, MULTIPLIER = 1 / 3, 0.5  # of eps before the clamp, and k: the published ones
# Ends of the parts of a cloud, from its middle on, that hold a fifth of all draws of |eps| each.
FIFTHS = [min(float(stats.halfnorm.ppf(part / 5, scale=SIGMA)), 1.0) for part in range(1, 6)]
TENTHS = [step / 10 for step in range(11)]
SCALES = [1.0, 5.0, 10.0, 20.0, 30.0]
ANCHOR = 60.0  # degrees of the tail's anchor above an axis, and of the head's below it
BETWEEN = Boundary(first=0, second=1, angle=0.0, half=ANCHOR)
# Degrees; the closest where the gradient is steep.
DIRECTIONS = torch.tensor([*range(-30, -8, 3), *range(-8, 24), *range(24, 61, 4)]).double()


def boundary(size: float, noise: float) -> float:
    """Direction, in degrees, that training with this |eps| gives to either class: p_tail = 1/2."""
    return BETWEEN.moved(-MULTIPLIER * size * noise)


def gradient(scale: float, size: float, noise: float) -> Tensor:
    """1 - p_y of a tail image with this |eps| in training, for each of `DIRECTIONS`."""
    return -binary_gradient(_difference(scale) - scale * MULTIPLIER * size * noise)


def mean_gradient(scale: float, size: float) -> Tensor:
    """The mean of `gradient` over the cloud of this size."""
    return -expected_binary_gradient(_difference(scale), scale * MULTIPLIER * size)


def _difference(scale: float) -> Tensor:
    tail, head = (torch.deg2rad(DIRECTIONS - anchor).cos() for anchor in (ANCHOR, -ANCHOR))
    return scale * (tail - head)


def picture() -> Picture:
    """Boundary and gradient against delta, eps and s, with k as published."""
    size = Slider("cloud size δ", TENTHS, 1.0, ".1f")
    noise = Slider("noise |ε|", TENTHS, 0.3, ".1f")
    scale = Slider("scale s", SCALES, 30.0)
    made = Picture(
        "The cloud moves the boundary that training sees.",
        "Head and tail on the unit circle, k = 0.5. Solid: the classifier's boundary; dotted: that"
        " of a training step with this noise. Each shade holds a fifth of all steps.",
        size, noise, scale,
    )  # fmt: skip
    tail, head = GROUP_LOOKS["few"], GROUP_LOOKS["many"]
    step = Look("at this noise", BLACK.colour, ":")
    plain, fixed, cloud = (
        replace(look, label=look.label.replace("\n", " ")) for look in (PLAIN, FIXED, CLOUD)
    )

    circle = Panel.round(
        made,
        "Boundary on the unit circle",
        "The anchors of head and tail, the boundary between them, and how far the cloud moves it"
        " towards the anchor of the tail.",
        middle=0.75, half=1.15, height=290,
    )  # fmt: skip

    for end in FIFTHS:
        circle.draw("shade", tail, [size], lambda d, end=end: wedge(0, boundary(d, end)))
    for look, angle, name in ((head, -ANCHOR, "head"), (tail, ANCHOR, "tail")):
        ends = sorted((0.0, 1.5 * angle))
        circle.draw("thick", look, [], lambda ends=ends: arc(*ends))
        circle.draw("line", look, [], lambda angle=angle: arrow(angle, 0, 0.94))
        text = f"anchor of the {name}"
        circle.write(text, look, [], lambda angle=angle: towards(angle, 1.08), "start")
    circle.draw("line", plain, [], lambda: [(0, 0), towards(0)])
    circle.draw("line", step, [size, noise], lambda d, e: [(0, 0), towards(boundary(d, e))])

    curves = Panel(
        made,
        "Gradient 1 − p of a tail image, by its direction",
        "Curves that fall from 1 to 0 as the image comes closer to its anchor: without cloud, at"
        " this noise, at the cloud's mean, and their mean over the cloud, which falls more slowly.",
        Axis(-30, 60, {a: f"{a}°" for a in range(-30, 61, 15)}, "direction of the image's feature"),
        Axis(0, 1, {0: "0", 0.5: "0.5", 1: "1"}),
        height=290,
    )

    def add_curve(
        look: Look, by: Sequence[Slider], gradients: Callable[..., Tensor], angle: Words
    ) -> None:
        def curve(*now: float) -> list[Point]:
            return list(zip(DIRECTIONS.tolist(), gradients(*now).tolist(), strict=True))

        def at_zero(*now: float) -> str:
            return f"{float(gradients(*now)[DIRECTIONS == 0]):.3f}"

        curves.draw("line", look, by, curve)
        made.row(look, angle, Moved(by, at_zero))

    middle, _ = cloud_moments(SIGMA)
    at_noise = Moved([size, noise], lambda d, e: f"{boundary(d, e):.1f}°")
    at_mean = Moved([size], lambda d: f"{boundary(d, middle):.1f}°")
    made.header("", "boundary", "gradient at 0°")
    add_curve(plain, [scale], lambda s: gradient(s, 0, 0), "0.0°")
    add_curve(step, [size, noise, scale], lambda d, e, s: gradient(s, d, e), at_noise)
    add_curve(fixed, [size, scale], lambda d, s: gradient(s, d, middle), at_mean)
    add_curve(cloud, [size, scale], lambda d, s: mean_gradient(s, d), "")
    return made
