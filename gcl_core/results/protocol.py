"""The page `docs/recipes.md`: how Table 2 is trained here, where that is from, what it costs."""

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

COST = "cost.json"  # of `gcl bench --table2 --out`, on a GPU
# Training a ResNet-50 at 224 px in mixed precision with timm's benchmark script on one A100
# (issue 1491 of huggingface/pytorch-image-models): nobody's measurement of this package.
IMAGES_PER_SECOND = 2600
# Multiplications of one pass forward, in units of ResNet-50's (4.1 and 11.5 billion); training
# everything is three of them.
FORWARD = {"timm:resnet50": 1.0, "timm:resnet152": 2.8}
EIGHT = 8  # devices of one machine


def estimated_hours(settings: Settings, data: Published) -> float:
    """Hours of a run on one GPU, from passes through the network; decoding has to keep up."""
    forward = FORWARD[settings.network]
    passes = 0.0
    for stage in settings.stages:
        whole, epochs = _whole_network(stage), stage.trained_epochs
        passes += forward * epochs * data.images["train"] * (3 if whole else 1)
        passes += forward * max(1, epochs) * data.images["test"]
    return passes / (3 * IMAGES_PER_SECOND) / 3600


def _whole_network(stage: Stage) -> bool:
    if stage.rebalance is None:
        return stage.trains in (None, "all")
    return stage.rebalance.needs_backbone


def recipes_block(kind: str) -> str:
    """One data set: what all methods share, and a line for each method."""
    data, common = PUBLISHED[kind], COMMON[kind]
    printed = {row.method: row for row in paper_rows(2)}
    rows = []
    for method, recipe in RECIPES[kind].items():
        settings = resolve(kind, method)
        own = recipe.source.removeprefix(common.source).removeprefix("; ")
        guess = recipe.guess.removeprefix(common.guess).removeprefix("; ")
        row = printed.get(method)
        paper = row and row.values.get((data.title, None))
        number = f"{paper:.2f}{'¹' * row.quoted}" if row and paper else "-"
        epochs = epochs_text(stage.trained_epochs for stage in settings.stages)
        hours = [f"{estimated_hours(settings, data) / devices:.1f}" for devices in (1, EIGHT)]
        rows.append([method, number, epochs, *hours, own or "-", guess or "-"])
    texts = ["besides, from", "guess"]
    headings = ["method", "paper", "epochs", "GPU hours", f"on {EIGHT}", *texts]
    guess = f" A guess: {common.guess}." if common.guess else ""
    text = f"All methods: {common.source}.{guess}"
    return f"{text}\n\n{markdown_table(headings, rows, texts)}"


def cost_table(found: dict[str, Any]) -> str:
    """The measurements of `measure_costs`: images a second, memory, hours by devices."""
    rows = []
    for cell in found["cells"]:
        stages = cell["stages"]
        rates = [
            " + ".join(f"{each[what] or 0:.4g}" for each in stages)
            for what in ("training", "evaluation")
        ]
        memory = f"{max(each['gb'] for each in stages):.1f}"
        hours = [f"{cell['hours'] / devices:.1f}" for devices in (1, EIGHT)]
        rows.append([PUBLISHED[cell["dataset"]].title, cell["method"], *rates, memory, *hours])
    headings = ["data", "method", "training, images/s", "evaluation, images/s", "GB", "hours"]
    return markdown_table([*headings, f"on {EIGHT}, at best"], rows)


def protocol_blocks(results: Path) -> dict[str, str]:
    """What the page's marked places have to hold."""
    cost = "Nobody has run it on a GPU yet; the hours above are estimates."
    if (results / COST).exists():
        cost = cost_table(load_json(results / COST))
    return {kind: recipes_block(kind) for kind in RECIPES} | {"cost": cost}
