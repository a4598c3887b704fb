"""Figures for a dark page: greys turned round, hues kept and lightened until they can be read."""

import colorsys
from typing import Any

import numpy as np
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from gcl_core.figures.looks import style

GROUND, INK = "#0D1117", "#E6EDF3"  # what white and black become
# Of every hue with the ground: between the 3 and the 4.5 that WCAG 2.2 wants of graphics and of
# small text. Above 4 two of the hues can be taken for each other where red is not seen.
CONTRAST = 4.0
BRIGHTER = 0.6  # exponent: greys are lighter than half-way, or they are taken for a dark hue
GREY = 0.15  # saturation (HLS) below which a colour counts as a grey
PICTURES = (AxesImage, QuadMesh)
PROPERTIES = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


@style()
def in_dark(figure: Figure) -> Figure:
    """The figure itself, recoloured for a dark page; heat maps stay, with the text on them."""
    figure.draw_without_rendering()  # makes the ticks, which are made when first drawn
    kept = [a for a in figure.axes if any(isinstance(c, PICTURES) for c in a.get_children())]
    stay = [text for axes in kept for text in axes.texts]
    # All are read before any is changed: some properties are two names of one colour.
    changes = []
    for artist in figure.findobj():
        for name in PROPERTIES if artist not in stay else ():
            get, put = (getattr(artist, f"{verb}_{name}", None) for verb in ("get", "set"))
            if get and put and (colour := _recoloured(get())) is not None:
                changes.append((put, colour))
    for put, colour in changes:
        put(colour)
    for axes in figure.axes:  # of ticks yet to be made
        axes.tick_params(colors=INK)
    return figure


def on_dark(colour: str) -> str:
    """What a colour becomes on `GROUND`.

    A grey of lightness l goes the share (1 - l)^0.6 of the way from ground to ink. A hue keeps hue
    and saturation; its lightness grows until the contrast with the ground is at least `CONTRAST`.
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    if saturation < GREY:
        ground, ink = np.array(to_rgb(GROUND)), np.array(to_rgb(INK))
        return to_hex(ground + (1 - lightness) ** BRIGHTER * (ink - ground))
    while contrast(result := to_hex(colorsys.hls_to_rgb(hue, lightness, saturation))) < CONTRAST:
        lightness += 0.01
    return result


def contrast(colour: str, ground: str = GROUND) -> float:
    """Contrast ratio of two colours, from 1 to 21, as WCAG 2.2 defines it."""
    light, dark = sorted((_luminance(colour), _luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _recoloured(value: Any) -> Any:
    """One colour or an array of them, recoloured; None for what is none ("none", "auto")."""
    if isinstance(value, str) and value in ("none", "auto"):
        return None
    colours = to_rgba_array(value)
    rows = [(*to_rgb(on_dark(to_hex(row))), row[3]) for row in colours]
    return rows[0] if len(rows) == 1 else rows or None
