"""The rendered pages: built without a warning, and nothing that is broken passes.

The pictures that move are moved, in a real Chromium without a network.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from chromium import CHROMIUM, FLAGS
from gcl_core.course.execution import notebooks_in
from gcl_core.training.evaluation import weighted_accuracy

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))

from checks import problems  # noqa: E402
from sources import WIDGET, as_plain_text, read_notebook  # noqa: E402

PNG = "iVBORw0KGgo="
NOT_COPIED = ("build", "data", "runs", "students", "study")  # of the project's own folder


def not_copied(folder, names):
    everywhere = {name for name in names if name.startswith(".") or name in ("__pycache__", "api")}
    return everywhere | set(NOT_COPIED if Path(folder) == ROOT else ())


def build(project):
    """What `make site` does, in a copy of the project; exit status and what was said."""
    words = "--quiet --fail-on-warning --fresh-env --conf-dir docs -d build/doctrees . build/site"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words.split()],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    project = tmp_path_factory.mktemp("site") / "project"
    shutil.copytree(ROOT, project, ignore=not_copied)
    assert build(project) == (0, "")
    return project / "build" / "site"


def test_every_page_is_there(site):
    sources = notebooks_in(ROOT / "notebooks")
    notebooks = {file.relative_to(ROOT).with_suffix(".html").as_posix() for file in sources}
    written = [*ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")]
    guides = {f"{file.parent.name}/{file.stem}.html" for file in written}
    guides.remove("docs/contents.html")  # is part of the first page
    modules = {
        f"docs/api/{'.'.join(file.relative_to(ROOT).with_suffix('').parts)}.html"
        for file in (ROOT / "gcl_core").rglob("*.py")
        if not file.stem.startswith("__") and (file.parent / "__init__.py").exists()
    }
    pages = {"index.html", "README.html", "CONTRIBUTING.html", "CHANGELOG.html", "search.html"}
    expected = notebooks | guides | modules | pages
    missing = [page for page in sorted(expected) if not (site / page).is_file()]
    assert missing == []


def test_pages_hold_what_they_are_for(site):
    notebook = (site / "notebooks" / "01_softmax_saturation.html").read_text()
    assert 'alt="Mean gradient on the target logit' in notebook
    assert "0.11920" in notebook  # an output that is committed
    assert "_static/mathjax/tex-chtml.js" in notebook
    assert "class_counts" in (site / "docs" / "notation.html").read_text()
    loss = (site / "docs" / "api" / "gcl_core.losses.gcl.html").read_text()
    assert '<p class="rubric">Shape</p>' in loss
    assert (site / "_static" / "mathjax" / "tex-chtml.js").is_file()
    assert (site / "searchindex.js").stat().st_size > 10_000


BROKEN = {
    "[a page](docs/nothing.md)": "cross-reference target not found: 'docs/nothing.md'",
    "[a part](CHANGELOG.md#nothing)": "local id not found in doc 'CHANGELOG': 'nothing'",
    "![](figures/headline.png)": "image without an alternative text",
    '<img src="https://example.org/x.png" alt="x">': "needs a network: https://example.org/x.png",
    '<a href="docs/nothing.html">raw</a>': "link to nothing: docs/nothing.html",
    "{py:obj}`gcl_core.nothing`": "reference target not found: gcl_core.nothing",
}


def test_what_is_broken_stops_the_build(tmp_path):
    """In a small project with the real settings, as the whole site takes its time."""
    for name in ("docs", "figures"):
        ignore = shutil.ignore_patterns("api", "*.md", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    (tmp_path / "gcl_core.py").write_text('"""A stand-in."""\n__version__ = "0"\n')
    contents = "\n```{toctree}\nCHANGELOG\nnotebooks/01_x\n```\n"
    (tmp_path / "docs" / "contents.md").write_text(contents)
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n")
    figure = new_output("display_data", {"image/png": PNG})
    cells = [new_markdown_cell("# One"), new_code_cell("x", outputs=[figure])]
    (tmp_path / "notebooks").mkdir()
    notebook = new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, tmp_path / "notebooks" / "01_x.ipynb")
    good = "# A page\n\n![what is seen](figures/headline.png)\n\n[another](CHANGELOG.md)\n"
    (tmp_path / "README.md").write_text("\n\n".join([good, *BROKEN]) + "\n")
    status, output = build(tmp_path)
    assert status == 1
    assert [said for said in BROKEN.values() if said not in output] == []
    assert "notebooks/01_x.html: image without an alternative text" in output
    assert output.count("WARNING") == len(BROKEN) + 3, output  # links are also found on the page


def test_each_problem_is_found_once(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "other.html").write_text('<p id="part">x</p><img src="x.png" alt=" ">')
    (tmp_path / "x.png").write_bytes(b"")
    page = tmp_path / "sub" / "page.html"
    good = '<a href="../other.html#part">x</a><a href="https://example.org">x</a><a href="#">x</a>'
    page.write_text(good + '<img src="../x.png" alt="x"><link rel="index" href="../other.html">')
    assert problems(tmp_path) == ["other.html: image without an alternative text: x.png"]
    page.write_text(
        '<a href="../other.html#nothing">x</a><script src="//example.org/x.js"></script>'
        '<link rel="stylesheet" href="http://example.org/x.css"><img src="y.png" alt="y">'
    )
    assert problems(tmp_path)[1:] == [
        "sub/page.html: link to nothing: ../other.html#nothing",
        "sub/page.html: link to nothing: y.png",
        "sub/page.html: needs a network: //example.org/x.js",
        "sub/page.html: needs a network: http://example.org/x.css",
    ]


def test_figures_keep_their_alternative_texts_and_widgets_go():
    outputs = [
        new_output("display_data", {WIDGET: {"model_id": "x"}, "text/plain": "Box()"}),
        new_output("display_data", {"image/png": PNG}, metadata={"image/png": {"alt": "a line"}}),
    ]
    cells = [new_code_cell("x", outputs=outputs), new_code_cell("y")]
    text = nbformat.writes(new_notebook(cells=cells, metadata={"widgets": {}}))
    read = read_notebook(text)
    assert read.cells[0].metadata == {"mystnb": {"image": {"alt": "a line"}}}
    assert [list(output.data) for output in read.cells[0].outputs] == [["image/png"]]
    assert read.cells[1].metadata == {}
    assert "widgets" not in read.metadata


def test_a_picture_that_moves_stands_below_its_figure():
    cells = [
        new_code_cell('show(f, "02_circle")'),
        new_markdown_cell('"02_circle"'),
        new_code_cell(),
    ]
    read = read_notebook(nbformat.writes(new_notebook(cells=cells)))
    assert [cell.source for cell in read.cells] == [
        cells[0].source, "```{moving} cloud\n```", cells[1].source, ""
    ]  # fmt: skip


def test_formulas_in_docstrings_stay_as_they_are():
    lines = ["A |x| of", "", "    y = |x|", "", "Args:", "    a: its |a|", "", "    more"]
    as_plain_text(None, "function", "f", None, None, lines)
    assert lines == [
        *(r"A \|x\| of", "", "::", "", "    y = |x|", "", "Args:", r"    a: its \|a\|"),
        *("", "    more"),
    ]


LOOKED_AT = """figure => {
    const sliders = [...figure.querySelectorAll('input')];
    const parts = JSON.parse(figure.querySelector('script').textContent);
    return {
        values: sliders.map(s => Number(s.value)),
        sizes: sliders.map(s => Number(s.max) + 1),
        texts: sliders.map(s => s.parentElement.querySelector('.now').textContent),
        spoken: sliders.map(s => s.getAttribute('aria-valuetext')),
        rows: [...figure.querySelectorAll('tr')].map(row => row.innerText),
        wrong: parts.filter((part, i) => {
            const element = figure.querySelector(`[data-part="${i}"]`);
            const own = part.attribute ? element.getAttribute(part.attribute) : element.textContent;
            part.now = own;
            return !part.frames.includes(own);
        }).length,
        parts: parts.map(({ by, at, frames, now }) => ({ by, at: at, now: frames.indexOf(now) })),
    };
}"""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(site, browser):
    """A page of the site in a browser that is offline and a phone's width; what it asks for."""
    asked = []

    def open_page(name, **more):
        context = browser.new_context(viewport={"width": 390, "height": 800}, **more)
        context.set_default_timeout(180_000)  # on a busy machine
        context.set_offline(True)
        page = context.new_page()
        page.route("**/mathjax/**", lambda route: route.abort())  # formulas take their time
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(str(error)))
        page.goto((site / name).as_uri())
        return page

    yield open_page
    assert [url for url in asked if not url.startswith("file:")] == []
    for context in browser.contexts:
        context.close()


