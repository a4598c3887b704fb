"""Copies of the notebooks for students: without solutions and outputs, made from the same files."""

import ast
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from gcl_core.course.execution import notebooks_in
from gcl_core.course.launch import is_launch
from gcl_core.errors import GCLError
from gcl_core.files import atomic_write

SOLUTION = "solution"  # the tag of a cell that answers the exercise above it
ANSWER = "answer"  # the tag of a cell whose functions a student writes


def is_solution(cell: NotebookNode) -> bool:
    """Whether a cell is tagged as the solution, or a part of the solution, of an exercise."""
    return SOLUTION in cell.metadata.get("tags", [])


def student_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook as students get it: no solution, no body of an answer, nothing executed.

    The link to Colab goes too, for it opens the notebook that has the answers.
    """
    copy = nbformat.from_dict(notebook)
    copy.cells = [c for c in copy.cells if not (is_launch(c) and c.cell_type == "markdown")]
    copy.cells = [cell for cell in copy.cells if not is_solution(cell)]
    for cell in copy.cells:
        if ANSWER in cell.metadata.get("tags", []):
            cell.source = without_bodies(cell.source)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    for key in ("gcl", "widgets"):  # what the outputs were made of
        copy.metadata.pop(key, None)
    return copy


def without_bodies(source: str) -> str:
    """Code whose functions have a signature, their docstring and `...` for the lines to write."""
    lines = source.splitlines()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    for function in reversed(functions):
        first = function.body[1 if ast.get_docstring(function) else 0]
        lines[first.lineno - 1 : function.end_lineno] = ["    ..."]
    return "\n".join(lines)


def write_student_copies(notebooks: Path, out: Path) -> list[Path]:
    """Write a student copy of every notebook of a folder into another; returns the files.

    Raises:
        GCLError: there are no notebooks, or `out` is their own folder.
    """
    sources = notebooks_in(notebooks)
    if not sources:
        raise GCLError(f"no notebooks in {notebooks}")
    if out.resolve() == notebooks.resolve():
        raise GCLError(f"the copies would replace the notebooks in {notebooks}; name another --out")
    copies = [out / source.relative_to(notebooks) for source in sources]
    for source, target in zip(sources, copies, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = student_copy(nbformat.read(source, 4))
        atomic_write(target, nbformat.writes(copy).encode())
    return copies
