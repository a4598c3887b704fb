"""The package is a stack: each part imports only from itself and from those below it."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from torch import nn

import gcl_core

PACKAGE = Path(gcl_core.__file__).parent
LOSSES = PACKAGE / "losses"
STACK = [
    *("errors", "lazy", "files", "config", "hardware", "processes", "bars"),
    *("losses", "data", "networks", "methods", "inference", "training", "report"),
    *("benchmark", "analysis", "figures", "results", "course", "grid", "study", "cli", "__main__"),
]


def imported_parts(file):
    """Parts of the package that a file imports from, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("gcl_core."))


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


def test_every_loss_is_a_public_name():
    files = [import_module(f"gcl_core.losses.{f.stem}") for f in LOSSES.glob("[a-z]*.py")]
    losses = {
        name
        for file in files
        for name, what in vars(file).items()
        if isinstance(what, type) and issubclass(what, nn.Module)
    }
    face = import_module("gcl_core.losses")
    assert losses - set(face.__all__) == set()
    assert all(hasattr(face, name) for name in face.__all__)


@pytest.mark.parametrize("package", ["gcl_core", "gcl_core.data"])
def test_a_package_offers_what_it_names(package):
    face = import_module(package)
    for name in face.__all__:
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'GCLoss'"):
        _ = face.GCLoss


def test_losses_samplers_and_settings_need_torch_alone():
    code = """
import sys
import gcl_core, gcl_core.data
assert "torch" not in sys.modules
gcl_core.losses, gcl_core.networks, gcl_core.GCLLoss, gcl_core.data.CBENSampler, gcl_core.METHODS
heavy = {"torchvision", "sklearn", "scipy", "pandas", "matplotlib", "lightning_fabric"}
print(heavy & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