def as_it_should_be(looked):
    """Which frame each part should show, from the values of the sliders."""
    places = []
    for part in looked["parts"]:
        place = 0
        for slider in part["by"]:
            place = place * looked["sizes"][slider] + looked["values"][slider]
        places.append(part["at"][place])
    return places


def test_the_arrow_keys_move_every_picture(opened):
    page = opened("docs/moving.html")
    figures = page.locator("figure.moving")
    assert figures.count() == 5
    for figure in figures.all():
        before = figure.evaluate(LOOKED_AT)
        for i, slider in enumerate(figure.get_by_role("slider").all()):
            end = before["values"][i] == before["sizes"][i] - 1
            slider.press("ArrowLeft" if end else "ArrowRight")
            after = figure.evaluate(LOOKED_AT)
            assert after["values"][i] == before["values"][i] + (-1 if end else 1)
            assert after["wrong"] == 0
            assert [part["now"] for part in after["parts"]] == as_it_should_be(after)
            assert after["parts"] != before["parts"]
            assert after["rows"] != before["rows"]
            assert after["spoken"][i] == "; ".join([after["texts"][i], *after["rows"]])
            before = after


def test_the_tilt_shows_the_accuracy_on_its_mix(opened):
    figure = opened("docs/moving.html").locator("figure.moving").first
    figure.get_by_role("slider", name="tilt t", exact=True).fill("5")  # of 0 to 20: t = -0.5
    records = json.loads((ROOT / "results" / "digits.json").read_text())["records"]
    runs = [r for r in records if r["method"] == "gcl_crt" and r["imbalance_ratio"] == 100]
    counts = runs[0]["identity"]["images"]["class_counts"]
    mix = [n**-0.5 for n in counts]
    mean = sum(weighted_accuracy(run["per_class"], mix) for run in runs) / len(runs)
    row = figure.get_by_role("row").filter(has_text="GCL + cRT")
    assert row.get_by_role("cell").first.inner_text() == f"{mean:.1f}"


