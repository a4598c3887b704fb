"""The notebooks' sliders in JupyterLab, in a real Chromium: moved, and the picture changes."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import gcl_core
from chromium import CHROMIUM, FLAGS

playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(gcl_core.__file__).parents[1]
NOTIFICATIONS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
QUIET = {"fetchNews": "false", "checkForUpdates": False}  # no question on the first visit
RUN_ALL = """async () => {
    const lab = window.jupyterapp;
    await lab.shell.currentWidget.sessionContext.ready;
    lab.commands.execute('notebook:run-all-cells').then(() => { window.finished = true; });
}"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a port that the system chooses: its address with token, and its folder."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    (folder / "settings" / NOTIFICATIONS).parent.mkdir(parents=True)
    (folder / "settings" / NOTIFICATIONS).write_text(json.dumps(QUIET))
    environment = {
        **os.environ,
        **{f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "RUNTIME")},
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_TOKEN": secrets.token_urlsafe(24),
        "IPYTHONDIR": str(folder / "ipython"),
        "TQDM_DISABLE": "1",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
    command += ["--expose-app-in-browser", "--allow-root"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder / "notebooks", env=environment, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 120
            while not (found := re.search(r"http://127.0.0.1:(\d+)/lab", _text(folder / "log"))):
                assert server.poll() is None, _text(folder / "log")
                assert time.monotonic() < deadline, _text(folder / "log")
                time.sleep(0.1)
            token = environment["JUPYTER_TOKEN"]
            yield (
                f"http://127.0.0.1:{found[1]}/lab/workspaces/{{0}}/tree/{{0}}.ipynb?token={token}",
                folder / "notebooks",
            )
        finally:
            server.terminate()
            server.wait(30)


def _text(file):
    return file.read_text() if file.exists() else ""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    profile = tmp_path_factory.mktemp("chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1400, "height": 3000},
        )
        page = browser.new_page()
        page.set_default_timeout(180_000)  # a notebook on a busy machine
        yield page
        browser.close()


def run_in_lab(lab, page, notebook, name):
    """Open a notebook, in a workspace without others, and run all of its cells."""
    address, folder = lab
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    jupytext.write(notebook, folder / f"{name}.ipynb")
    page.goto(address.format(name))
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.evaluate(RUN_ALL)
    page.wait_for_function("window.finished")  # a busy kernel would not answer a slider


def drag(page, handle):
    """Drag a slider's handle to the left, again should the page have moved under the mouse."""
    before = handle.get_attribute("aria-valuetext")
    for _ in range(5):
        handle.hover()  # waits until it stands still
        place = handle.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        page.mouse.down()
        page.mouse.move(x - 60, y, steps=5)
        page.mouse.up()
        if handle.get_attribute("aria-valuetext") != before:
            return
    raise AssertionError("the slider cannot be dragged")


def moved(page, index=0, seconds=20):
    """Alternative text and bytes of a picture before and after its first slider is dragged."""
    box = page.locator(".widget-vbox").nth(index)

    def shown():  # both at one moment: between two questions the picture may be replaced
        return box.locator("img").evaluate("image => [image.alt, image.src]")

    before = shown()
    drag(page, box.locator("[role=slider]").first)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (after := shown()) != before:
            return before, after
        page.wait_for_timeout(50)
    raise AssertionError("the slider was moved, and the picture stayed as it was")


@pytest.mark.parametrize(
    "name", ["00_long_tail", "01_softmax_saturation", "02_gaussian_cloud", "05_embedding"]
)
def test_a_slider_moves_its_picture(lab, page, name):
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = re.sub(r'preset: str = "\w*"', 'preset: str = "smoke"', cell.source)
    cell.source = re.sub(r"seeds: int = \d+", "seeds: int = 1", cell.source)
    cell.source = re.sub(r"workers: int = \d+", "workers: int = 1", cell.source)
    cell.source = re.sub(r"points: int = \d+", "points: int = 60", cell.source)
    run_in_lab(lab, page, notebook, name)
    before, after = moved(page, 0)
    assert before[0] != after[0]
    assert re.sub(r"Shown: .*", "", before[0]) == re.sub(r"Shown: .*", "", after[0])
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0


def test_the_test_sees_a_slider_that_is_not_connected(lab, page):
    cell = """\
import ipywidgets
from gcl_core.figures import cloud as cloud_figures
from gcl_core.course.interaction import Slider, explore
ipywidgets.FloatSlider.observe = lambda *given, **more: None
sliders = {"difference": Slider("d", 5, 0, 9, 1), "reach": Slider("r", 15, 0, 30, 1)}
explore(cloud_figures.gradient_at, "x", "Text.", None, **sliders)
"""
    run_in_lab(lab, page, new_notebook(cells=[new_code_cell(cell)]), "broken")
    with pytest.raises(AssertionError, match="the picture stayed as it was"):
        moved(page, seconds=5)
