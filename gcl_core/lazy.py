"""Packages that are light to import: what they offer is imported when somebody asks for it."""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy(package: str, file: str) -> tuple[Callable[[str], Any], list[str]]:
    """`__getattr__` (PEP 562) and `__all__` of a package that imports its names when it is asked.

    Its file has them under `if TYPE_CHECKING`, as `from module import name as name`, which is how
    type checkers know names that are offered; here they are read, so that they stand once.
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    home = {a.name: node.module or "" for node in imports for a in node.names if a.asname}

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if home[name] == package:
            return import_module(f"{package}.{name}")
        return getattr(import_module(home[name]), name)

    return find, sorted(home)
