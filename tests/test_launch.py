"""The lab in Colab: a link and an installing cell where an address is set, else neither."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import gcl_core
from gcl_core.course import launch
from gcl_core.course.execution import synchronise
from gcl_core.course.launch import is_launch, repository
from gcl_core.course.students import student_copy
from gcl_core.errors import GCLError

ROOT = Path(gcl_core.__file__).parents[1]
TEXT = "# %% [markdown]\n# # Lab 1\n\n# %% tags=['parameters']\ndataset: str = 'digits'  # data\n"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "notebooks" / "lab").mkdir(parents=True)
    for name in ("lab/1_see.py", "00_tail.py"):
        (tmp_path / "notebooks" / name).write_text(TEXT)
    return tmp_path


def address(project, line):
    (project / "pyproject.toml").write_text(f"[project]\nname = 'x'\n[project.urls]\n{line}\n")


def lab(project):
    return nbformat.read(project / "notebooks" / "lab" / "1_see.ipynb", 4)


def test_without_an_address_there_is_neither_link_nor_installation(project):
    synchronise(project / "notebooks")
    assert not any(map(is_launch, lab(project).cells))
    address(project, "Homepage = 'https://example.org'")
    synchronise(project / "notebooks")
    assert not any(map(is_launch, lab(project).cells))


@pytest.mark.parametrize("end", ["", "/", ".git"])
def test_with_an_address_the_lab_opens_and_installs_itself(project, end):
    address(project, f"Repository = 'https://github.com/some-one/gcl.core{end}'")
    synchronise(project / "notebooks")
    first = (project / "notebooks" / "lab" / "1_see.ipynb").read_bytes()
    title, link, install, parameters = lab(project).cells
    assert title.source == "# Lab 1"
    assert link.source.endswith(
        "(https://colab.research.google.com/github/some-one/gcl.core/blob/main/"
        "notebooks/lab/1_see.ipynb)**"
    )
    assert "'gcl-core @ git+https://github.com/some-one/gcl.core' " in install.source
    done = []
    python = TransformerManager().transform_cell(install.source)
    exec(python, {"get_ipython": lambda: done.append("installs")})  # the package is there
    assert done == []
    assert parameters.metadata.tags == ["parameters"]
    assert len(nbformat.read(project / "notebooks" / "00_tail.ipynb", 4).cells) == 2
    synchronise(project / "notebooks")  # again: neither twice nor in the text
    assert (project / "notebooks" / "lab" / "1_see.ipynb").read_bytes() == first
    assert len(jupytext.read(project / "notebooks" / "lab" / "1_see.py").cells) == 2
    nbformat.validate(lab(project))


def test_a_students_copy_installs_and_has_no_link_to_the_answers(project):
    address(project, "Repository = 'https://github.com/a/b'")
    synchronise(project / "notebooks")
    copy = student_copy(lab(project))
    assert [cell.cell_type for cell in copy.cells] == ["markdown", "code", "code"]
    assert "colab" not in str(copy)


@pytest.mark.parametrize(
    "wrong", ["https://github.com/OWNER/NAME", "https://gitlab.com/a/b", "a/b"]
)
def test_an_address_that_colab_cannot_open_is_refused_before_anything_changes(project, wrong):
    address(project, f"Repository = '{wrong}'")
    with pytest.raises(GCLError, match=f"Repository is '{wrong}'.*or leave the line out"):
        synchronise(project / "notebooks")
    assert not (project / "notebooks" / "00_tail.ipynb").exists()


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, *more):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def test_the_lab_needs_no_more_than_the_cell_installs(tmp_path):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = settings["optional-dependencies"]
    study = {re.match(r"[\w-]+", line)[0] for name in ("study", "grid") for line in extras[name]}
    there = set(launch.INSTALL.split()) | {"pandas", "pyarrow"}  # of seaborn, and of pandas
    there |= {"ipython", "ipykernel", "jupyter-client", "traitlets"}  # of every notebook
    missing = {{"pyyaml": "yaml"}.get(name, name) for name in study - there - {"gcl-core"}}
    assert {"papermill", "jupytext", "distributed", "yaml"} <= missing
    lines = [WITHOUT.format(missing=missing)]
    for text in (ROOT / "notebooks" / "lab").glob("[0-9]*.py"):
        parsed = ast.parse(text.read_text())
        lines += [
            ast.unparse(n) for n in ast.walk(parsed) if isinstance(n, ast.Import | ast.ImportFrom)
        ]
    assert len(lines) > 30
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, check=True)


def test_the_lab_holds_no_local_path_and_no_make():
    for text in (ROOT / "notebooks" / "lab").glob("[0-9]*.py"):
        assert not re.search(r"(^|[\s\"'])(/\w|~/|\.\./(?!\.\./docs))|\bmake \w", text.read_text())


def test_this_project_has_a_right_address_or_none():
    assert repository(ROOT) is None or "/" in repository(ROOT)
