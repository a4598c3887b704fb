"""A picture with sliders, drawn as SVG for every position of them when the pages are built.

A browser computes nothing: `static/moving.js` exchanges paths and texts. So every number on a page
is one of gcl_core's, and without a script the picture stands as it is drawn first.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from gcl_core.data.imbalance import class_groups
from gcl_core.figures.dark import on_dark
from gcl_core.figures.looks import GROUP_LOOKS, Look

WIDTH = 360  # of every panel: as many units as a phone has pixels
LETTER, LINE = 7, 16  # width of a letter, for labels to stay inside; height of a line of text
DASHES = {"-": (), "--": (3.7, 1.6), "-.": (6.4, 1.6, 1, 1.6), ":": (1, 1.65)}  # as matplotlib
BLACK = Look("", "#000000")

Point = tuple[float, float]
Run = Sequence[Point]


@dataclass(frozen=True, eq=False)
class Slider:
    """What a reader moves.

    Attributes:
        label: what stands beside it.
        values: all positions, in order.
        start: the value at which the picture is drawn first.
        form: how a value is written.
        plays: whether a button runs through all positions.
    """

    label: str
    values: Sequence[float]
    start: float
    form: str = "g"
    plays: bool = False


@dataclass(frozen=True)
class Moved:
    """A text or a place that depends on sliders.

    Attributes:
        by: the sliders; none for what stays.
        at: what it is at their values.
    """

    by: Sequence[Slider]
    at: Callable[..., Any]


Words = str | Moved


@dataclass(frozen=True)
class Axis:
    """A linear axis from low to high.

    Attributes:
        ticks: texts by their places.
        label: what it shows.
    """

    low: float
    high: float
    ticks: Mapping[float, Words]
    label: str = ""

    @classmethod
    def every(cls, step: int, low: int, high: int) -> "Axis":
        """An axis with a tick at every step."""
        return cls(low, high, {value: str(value) for value in range(low, high + 1, step)})


class Picture:
    """A figure with sliders, panels and a table of numbers.

    Args:
        title: stands above it.
        note: how to read it.
        sliders: all that its parts may depend on.
    """

    def __init__(self, title: str, note: str, *sliders: Slider) -> None:
        self.title, self.note, self.sliders = title, note, sliders
        self.parts: list[dict[str, Any]] = []
        self.panels: list[Panel] = []
        self.rows: list[str] = []

    def part(self, moved: Moved, attribute: str = "") -> tuple[str, str]:
        """The text, or an attribute, of an element that depends on sliders.

        Returns:
            What marks the element for the script, and what its text or attribute is at the start.
        """
        positions = itertools.product(*(each.values for each in moved.by))
        every = {now: moved.at(*now) for now in positions}
        start = every[tuple(each.start for each in moved.by)]
        frames = list(dict.fromkeys(every.values()))
        if len(frames) == 1:
            return "", start
        place = {frame: i for i, frame in enumerate(frames)}
        part = {
            "by": [self.sliders.index(each) for each in moved.by],
            "attribute": attribute,
            "frames": frames,
            "at": [place[frame] for frame in every.values()],
        }
        self.parts.append(part)
        return f' data-part="{len(self.parts) - 1}"', start

    def words(self, words: Words) -> tuple[str, str]:
        """A text as `part` has it, escaped."""
        mark, text = self.part(words) if isinstance(words, Moved) else ("", words)
        return mark, escape(text)

    def header(self, *titles: str) -> None:
        """Begin the table of numbers."""
        cells = (f'<th scope="col">{escape(title)}</th>' for title in titles)
        self.rows.append(f"<tr>{''.join(cells)}</tr>")

    def row(self, look: Look, *cells: Words) -> None:
        """Add numbers of what has a look; its label and line are the key to the panels."""
        numbers = "".join("<td{}>{}</td>".format(*self.words(cell)) for cell in cells)
        line = f'<path {drawn("line", look)} d="M1 4h32"/>'
        key = f'<svg class="key" viewBox="0 0 34 8" aria-hidden="true">{line}</svg>'
        self.rows.append(f'<tr><th scope="row">{key}{escape(look.label)}</th>{numbers}</tr>')

    def html(self) -> str:
        """The whole figure."""
        data = json.dumps(self.parts, ensure_ascii=False, separators=(",", ":"))
        data = data.replace("<", "\\u003c")  # nothing in it ends the script
        return (
            f'<figure class="moving"><figcaption><b>{escape(self.title)}</b> {escape(self.note)}'
            f'</figcaption><div class="controls">{"".join(map(_control, self.sliders))}</div>'
            f'<div class="panels">{"".join(panel.html() for panel in self.panels)}</div>'
            f'<div class="numbers"><table>{"".join(self.rows)}</table></div>'
            f'<script type="application/json">{data}</script></figure>'
        )


class Panel:
    """A drawing in a picture, in coordinates of its own.

    Args:
        picture: what it is added to.
        title: stands above it.
        alt: what a reader who does not see it should know; the numbers are in the table.
        x, y: its axes.
        height: in units of the width, `WIDTH`.
    """

    def __init__(
        self, picture: Picture, title: str, alt: str, x: Axis, y: Axis, height: float = 260
    ) -> None:
        picture.panels.append(self)
        self.picture, self.title, self.alt = picture, title, alt
        self.x, self.y, self.height = x, y, height
        below = 4 + LINE * bool(x.ticks) + (LINE + 3) * bool(x.label)
        longest = max((_letters(words) for words in y.ticks.values()), default=0)
        self.left, self.right = (max(36, 5 + LETTER * longest) if y.ticks else 4), WIDTH - 4
        self.top, self.bottom = (8 if y.ticks else 4), height - below
        self.elements: list[str] = []
        for value, words in y.ticks.items():
            _, at = self.place((x.low, value))
            self.elements.append(f'<path class="grid" d="M{self.left} {at:.1f}H{self.right}"/>')
            self._text("end", self.left - 5, at + 4, words)
        for value, words in x.ticks.items():
            at, _ = self.place((value, y.low))
            self._text("middle", at, self.bottom + LINE, words)
        if x.label:
            self._text("middle", (self.left + self.right) / 2, height - 5, x.label)

    @classmethod
    def round(
        cls, picture: Picture, title: str, alt: str, middle: float, half: float, height: float
    ) -> "Panel":
        """A panel without axes in which a circle is a circle, from -half to half in height."""
        across = half * (WIDTH - 8) / (height - 8)
        return cls(
            picture, title, alt, Axis(middle - across, middle + across, {}), Axis(-half, half, {}),
            height,
        )  # fmt: skip

    def place(self, point: Point) -> Point:
        """Where a point is drawn, in units of the width."""
        along = (point[0] - self.x.low) / (self.x.high - self.x.low)
        up = (point[1] - self.y.low) / (self.y.high - self.y.low)
        return (
            self.left + along * (self.right - self.left),
            self.bottom - up * (self.bottom - self.top),
        )

    def draw(
        self, kind: str, look: Look, by: Sequence[Slider], at: Callable[..., Run | Sequence[Run]]
    ) -> None:
        """Add what depends on sliders.

        Args:
            kind: of the look: "line", "thin", "thick", "area", "shade", "dots" or "pale".
            look: its colour and, of lines, its line style.
            by: the sliders.
            at: its points at their values, or several runs of points.
        """
        mark, path = self.picture.part(Moved(by, lambda *now: self._path(kind, at(*now))), "d")
        self.elements.append(f'<path {drawn(kind, look)}{mark} d="{path}"/>')

    def write(
        self, text: str, look: Look, by: Sequence[Slider], at: Callable[..., Point], side: str
    ) -> None:
        """Add a coloured text at a place that depends on sliders, by its "start" or "middle"."""
        where = Moved(by, lambda *now: "translate({:.1f} {:.1f})".format(*self.place(at(*now))))
        mark, place = self.picture.part(where, "transform")
        words = f'<text {drawn(side + " coloured", look)} y="4">{escape(text)}</text>'
        self.elements.append(f'<g{mark} transform="{place}">{words}</g>')

    def html(self) -> str:
        """The panel with its title."""
        box = f'viewBox="0 0 {WIDTH} {self.height:g}"'
        return (
            f'<div class="panel"><p>{escape(self.title)}</p>'
            f'<svg {box} role="img" aria-label="{escape(self.alt)}">{"".join(self.elements)}</svg>'
            "</div>"
        )

    def _text(self, side: str, x: float, y: float, words: Words) -> None:
        mark, text = self.picture.words(words)
        half = LETTER * _letters(words) / 2
        x = min(max(x, half), WIDTH - half) if side == "middle" else x
        self.elements.append(f'<text class="{side}" x="{x:.1f}" y="{y:.1f}"{mark}>{text}</text>')

    def _path(self, kind: str, runs: Run | Sequence[Run]) -> str:
        parts = []
        for run in [runs] if isinstance(runs[0][0], int | float) else runs:
            places = [_written(self.place(point)) for point in run]  # type: ignore[arg-type]
            if kind in ("dots", "pale"):  # round ends of lines without length
                parts += [f"M{place}h0" for place in places]
            else:
                parts += ["M", "L".join(places), "Z" * (kind in ("area", "shade"))]
        return "".join(parts)


def _letters(words: Words) -> int:
    """Of a text, at most."""
    if isinstance(words, str):
        return len(words)
    return max(len(words.at(*now)) for now in itertools.product(*(s.values for s in words.by)))


def _written(point: Point) -> str:
    return " ".join(f"{part:.1f}".removesuffix(".0") for part in point)


def _control(slider: Slider) -> str:
    texts = [f"{value:{slider.form}}" for value in slider.values]
    at = slider.values.index(slider.start)
    button = '<button type="button" aria-pressed="false">Play</button>' if slider.plays else ""
    label = escape(slider.label)
    return (
        f'<label><span>{label}</span><input type="range" aria-label="{label}" autocomplete="off"'
        f' max="{len(texts) - 1}" value="{at}" data-texts="{escape(json.dumps(texts))}">'
        f'<span class="now" aria-hidden="true">{texts[at]}</span></label>{button}'
    )


def drawn(kind: str, look: Look) -> str:
    """Attributes of an element of a kind that `static/moving.css` knows."""
    pattern = look.line[1] if isinstance(look.line, tuple) else DASHES[look.line]
    dash = " ".join(f"{2 * part:g}" for part in pattern)
    colours = f"--light:{look.colour};--dark:{on_dark(look.colour)}"
    return f'class="{kind}" style="{colours}"' + f' stroke-dasharray="{dash}"' * bool(dash)


def group_looks(class_counts: Sequence[int], names: Sequence[str]) -> list[Look]:
    """The look of each class: the colour of its group, and its name."""
    colours = {
        j: GROUP_LOOKS[group].colour
        for group, members in class_groups(class_counts).items()
        for j in members
    }
    return [Look(name, colours[j]) for j, name in enumerate(names)]


# On a circle, with angles in degrees


def towards(angle: float, length: float = 1.0) -> Point:
    """The point in a direction at a distance from the origin."""
    return length * math.cos(math.radians(angle)), length * math.sin(math.radians(angle))


def arc(low: float, high: float, length: float = 1.0) -> list[Point]:
    """Points along a circle, at most six degrees apart."""
    steps = max(1, math.ceil(abs(high - low) / 6))
    return [towards(low + (high - low) * step / steps, length) for step in range(steps + 1)]


def wedge(low: float, high: float, length: float = 1.0) -> list[Point]:
    """The part of a disc between two directions."""
    return [(0.0, 0.0), *arc(low, high, length)]


def arrow(angle: float, start: float, end: float) -> list[list[Point]]:
    """An arrow outward in a direction: its shaft and its head."""
    x, y = tip = towards(angle, end)
    barbs = [towards(angle + turn, 0.09 * end) for turn in (155, -155)]
    head = [(x + barbs[0][0], y + barbs[0][1]), tip, (x + barbs[1][0], y + barbs[1][1])]
    return [[towards(angle, start), tip], head]
