"""Sliders: a plain picture under every program that runs notebooks, widgets where somebody is."""

import base64
import subprocess
import sys
from types import SimpleNamespace

import ipywidgets
import jupyter_client
import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook

from gcl_core.course import interaction
from gcl_core.course.interaction import Choice, Slider, explore

WIDGET = "application/vnd.jupyter.widget-view+json"
CELL = """\
from matplotlib.figure import Figure
from gcl_core.course.interaction import Slider, explore
def draw(width):
    figure = Figure(figsize=(width, 1))
    figure.subplots().plot([0, 1])
    return figure
explore(draw, "x", "A line.", None, width=Slider("width", 2.0, 1.0, 4.0, 0.5))
"""


def draw(width, colour="black"):
    if width > 3:
        raise ValueError("too <wide>")
    figure = Figure(figsize=(width, 1))
    figure.subplots().plot([0, 1], color=colour)
    return figure


CONTROLS = {
    "width": Slider("width", 2.0, 1.0, 4.0, 0.5),
    "colour": Choice("line", "black", ("black", "red")),
}


@pytest.fixture
def displayed(monkeypatch):
    """What `display` is given, here and in `show`."""
    calls = []

    def display(*given, **more):
        calls.append((given, more))

    monkeypatch.setattr(interaction, "display", display)
    monkeypatch.setattr("gcl_core.course.notebook.display", display)
    return calls


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setattr(interaction, "is_live", lambda: True)


def test_outside_of_a_notebook_nobody_is_there():
    assert not interaction.is_live()


@pytest.mark.parametrize(("parent", "answer"), [({"allow_stdin": True}, True), ({}, False)])
def test_who_can_answer_input_can_move_a_slider(parent, answer, monkeypatch):
    kernel = SimpleNamespace(get_parent=lambda channel: {"content": parent})
    monkeypatch.setattr(interaction, "get_ipython", lambda: SimpleNamespace(kernel=kernel))
    assert interaction.is_live() is answer


def test_a_static_figure_shows_the_starting_values(displayed, tmp_path):
    explore(draw, "name", "A line.", tmp_path, **CONTROLS)
    (((image,), _),) = displayed
    assert image.alt == "A line. Shown: width = 2, line = black."
    assert {file.name for file in tmp_path.iterdir()} == {"name.svg", "name.png", "name.json"}
    assert '"width": 2.0' in (tmp_path / "name.json").read_text()


def widgets_of(displayed):
    """Sliders and picture of the box that was displayed."""
    (((bundle,), more),) = displayed
    assert more["raw"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert more["metadata"]["image/png"]["alt"].startswith("A line. Shown: width = 2")
    box = ipywidgets.widgets.widget._instances[bundle[WIDGET]["model_id"]]
    row, picture = box.children
    return row.children, picture


def test_a_moved_slider_draws_anew_what_it_says(displayed, live):
    explore(draw, "name", "A line.", None, **CONTROLS)
    (width, colour), picture = widgets_of(displayed)
    seen = [picture.value]
    for widget, value, said in ((width, 3.0, "width = 3"), (colour, "red", "line = red")):
        widget.value = value
        assert said in picture.value
        seen.append(picture.value)
    assert len({text.split("base64,")[1] for text in seen}) == 3
    width.value, colour.value = 2.0, "black"
    assert picture.value.startswith('<img alt="A line. Shown: width = 2, line = black."')


def test_panels_stay_where_they_are(displayed, live):
    figures = []

    def crowded(size):
        figures.append(Figure(layout="constrained"))
        figures[-1].subplots().set_ylabel("label", size=size)
        return figures[-1]

    explore(crowded, "name", "A label.", None, size=Slider("size", 8, 8, 40, 1))
    (((bundle,), _),) = displayed
    box = ipywidgets.widgets.widget._instances[bundle[WIDGET]["model_id"]]
    box.children[0].children[0].value = 40
    first, second = (figure.axes[0].get_position().bounds for figure in figures)
    assert first == pytest.approx(second, abs=0.005)  # the still picture is of another resolution


def test_a_failure_is_said_in_place_of_the_picture(displayed, live):
    explore(draw, "name", "A line.", None, **CONTROLS)
    (width, _), picture = widgets_of(displayed)
    width.value = 4.0
    assert picture.value == "<pre>ValueError: too &lt;wide&gt;</pre>"
    width.value = 1.0
    assert picture.value.startswith("<img")


# Real kernels.


def test_a_front_end_that_answers_input_gets_widgets_and_one_that_does_not_a_picture():
    manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3")
    try:
        bundles = []
        for allow in (True, False):
            given = {}

            def keep(message, given=given):
                if message["msg_type"] == "display_data":
                    given.update(message["content"]["data"])

            client.execute_interactive(
                CELL, allow_stdin=allow, output_hook=keep, timeout=120, stop_on_error=True
            )
            bundles.append(given)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert set(bundles[0]) == {"text/plain", "image/png", WIDGET}
    assert set(bundles[1]) == {"text/plain", "image/png"}


def test_executed_from_the_command_line_it_is_a_picture(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell(CELL)]), tmp_path / "in.ipynb")
    module = [sys.executable, "-m"]
    run = ["nbconvert", "--to", "notebook", "--execute", "in.ipynb", "--output", "out.ipynb"]
    subprocess.run([*module, *run], cwd=tmp_path, check=True, capture_output=True)
    notebook = nbformat.read(tmp_path / "out.ipynb", 4)
    assert "widgets" not in notebook.metadata
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"text/plain", "image/png"}
    assert output.metadata["image/png"]["alt"] == "A line. Shown: width = 2."
    # The default template (lab) leaves every alternative text out.
    html = [*module, "nbconvert", "--to", "html", "--template", "classic", "out.ipynb"]
    told = subprocess.run(html, cwd=tmp_path, check=True, capture_output=True, text=True).stderr
    assert "WARN" not in told
    page = (tmp_path / "out.html").read_text()
    assert 'alt="A line. Shown: width = 2."' in page
    assert "widget-view+json" not in page
