"""How far a stage is: a bar in a terminal or notebook, one line an epoch in a log."""

import logging
import os
import sys
import time
from typing import Any

from tqdm.auto import tqdm

from gcl_core.errors import check_known

log = logging.getLogger(__name__)
KINDS = ("auto", "bar", "log", "none")


def watched() -> bool:
    """Whether somebody sees a bar move: in a terminal or notebook, unless TQDM_DISABLE is set."""
    # tqdm's own variable, which it asks only where it is not told.
    seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    return seen and not os.environ.get("TQDM_DISABLE")


class Progress:
    """Progress of one stage, from `start` epochs done to `epochs`.

    Args:
        kind: "bar", "log", "none", or "auto": a bar where there is somebody to see it move (unless
            the environment variable TQDM_DISABLE is set), else a log.
    """

    def __init__(self, kind: str, title: str, start: int, epochs: int, steps: int) -> None:
        check_known("progress", kind, KINDS)
        if kind == "auto":
            kind = "bar" if watched() else "log"
        self.kind, self.title, self.first, self.epochs = kind, title, start, epochs
        self.began = time.perf_counter()
        self.bar = tqdm(
            total=epochs * steps,
            initial=start * steps,
            desc=title,
            unit="step",
            leave=False,
            disable=None if kind == "bar" else True,
        )

    def step(self, steps: int = 1) -> None:
        """One batch, or several, are done."""
        self.bar.update(steps)

    def epoch(self, row: dict[str, Any]) -> None:
        """One epoch is done; row is its line of metrics."""
        self.bar.set_postfix(epoch=row["epoch"], loss=row["train_loss"], top1=row["top1"])
        if self.kind == "log":
            done = row["epoch"] - self.first
            left = (time.perf_counter() - self.began) / done * (self.epochs - row["epoch"])
            log.info(
                "%s: epoch %d/%d  loss %.4f  top-1 %.2f %%  %d:%02d:%02d left",
                *(self.title, row["epoch"], self.epochs, row["train_loss"], row["top1"]),
                *(int(left) // 3600, int(left) // 60 % 60, int(left) % 60),
            )

    def close(self) -> None:
        self.bar.close()
