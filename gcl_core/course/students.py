"""Copies of the notebooks for students: without solutions and outputs, made from the same files."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from gcl_core.errors import GCLError
from gcl_core.files import atomic_write

SOLUTION = "solution"  # the tag of a cell that answers the exercise above it


def is_solution(cell: NotebookNode) -> bool:
    """Whether a cell is tagged as the solution, or a part of the solution, of an exercise."""
    return SOLUTION in cell.metadata.get("tags", [])


def student_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook as students get it: no solution cells, nothing executed, the rest as it is."""
    copy = nbformat.from_dict(notebook)
    copy.cells = [cell for cell in copy.cells if not is_solution(cell)]
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    for key in ("gcl", "widgets"):  # what the outputs were made of
        copy.metadata.pop(key, None)
    return copy


def write_student_copies(notebooks: Path, out: Path) -> list[Path]:
    """Write a student copy of every notebook of a folder into another; returns the files.

    Raises:
        GCLError: there are no notebooks, or `out` is their own folder.
    """
    sources = sorted(notebooks.glob("[0-9]*.ipynb"))
    if not sources:
        raise GCLError(f"no notebooks in {notebooks}")
    if out.resolve() == notebooks.resolve():
        raise GCLError(f"the copies would replace the notebooks in {notebooks}; name another --out")
    out.mkdir(parents=True, exist_ok=True)
    for source in sources:
        copy = student_copy(nbformat.read(source, 4))
        atomic_write(out / source.name, nbformat.writes(copy).encode())
    return [out / source.name for source in sources]
