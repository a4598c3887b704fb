"""Values along x with their spread and their look: what every line of a figure is made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcl_core.figures.looks import Look
from gcl_core.training.two_stages import Run


@dataclass(frozen=True)
class Series:
    """Values by class, epoch or anything else along x, with their spread.

    Attributes:
        look: label, colour and line style.
        values: (n,).
        spread: (2, n) how far the band around them reaches down and up; (n,): both.
    """

    look: Look
    values: Sequence[float]
    spread: Sequence[float] | Sequence[Sequence[float]] | None = None


def over_seeds(look: Look, rows: Sequence[Sequence[float]]) -> Series:
    """Mean over runs of values (runs, n), and a band from the lowest run to the highest.

    A standard deviation would reach past 100 %, and below zero on a logarithmic axis.
    """
    values = np.asarray(rows, dtype=float)
    mean = values.mean(0)
    spread = [(mean - values.min(0)).tolist(), (values.max(0) - mean).tolist()]
    return Series(look, mean.tolist(), spread if len(values) > 1 else None)


def curve(look: Look, runs: Sequence[Run], key: str) -> Series:
    """A column of the metrics of several runs by epoch, both stages one after the other."""
    rows = [[row[key] for folder in run.folders for row in folder.metrics] for run in runs]
    return over_seeds(look, [[number(value) for value in row] for row in rows])


def number(text: str) -> float:
    """A value of `metrics.csv`; NaN, which is not drawn, where a group has no classes."""
    return float(text) if text else math.nan
