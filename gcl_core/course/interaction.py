"""Sliders where somebody can move them, and a plain figure everywhere else."""

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets
from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from gcl_core.course.notebook import png_of, show
from gcl_core.figures.saving import drawn


@dataclass(frozen=True)
class Slider:
    """A number to move.

    Attributes:
        label: what stands beside it.
        value: where it starts, and what a static figure shows.
        low, high, step: its range.
    """

    label: str
    value: float
    low: float
    high: float
    step: float

    def widget(self) -> ipywidgets.Widget:
        reach = {"min": self.low, "max": self.high, "step": self.step, "readout_format": ".4"}
        return ipywidgets.FloatSlider(value=self.value, **reach, **_layout(self.label))


@dataclass(frozen=True)
class Choice:
    """One of a few values, on a slider.

    Attributes:
        label: what stands beside it.
        value: where it starts, and what a static figure shows.
        options: all values, in order.
    """

    label: str
    value: Any
    options: Sequence[Any]

    def widget(self) -> ipywidgets.Widget:
        options = [(_text(option), option) for option in self.options]
        label = _layout(self.label)
        return ipywidgets.SelectionSlider(value=self.value, options=options, **label)


def is_live() -> bool:
    """Whether this notebook is open where somebody can move a slider.

    A front end for people can also answer `input()`, and says so with each cell that it wants run
    (`allow_stdin` in Jupyter's messages). What runs notebooks unattended says that it cannot:
    papermill, nbconvert and all else that is made with nbclient. Outside of Jupyter: no.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(kernel and kernel.get_parent("shell").get("content", {}).get("allow_stdin"))


def explore(
    draw: Callable[..., Figure],
    name: str,
    alt: str,
    folder: Path | None,
    **controls: Slider | Choice,
) -> None:
    """Display `draw(**values)`, with a slider for each value where somebody can move it.

    Otherwise, as under papermill and nbconvert, this is `show` of the figure at the starting
    values: a plain picture. A live notebook has that picture too, beside the widgets, for whoever
    opens the saved file without a kernel.

    Args:
        draw: a figure from values, without side effects; drawn anew at every move.
        name: file name of the figure without suffix.
        alt: what a reader who does not see it should know; the values are added to it.
        folder: see `gcl_core.course.notebook.show`.
        controls: by the names that `draw` has for them.
    """
    values = {key: control.value for key, control in controls.items()}
    figure = draw(**values)
    alt_now = _described(alt, controls, values)
    if not is_live():
        show(figure, name, alt_now, folder, {"values": values})
        return
    widgets = {key: control.widget() for key, control in controls.items()}
    picture = ipywidgets.HTML(_picture(figure, alt_now))
    places = [axes.get_position(original=True) for axes in figure.axes]

    def redraw(change: object) -> None:
        now = {key: widget.value for key, widget in widgets.items()}
        try:
            moved = draw(**now)
            # Panels stay where they are, which spares half of the time as well.
            moved.set_layout_engine("none")
            for axes, place in zip(moved.axes, places, strict=True):
                axes.set_position(place)
            picture.value = _picture(moved, _described(alt, controls, now))
        except Exception as error:  # nobody would see it: the kernel only logs it
            picture.value = f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"

    for widget in widgets.values():
        widget.observe(redraw, "value")
    row = ipywidgets.HBox(list(widgets.values()), layout=ipywidgets.Layout(flex_flow="row wrap"))
    bundle = ipywidgets.VBox([row, picture])._repr_mimebundle_()
    still = base64.b64encode(png_of(figure)).decode()
    display({**bundle, "image/png": still}, metadata={"image/png": {"alt": alt_now}}, raw=True)


def _layout(label: str) -> dict[str, Any]:
    return {
        "description": label,
        "style": {"description_width": "initial"},
        "layout": ipywidgets.Layout(width="24em"),
    }


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _described(alt: str, controls: dict[str, Slider | Choice], values: dict[str, Any]) -> str:
    now = ", ".join(f"{controls[key].label} = {_text(value)}" for key, value in values.items())
    return f"{alt} Shown: {now}."


def _picture(figure: Figure, alt: str) -> str:
    """An <img> that holds the figure, quick to make: its bytes are not meant to be kept."""
    data = base64.b64encode(drawn(figure, dpi=80, pil_kwargs={"compress_level": 1})).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