@pytest.mark.parametrize("name", ["docs/moving", "notebooks/02_gaussian_cloud"])
def test_a_phone_has_no_need_to_scroll_sideways(opened, name):
    page = opened(f"{name}.html")
    assert page.locator("figure.moving.live").count() > 0
    wide = "[...document.querySelectorAll(where)].filter(e => e.scrollWidth > e.clientWidth).length"
    for where in ("html", ".content", "figure.moving", ".moving .numbers"):
        assert page.evaluate(wide.replace("where", repr(where))) == 0, where


def test_the_network_plays_its_epochs(opened):
    page = opened("docs/moving.html")
    button = page.get_by_role("button", name="Play")
    figure = page.locator("figure.moving").filter(has=button)
    last = figure.locator(".now").inner_text()
    button.click()  # at the last epoch, so that it begins with the first
    figure.locator(".now").filter(has_not_text=last).wait_for()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"


def test_without_a_script_the_pictures_stand(opened):
    page = opened("docs/moving.html", java_script_enabled=False)
    figure = page.locator("figure.moving").first
    assert figure.locator("path.line").first.get_attribute("d").startswith("M")
    assert figure.get_by_role("img").count() == 2
    assert figure.locator("td").first.inner_text() == "77.6"  # CE with balanced classes
    assert not figure.locator("input").is_visible()


def test_a_dark_page_has_lighter_colours(opened):
    ink = "getComputedStyle(document.querySelector('.moving path.line')).stroke"
    colours = [
        opened("docs/moving.html", color_scheme=scheme).evaluate(ink)
        for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(0, 0, 0)", "rgb(230, 237, 243)"]
