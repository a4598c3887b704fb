"""The rendered pages: built without a warning, and nothing that is broken passes."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from gcl_core.course.execution import notebooks_in

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


def test_formulas_in_docstrings_stay_as_they_are():
    lines = ["A |x| of", "", "    y = |x|", "", "Args:", "    a: its |a|", "", "    more"]
    as_plain_text(None, "function", "f", None, None, lines)
    assert lines == [
        *(r"A \|x\| of", "", "::", "", "    y = |x|", "", "Args:", r"    a: its \|a\|"),
        *("", "    more"),
    ]
