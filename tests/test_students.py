"""Exercises have solutions that are folded away, and the copies for students have none of them."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import gcl_core
from gcl_core import cli
from gcl_core.course.execution import notebooks_in
from gcl_core.course.students import is_solution, student_copy, write_student_copies
from gcl_core.errors import GCLError

ROOT = Path(gcl_core.__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def is_exercise(cell):
    return cell.cell_type == "markdown" and re.match(r"\d\. ", cell.source)


@each_notebook
def test_every_exercise_is_followed_by_its_solution(path):
    cells = nbformat.read(path, 4).cells
    exercises = [number for number, cell in enumerate(cells) if is_exercise(cell)]
    assert 3 <= len(exercises) <= 5
    assert [cells[n].source[0] for n in exercises] == [str(n + 1) for n in range(len(exercises))]
    assert all(is_solution(cells[number + 1]) for number in exercises)


@each_notebook
def test_solutions_are_folded_and_stand_nowhere_else(path):
    for cell in nbformat.read(path, 4).cells:
        if is_solution(cell) and cell.cell_type == "markdown":
            assert cell.source.startswith("<details><summary>Solution</summary>\n\n")
            assert cell.source.endswith("\n\n</details>")
        elif is_solution(cell):
            assert "hide-cell" in cell.metadata.tags
        else:
            assert "<details>" not in cell.source


@each_notebook
def test_a_student_copy_has_no_solution_and_no_output(path):
    notebook = nbformat.read(path, 4)
    copy = student_copy(notebook)
    nbformat.validate(copy)
    solutions = [cell.source for cell in notebook.cells if is_solution(cell)]
    rest = [cell.source for cell in notebook.cells if not is_solution(cell)]
    assert [cell.source for cell in copy.cells] == rest
    lines = [[line for line in each.splitlines() if len(line) > 30] for each in solutions]
    assert any(lines)
    prose = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    assert [line for own in lines for line in own if line in prose] == []
    text = "\n".join(rest)  # some lines, such as a loop over methods, are in every second cell
    assert all(any(line not in text for line in own) for own in lines if own)
    assert all(not c.outputs and c.execution_count is None for c in copy.cells if "outputs" in c)
    assert any("outputs" in c and c.outputs for c in notebook.cells), "the original was changed"


def test_solutions_of_any_kind_are_left_out_and_all_else_stays():
    tags = {"tags": ["solution", "hide-cell"]}
    cells = [
        new_markdown_cell("1. Why?"),
        new_markdown_cell("Because.", metadata={"tags": ["solution"]}),
        new_code_cell("answer = 42", metadata=tags),
        new_code_cell("print(1)", execution_count=3, outputs=[new_output("stream", text="1")]),
    ]
    notebook = new_notebook(cells=cells, metadata={"gcl": {"made_of": "x"}, "authors": []})
    copy = student_copy(notebook)
    assert [(c.cell_type, c.source) for c in copy.cells] == [
        ("markdown", "1. Why?"),
        ("code", "print(1)"),
    ]
    assert (copy.cells[1].outputs, copy.cells[1].execution_count) == ([], None)
    assert copy.metadata == {"authors": []}
    assert len(notebook.cells[3].outputs) == 1


def test_an_answer_keeps_its_signature_its_docstring_and_its_check():
    source = '''def f(x):
    """What it is."""
    y = x + 1
    return y


def g():
    return 1


check.f(f)  # at once'''
    expected = '''def f(x):
    """What it is."""
    ...


def g():
    ...


check.f(f)  # at once'''
    cells = [new_code_cell(source, metadata={"tags": ["answer"]}), new_code_cell(source)]
    copy = student_copy(new_notebook(cells=cells))
    assert [cell.source for cell in copy.cells] == [expected, source]


def test_the_command_writes_all_copies(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["students", "--out", str(tmp_path / "course")]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    copied = [file.relative_to(tmp_path / "course") for file in written]
    every = notebooks_in(ROOT / "notebooks")
    assert copied == [file.relative_to(ROOT / "notebooks") for file in every]
    assert len(every) == len(NOTEBOOKS) + 3
    assert not any(is_solution(c) for file in written for c in nbformat.read(file, 4).cells)


def test_no_copy_replaces_its_notebook(tmp_path):
    with pytest.raises(GCLError, match="no notebooks in"):
        write_student_copies(tmp_path, tmp_path / "out")
    file = tmp_path / "01_x.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("x")]), file)
    before = file.read_bytes()
    with pytest.raises(GCLError, match="name another --out"):
        write_student_copies(tmp_path, tmp_path / "." / "sub" / "..")
    assert file.read_bytes() == before
