"""Figures of the Gaussian cloud: its projection, its mean against its spread, two classes."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gcl_core.analysis.gaussian import cloud_moments, expected_binary_loss
from gcl_core.analysis.saturation import binary_gradient, cloud_quadrature, expected_binary_gradient
from gcl_core.figures.drawing import bare, draw_lines, label_ends, subplots
from gcl_core.figures.looks import GROUP_COLOURS, METHOD_LOOKS, Look, style
from gcl_core.figures.series import Series

ANCHOR = math.radians(60)  # of the two anchors of `circle`, from the axis between them
PLAIN = Look("no cloud", METHOD_LOOKS["ce"].colour)
FIXED = Look("cloud held\nat its mean", METHOD_LOOKS["ldam"].colour, "--")
CLOUD = Look("mean over\nthe cloud", METHOD_LOOKS["gcl"].colour)


@style()
def projection_histograms(samples: Mapping[str, Tensor], mean: float, std: float) -> Figure:
    """Samples as histograms with the density of N(mean, std^2) over each, on the same axes.

    Args:
        samples: (n,) values by title.
        mean, std: of the density.
    """
    columns = len(samples)
    figure, every = subplots(3.2 * columns, 3.3, columns=columns, sharex=True, sharey=True)
    x = np.linspace(mean - 4.5 * std, mean + 4.5 * std, 200)
    density = np.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
    for axes, (title, values) in zip(every, samples.items(), strict=True):
        axes.hist(values.numpy(), 50, range=(x[0], x[-1]), density=True, color="0.75")
        axes.plot(x, density, color=METHOD_LOOKS["gcl"].colour)
        axes.set(title=title, xlabel="projection on the anchor")
    every[0].set_ylabel("density")
    return figure


@style()
def approximation_lines(
    sizes: Sequence[float], growth: Sequence[Series], cosines: Sequence[Series]
) -> Figure:
    """How far Eq. 7 is from Eq. 6: the length of the perturbed feature, and its cosine.

    Args:
        sizes: (n,) delta / |f| along x.
        growth: |f + delta eps| / |f|, one line for each dimension.
        cosines: mean and spread of the cosine, exact and simplified.
    """
    figure, (left, right) = subplots(9.5, 3.9, columns=2)
    for axes, lines in ((left, growth), (right, cosines)):
        draw_lines(axes, sizes, lines)
        axes.set_xlabel(r"$\delta / |f|$")
    left.set_title(r"Length $|f + \delta\varepsilon| \, / \, |f|$")
    right.set_title("Cosine of the perturbed feature")
    label_ends(left, sizes, growth, 0.09)
    label_ends(right, sizes, cosines, 0.16)
    return figure


@style()
def jensen_gap(reach: float, sigma: float) -> Figure:
    """Loss and gradient against the logit difference: mean over the cloud, and at its mean.

    Args:
        reach: r = s k delta of the target, in units of the logit.
        sigma: standard deviation of eps before the clamp.
    """
    difference = torch.linspace(-5, 20, 251, dtype=torch.float64)
    figure, (loss, gradient) = subplots(9.5, 4, columns=2)
    for axes, mean_over_cloud in ((loss, expected_binary_loss), (gradient, _gradient)):
        lines = _lines(mean_over_cloud, difference, reach, sigma)
        draw_lines(axes, difference.tolist(), lines)
        _, fixed, mean = (line.values for line in lines)
        axes.fill_between(difference, fixed, mean, color=CLOUD.colour, alpha=0.2, lw=0)
        axes.set_xlabel("clean logit difference $z_y - z_j$")
    loss.set_title("Loss")
    gradient.set_title("Gradient $1 - p_y$")
    label_ends(gradient, difference.tolist(), lines, 0.16)
    return figure


@style()
def gradient_at(difference: float, reach: float) -> Figure:
    """The gradient at one logit difference: on the curves, and over all values of |eps|.

    Args:
        difference: clean d = z_y - z_j.
        reach: r = s k delta of the target, in units of the logit.
    """
    x = torch.linspace(-5, 20, 201, dtype=torch.float64)
    at = torch.tensor(difference, dtype=torch.float64)
    figure, (curve, inside) = subplots(9.5, 4, columns=2, width_ratios=[1.25, 1])
    for look, reaches, height in ((PLAIN, 0.0, 0.95), (CLOUD, reach, 0.86)):
        value = float(_gradient(at, reaches))
        curve.plot(x, _gradient(x, reaches), color=look.colour, ls=look.line)
        curve.plot([difference], [value], "o", color=look.colour, ms=9)
        _say(curve, height, f"{_in_one_line(look)}: {value:.3g}", look.colour)
    curve.axvline(difference, color="0.6", lw=1, zorder=0)
    curve.set(ylim=(-0.03, 1.03), xlabel="clean logit difference $d$")
    curve.set_title("Gradient $1 - p_y$")
    point, weight = cloud_quadrature(nodes=400)
    values, shares = -binary_gradient(at - reach * point), 100 * weight
    inside.hist(values.numpy(), 10, range=(0, 1), weights=shares.numpy(), color=CLOUD.colour)
    inside.set(xlim=(0, 1), ylim=(0, 100), xlabel="gradient $1 - p_y$")
    inside.set_title("Share of the clouds (%)")
    return figure


@style()
def circle(cloud_size: float, noise_multiplier: float, scale: float) -> Figure:
    """Two classes on the unit circle: boundary, loss and gradient of a tail image by its direction.

    The anchors stand at 60 degrees above (tail) and below (head) the axis; the head has no cloud.
    For a feature at angle phi the clean logit difference is d = s (cos theta_t - cos theta_h)
    = 2 s sin 60 sin phi; training at |eps| puts p_tail = 1/2 where d = s k delta |eps|.

    Args:
        cloud_size: delta of the tail class, in [0, 1].
        noise_multiplier: k.
        scale: s.
    """
    reach = scale * noise_multiplier * cloud_size
    angle = np.linspace(-30, 60, 181)
    difference = torch.from_numpy(2 * scale * math.sin(ANCHOR) * np.sin(np.radians(angle)))
    figure = Figure(figsize=(10, 6.6))
    grid = figure.add_gridspec(2, 2, width_ratios=[1.05, 1])
    _circle(figure.add_subplot(grid[:, 0]), noise_multiplier * cloud_size)
    gradient = figure.add_subplot(grid[0, 1])
    surface = figure.add_subplot(grid[1, 1], sharex=gradient)
    draw_lines(gradient, angle.tolist(), _lines(_gradient, difference, reach))
    gradient.set_title("Gradient $1 - p_y$ of a tail image")
    gradient.set(ylim=(-0.03, 1.03))
    for look, height in ((PLAIN, 0.95), (FIXED, 0.83), (CLOUD, 0.71)):
        _say(gradient, height, _in_one_line(look), look.colour, size=11.5)
    noise = torch.linspace(0, 1, 61, dtype=torch.float64)
    values = -binary_gradient(difference - reach * noise[:, None])
    place: dict[str, Any] = {"origin": "lower", "extent": (-30, 60, 0, 1), "aspect": "auto"}
    image = surface.imshow(values.numpy(), cmap="cividis", vmin=0, vmax=1, **place)
    edge = _boundary(noise_multiplier * cloud_size * noise.numpy())
    surface.plot(edge, noise, color="white", lw=1.5)
    surface.set_title(r"… and for every $|\varepsilon|$")
    surface.set(xlabel="direction of the feature (degrees)", ylabel=r"$|\varepsilon|$")
    surface.set_xticks(range(-30, 61, 15))
    surface.grid(visible=False)
    figure.colorbar(image, ax=surface, pad=0.02, label="gradient $1 - p_y$")
    return figure


def _boundary(shift: np.ndarray) -> np.ndarray:
    """Angle in degrees where cos theta_t - cos theta_h is `shift`; NaN beyond the circle."""
    sine = np.asarray(shift, dtype=float) / (2 * math.sin(ANCHOR))
    return np.degrees(np.arcsin(np.where(sine <= 1, sine, np.nan)))


def _circle(axes: Axes, reach: float) -> None:
    """Anchors, the clean boundary, and how far the cloud moves it in training."""
    mean, _ = cloud_moments()
    clean, at_mean, full = _boundary(np.array([0.0, reach * mean, reach]))
    for low, high, group in ((-90, clean, "many"), (clean, 90, "few")):
        arc = np.radians(np.linspace(low, high, 91))
        axes.plot(np.cos(arc), np.sin(arc), color=GROUP_COLOURS[group], lw=6, solid_capstyle="butt")
    for sign, group, name in ((-1, "many", "head"), (1, "few", "tail")):
        x, y, colour = math.cos(ANCHOR), sign * math.sin(ANCHOR), GROUP_COLOURS[group]
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2.5}
        axes.annotate("", (x, y), (0, 0), arrowprops=arrow)
        axes.text(x + 0.1, 1.1 * y, f"anchor of the {name}", va="center", color=colour)
    # The cloud, as dense as |eps| is likely.
    edges = _boundary(reach * np.linspace(0, 1, 33))
    likely = np.exp(-((np.linspace(0, 1, 33)[:-1] * 3) ** 2) / 2)
    for ends, weight in zip(itertools.pairwise(np.radians(edges)), likely, strict=True):
        corners = [0, *np.cos(ends)], [0, *np.sin(ends)]
        axes.fill(*corners, color=GROUP_COLOURS["few"], alpha=0.6 * weight, lw=0)
    lowest = -np.inf  # of the next label, so that none lies on another
    named = [
        (clean, "clean boundary", "-"),
        (at_mean, "at mean $|ε|$", "--"),
        (full, "full cloud", ":"),
    ]
    for value, text, line in named if reach else named[:1]:
        if np.isnan(value):
            continue
        x, y = math.cos(math.radians(value)), math.sin(math.radians(value))
        axes.plot([0, x], [0, y], color="black", ls=line, lw=1.5)
        lowest = max(y, lowest + 0.09)
        axes.annotate(text, (max(1.05 * x, 1.06 - lowest / 4), lowest), va="center", size=11)
    axes.set(xlim=(-0.1, 1.5), ylim=(-1.2, 1.2), aspect="equal")
    axes.set_title("Training boundary on the unit circle")
    bare(axes)


def _say(axes: Axes, height: float, text: str, colour: str, **more: Any) -> None:
    """A line of text at the right of a panel."""
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "center"}
    axes.text(0.99, height, text, color=colour, **place, **more)


def _in_one_line(look: Look) -> str:
    return look.label.replace("\n", " ")


def _gradient(difference: Tensor, reach: float, sigma: float = 1 / 3) -> Tensor:
    return -expected_binary_gradient(difference, reach, sigma=sigma)


def _lines(
    mean_over_cloud: Callable[[Tensor, float, float], Tensor],
    difference: Tensor,
    reach: float,
    sigma: float = 1 / 3,
) -> list[Series]:
    """Without a cloud, with the cloud held at its mean, and averaged over the cloud."""
    held = difference - reach * cloud_moments(sigma)[0]
    return [
        Series(PLAIN, mean_over_cloud(difference, 0.0, sigma).tolist()),
        Series(FIXED, mean_over_cloud(held, 0.0, sigma).tolist()),
        Series(CLOUD, mean_over_cloud(difference, reach, sigma).tolist()),
    ]
