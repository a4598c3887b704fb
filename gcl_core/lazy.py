"""Packages that are light to import: what they offer is imported when somebody asks for it."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy(package: str, file: str) -> Callable[[str], Any]:
    """The `__getattr__` (PEP 562) of a package that imports its names for type checkers only.

    Its file has them under `if TYPE_CHECKING`, as `from module import name`; here they are read,
    so that they stand in one place.
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    home = {alias.name: node.module or "" for node in imports for alias in node.names}

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if home[name] == package:
            return import_module(f"{package}.{name}")
        return getattr(import_module(home[name]), name)

    return find
