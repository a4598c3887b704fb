"""The lab in Colab: a link and an installing cell where an address is set, else neither."""

import jupytext
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from gcl_core.course.execution import synchronise
from gcl_core.course.launch import is_launch, repository
from gcl_core.course.students import student_copy
from gcl_core.errors import GCLError

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
    assert "gcl-core[study] @ git+https://github.com/some-one/gcl.core'" in install.source
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


def test_this_project_has_a_right_address_or_none():
    from test_readme import ROOT

    assert repository(ROOT) is None or "/" in repository(ROOT)
