"""The package is a stack: each part imports only from itself and from those below it."""

import ast
from pathlib import Path

import pytest

import gcl_core

PACKAGE = Path(gcl_core.__file__).parent
STACK = [
    *("errors", "files", "checked", "hardware"),
    *("losses", "data", "networks", "methods", "training"),
    *("analysis", "figures", "results", "course", "grid", "study", "cli", "__main__"),
]


def imported_parts(file):
    """Parts of the package that a file imports from, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("gcl_core."):
            yield node.module.split(".")[1]


def test_every_part_has_its_place():
    parts = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    parts |= {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")}
    assert parts == set(STACK)


@pytest.mark.parametrize("part", STACK)
def test_a_part_imports_only_from_below(part):
    files = [PACKAGE / f"{part}.py", *(PACKAGE / part).glob("*.py")]
    below = STACK[: STACK.index(part) + 1]
    above = {
        f"{file.name}: {name}"
        for file in files
        if file.exists()
        for name in imported_parts(file)
        if name not in below
    }
    assert not above
