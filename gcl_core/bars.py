"""Bars for what takes longer than a few seconds, where somebody sees them move."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

PATIENCE = 3  # seconds before there is a bar


def clock(seconds: float) -> str:
    """`h:mm:ss`."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def watched() -> bool:
    """Whether somebody sees a bar move: in a terminal or notebook, unless TQDM_DISABLE is set."""
    # tqdm's own variable, which it asks only where it is not told.
    seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    return seen and not os.environ.get("TQDM_DISABLE")


def bar(items: Iterable[Any] | None, title: str, total: int, unit: str) -> Any:
    """A bar over the items that is gone at their end; it appears after `PATIENCE` seconds."""
    about: Any = {"desc": title, "total": total, "unit": unit, "leave": False, "delay": PATIENCE}
    return tqdm(items, **about, disable=not watched())
