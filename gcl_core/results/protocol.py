"""The page `docs/recipes.md`: how Table 2 is trained here, where that is from, what it costs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcl_core.data.lists import PUBLISHED, Published
from gcl_core.files import load_json
from gcl_core.methods.recipes import COMMON, RECIPES
from gcl_core.methods.registry import resolve
from gcl_core.methods.settings import Settings, Stage
from gcl_core.results.markdown import markdown_table
from gcl_core.results.printed import paper_rows
from gcl_core.results.records import epochs_text

COST, FILES = "cost.json", "files.json"  # of `gcl bench --out`: --table2, --files
# Operations a second, assumed of one H100. timm's benchmark script trains a ResNet-50 at 224 px in
# mixed precision with 2,600 images a second on one A100 (issue 1491 of its repository): 63 TFLOP/s.
# Most layers wait for memory, and an H100's is 1.6 times as fast (data sheets: 3.35, 2.04 TB/s).
ASSUMED = 1.6 * 63e12
SAME = "imagenet_lt"  # stands in for what is not measured of iNaturalist 2018
EIGHT = 8  # devices of one machine
CORES = 16  # beside each of them

Stages = Sequence[Mapping[str, float | None]]  # of `cost_of`
Cells = Mapping[tuple[str, str], Stages]


def seen(stage: Stage, data: Published) -> tuple[int, int]:
    """Images that a stage trains on, and that are looked at: after every epoch, or once."""
    looked = data.images["test"] + data.images.get("val", 0)
    return stage.trained_epochs * data.images["train"], max(1, stage.trained_epochs) * looked


def whole_run(settings: Settings, data: Published, each: Stages, *names: str) -> float:
    """What all images of a run cost, by the names of what one costs in training and in a test."""
    return sum(
        images * (cost[name] or 0)
        for stage, cost in zip(settings.stages, each, strict=True)
        for images, name in zip(seen(stage, data), names, strict=True)
    )


def estimated_hours(settings: Settings, data: Published, each: Stages) -> float:
    """Hours of a run on one H100 that never waits: its operations over `ASSUMED`."""
    return whole_run(settings, data, each, "gflop", "gflop_test") * 1e9 / ASSUMED / 3600


def decoding_hours(settings: Settings, data: Published, seconds: float) -> float:
    """Hours in which `CORES` cores decode all images of a run, from a core's seconds for one."""
    images = sum(sum(seen(stage, data)) for stage in settings.stages)
    return images * seconds / CORES / 3600


def memory(settings: Settings, each: Stages, devices: int = 1) -> float:
    """GB on each device: weights with gradients and momentum, and what its share of a batch keeps.

    What the libraries take for a while, and the weights in bfloat16, is not in it.
    """
    return max(
        (cost["weights_gb"] or 0) + (cost["saved_mb"] or 0) * stage.batch_size / devices / 1e3
        for stage, cost in zip(settings.stages, each, strict=True)
    )


def recipes_block(kind: str, cells: Cells, decoding: float) -> str:
    """One data set: what all methods share, and a line for each method.

    Args:
        cells: what `measure_costs` found of each data set and method.
        decoding: seconds of a core for a photograph.
    """
    data, common = PUBLISHED[kind], COMMON[kind]
    printed = {row.method: row for row in paper_rows(2)}
    rows = []
    for method, recipe in RECIPES[kind].items():
        settings = resolve(kind, method)
        own = recipe.source.removeprefix(common.source).removeprefix("; ")
        guess = recipe.guess.removeprefix(common.guess).removeprefix("; ")
        row = printed.get(method)
        number = row.shown((data.title, None)) if row else "-"
        epochs = epochs_text(stage.trained_epochs for stage in settings.stages)
        hours = ["-", "-"]
        if (kind, method) in cells:
            computing = estimated_hours(settings, data, cells[kind, method])
            one = max(computing, decoding_hours(settings, data, decoding))
            hours = [f"{one / devices:.1f}" for devices in (1, EIGHT)]
        rows.append([method, number, epochs, *hours, own or "-", guess or "-"])
    texts = ["besides, from", "guess"]
    headings = ["method", "paper", "epochs", "hours (estimate)", f"on {EIGHT}", *texts]
    guess = f" A guess: {common.guess}." if common.guess else ""
    text = f"All methods: {common.source}.{guess}"
    return f"{text}\n\n{markdown_table(headings, rows, texts)}"


def cost_table(found: dict[str, Any], decoding: float = math.nan) -> str:
    """The measurements of `measure_costs`, and what follows from them for the recipes.

    Args:
        decoding: seconds of a core for a photograph.
    """
    about = found["versions"]
    device, kind = about["gpu"] or "core", about["gpu"] or f"one core with {about['cpu']}"
    batch = f"batch {found['batch_size']}" if found["batch_size"] else "batches of the recipes"
    text = f"Measured on {kind}, {found['precision']}, {batch}; steps timed: {found['steps']}."
    rows = []
    for cell in found["cells"]:
        data, each = PUBLISHED[cell["dataset"]], cell["stages"]
        settings = resolve(cell["dataset"], cell["method"])
        images = [sum(own) for own in zip(*(seen(s, data) for s in settings.stages), strict=True)]
        own = whole_run(settings, data, each, "training", "evaluation") / 3600
        hours = estimated_hours(settings, data, each)
        sizes = [memory(settings, each, devices) for devices in (1, EIGHT)]
        if taken := [most for stage in each if (most := stage["gb"])]:
            sizes[0] = max(taken)  # measured
        rows.append(
            [
                data.title,
                cell["method"],
                " + ".join(f"{number / 1e6:.1f}" for number in images),
                _both(each, 1, "gflop", "gflop_test"),
                _both(each, 1e3, "training", "evaluation"),
                f"{own:,.1f}",
                f"{hours:.1f}",
                f"{decoding_hours(settings, data, decoding):.1f}",
                f"{hours / EIGHT:.2f}",
                *(f"{size:.1f}" for size in sizes),
            ]
        )
    headings = [
        "data",
        "method",
        "10⁶ images",
        "GFLOP",
        f"ms of a {device}",
        f"hours of a {device}",
    ]
    headings += [
        "hours of an H100, estimate",
        f"{CORES} cores decode in",
        f"{EIGHT} H100, estimate",
    ]
    table = markdown_table([*headings, "GB on 1", f"on {EIGHT}"], rows, ["method"])
    return f"{text}\n\n{table}"


def _both(each: Stages, factor: float, *names: str) -> str:
    """`24.3 / 8.18 + 8.18 / 8.18`: of training and of a test in each stage."""
    parts = ([cost[name] for name in names] for cost in each)
    texts = (["-" if n is None else f"{n * factor:.3g}" for n in pair] for pair in parts)
    return " + ".join(" / ".join(pair) for pair in texts)


def protocol_blocks(results: Path) -> dict[str, str]:
    """What the page's marked places have to hold."""
    if not (results / COST).exists():
        return dict.fromkeys([*RECIPES, "cost"], "Nobody has measured it.")
    found, read = load_json(results / COST), load_json(results / FILES)
    decoding = read["cpu_ms_per_image"]["our decoding"] / 1e3
    cells = {(cell["dataset"], cell["method"]): cell["stages"] for cell in found["cells"]}
    # Their network is the same, and more classes are less than a hundredth of its operations.
    same = {("inat2018", method): own for (kind, method), own in cells.items() if kind == SAME}
    cells = same | cells
    blocks = {kind: recipes_block(kind, cells, decoding) for kind in RECIPES}
    return blocks | {"cost": cost_table(found, decoding)}
