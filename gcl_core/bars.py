"""How far something is that takes long: a bar where somebody sees it move, else a line in a log."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

from tqdm.auto import tqdm

from gcl_core.errors import check_known

log = logging.getLogger(__name__)
KINDS = ("auto", "bar", "log", "none")
PATIENCE = 3.0  # seconds before there is a bar, or a line
QUIET = 60.0  # seconds before a log has a second line; the next comes after twice as long


def watched() -> bool:
    """Whether somebody sees a bar move: in a terminal or notebook, unless TQDM_DISABLE is set."""
    # tqdm's own variable, which it asks only where it is not told.
    seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    return seen and not os.environ.get("TQDM_DISABLE")


def kind_here(kind: str) -> str:
    """One of `KINDS`, in which "auto" has become "bar" where somebody sees it move, else "log".

    Raises:
        GCLError: it is none of them.
    """
    check_known("progress", kind, KINDS)
    return ("bar" if watched() else "log") if kind == "auto" else kind


class Bar:
    """How many of a known number are done; nothing is shown of what takes less than `PATIENCE`.

    Args:
        kind: one of `KINDS`; a bar is gone at its end.
    """

    def __init__(self, title: str, total: int, unit: str, kind: str = "auto") -> None:
        self.title, self.total, self.unit, self.kind = title, total, unit, kind_here(kind)
        self.done, self.began, self.quiet = 0, time.monotonic(), PATIENCE
        about: Any = {"desc": title, "total": total, "unit": unit, "leave": False}
        self.shown = tqdm(**about, delay=PATIENCE, disable=self.kind != "bar")

    def update(self, done: int = 1) -> None:
        """So many more are done."""
        self.shown.update(done)
        self.done += done
        passed = time.monotonic() - self.began
        if self.kind == "log" and passed >= self.quiet and self.done < self.total:
            self.quiet = max(QUIET, 2 * passed)
            left = clock(passed / max(1, self.done) * (self.total - self.done))
            said = self.title, self.done, self.total, self.unit, left
            log.info("%s: %d of %d %ss, about %s left", *said)

    def over(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, each of which is done when the next one is asked for."""
        with self:
            for item in items:
                yield item
                self.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.shown.close()


def clock(seconds: float) -> str:
    """`h:mm:ss`."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
