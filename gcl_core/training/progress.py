"""How far a stage is: a bar in a terminal or notebook, lines in a log."""

import logging
import time
from typing import Any

from tqdm.auto import tqdm

from gcl_core.bars import QUIET, clock, kind_here

log = logging.getLogger(__name__)


class Progress:
    """Progress of one stage, from `start` epochs done to `epochs`.

    Args:
        kind: "bar", "log", "none", or "auto": a bar where there is somebody to see it move (unless
            the environment variable TQDM_DISABLE is set), else a log.
    """

    def __init__(self, kind: str, title: str, start: int, epochs: int, steps: int) -> None:
        self.kind = kind = kind_here(kind)
        self.title, self.first, self.epochs = title, start, epochs
        self.began, self.steps = time.perf_counter(), steps
        self._begin_epoch(start + 1)
        self.bar = tqdm(
            total=epochs * steps,
            initial=start * steps,
            desc=title,
            unit="step",
            leave=False,
            disable=None if kind == "bar" else True,
        )

    def _begin_epoch(self, number: int) -> None:
        self.number, self.epoch_began = number, time.perf_counter()
        self.skipped, self.taken, self.quiet = 0, 0, QUIET

    def skip(self, steps: int) -> None:
        """So many batches of the epoch were done before."""
        self.bar.update(steps)
        self.skipped = steps

    def step(self) -> None:
        """One batch is done."""
        self.bar.update()
        self.taken += 1
        passed = time.perf_counter() - self.epoch_began
        if self.kind == "log" and passed > self.quiet:
            self.quiet = 2 * passed
            log.info(
                "%s: epoch %d/%d, step %d of %d; about %s an epoch, without its test",
                *(self.title, self.number, self.epochs, self.skipped + self.taken, self.steps),
                clock(passed / self.taken * self.steps),
            )

    def testing(self) -> None:
        """The steps of an epoch are done, and its test begins."""
        self.bar.set_postfix_str("testing")

    def epoch(self, row: dict[str, Any]) -> None:
        """One epoch is done; row is its line of metrics."""
        self.bar.set_postfix(epoch=row["epoch"], loss=row["train_loss"], top1=row["top1"])
        if self.kind == "log":
            done = row["epoch"] - self.first
            left = (time.perf_counter() - self.began) / done * (self.epochs - row["epoch"])
            log.info(
                "%s: epoch %d/%d  loss %.4f  top-1 %.2f %%  %s left",
                *(self.title, row["epoch"], self.epochs, row["train_loss"], row["top1"]),
                clock(left),
            )
        self._begin_epoch(row["epoch"] + 1)

    def close(self) -> None:
        self.bar.close()
