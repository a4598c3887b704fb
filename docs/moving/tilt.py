"""Accuracy against the mix of the test set, method by method, from recorded runs."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from gcl_core.data.imbalance import by_size
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.results.chosen import chosen, with_interval
from gcl_core.results.records import load_records
from gcl_core.results.tables import by_method
from gcl_core.training.evaluation import weighted_accuracy
from moving.drawing import BLACK, Axis, Moved, Panel, Picture, Slider, group_looks

RESULTS = Path(__file__).parents[2] / "results"
TILTS = [round(0.1 * step - 1, 1) for step in range(21)]
Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]  # a record by method and seed


def digits() -> Picture:
    """Digits-LT at an imbalance ratio of 100."""
    records = load_records(RESULTS / "digits.json")
    own = (each for each in records if each["imbalance_ratio"] == 100 and not each["changes"])
    runs = {method: {each["seed"]: each for each in of} for method, of in by_method(own).items()}
    return picture(runs, "digits, imbalance ratio 100")


def photographs() -> Picture:
    """The photographs of clothes, every method with the settings chosen on the validation part."""
    found = chosen(load_records(RESULTS / "clothes.json"))
    methods = ("ce", "logit_adjustment", "ce_crt", "gcl", "gcl_crt")
    return picture({method: found[method] for method in methods}, "photographs of clothes")


def test_mix(class_counts: Sequence[int], tilt: float) -> Tensor:
    """Shares of the classes in a tilted test set: n_j^t, adding up to 1."""
    weights = torch.tensor(class_counts, dtype=torch.float64) ** tilt
    return weights / weights.sum()


def accuracies(runs: Mapping[int, Mapping[str, Any]], mix: Tensor) -> dict[int, float]:
    """Accuracy of each run, in percent, on a test set with this mix."""
    return {seed: weighted_accuracy(run["per_class"], mix) for seed, run in runs.items()}


def picture(runs: Runs, data: str) -> Picture:
    """Accuracy of methods, "ce" among them, on test sets from tail-heavy to head-heavy."""
    record = next(iter(runs["ce"].values()))
    counts = record["identity"]["images"]["class_counts"]
    names = record.get("class_names", [str(j) for j in range(len(counts))])
    t = Slider("tilt t", TILTS, 0.0, ".1f")
    mix = {tilt: test_mix(counts, tilt) for tilt in TILTS}
    made = Picture(
        f"Who is best depends on the test set: {data}.",
        "A class with n training images has a share ∝ nᵗ of the test set; the networks stay as they"
        " are. Blue, orange, pink: many-, medium- and few-shot classes.",
        t,
    )

    most = 10 * math.ceil(10 * max(float(shares.max()) for shares in mix.values()))
    bars = Panel(
        made,
        "Share of each class in the test set (%)",
        "A bar for each class, the one with the most training images on the left.",
        Axis(-0.6, len(counts) - 0.4, {}, "classes, the most training images first"),
        Axis.every(10, 0, most),
    )

    looks = group_looks(counts, names)
    for place, j in enumerate(by_size(counts)):

        def bar(tilt: float, low: float = place - 0.4, j: int = j) -> list[tuple[float, float]]:
            share, high = 100 * float(mix[tilt][j]), low + 0.8
            return [(low, 0), (low, share), (high, share), (high, 0)]

        bars.draw("area", looks[j], [t], bar)

    every = {
        method: {tilt: accuracies(own, mix[tilt]) for tilt in TILTS} for method, own in runs.items()
    }
    lowest = min(mean(own[tilt].values()) for own in every.values() for tilt in TILTS)
    floor = 10 * math.floor(lowest / 10)
    lines = Panel(
        made,
        "Accuracy (%) by tilt",
        "A line for each method from tail-heavy to head-heavy test sets; dots mark the tilt shown.",
        Axis(-1, 1, {-1: "−1: tail-heavy", 0: "0: balanced", 1: "1: as in training"}),
        Axis.every(10, floor, 100),
    )
    lines.draw("thin", BLACK, [t], lambda tilt: [(tilt, floor), (tilt, 100)])

    def add_method(method: str) -> None:
        look, own, base = METHOD_LOOKS[method], every[method], every["ce"]

        def difference(tilt: float) -> str:
            shared = sorted(own[tilt].keys() & base[tilt].keys())
            return with_interval([own[tilt][s] - base[tilt][s] for s in shared], "+")

        @cache
        def middle(tilt: float) -> float:
            return mean(own[tilt].values())

        lines.draw("line", look, [], lambda: [(tilt, middle(tilt)) for tilt in TILTS])
        lines.draw("dots", look, [t], lambda tilt: [(tilt, middle(tilt))])
        accuracy = Moved([t], lambda tilt: f"{middle(tilt):.1f}")
        made.row(look, accuracy, "" if method == "ce" else Moved([t], difference))

    made.header("", "accuracy (%)", "minus CE, with 95 % interval")
    for method in runs:
        add_method(method)
    return made
