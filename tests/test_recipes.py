"""The protocol of Table 2: what the recipes set, the new last block, the costs worked out."""

import dataclasses
import functools
import itertools
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from bits import checkpoints, equal, tree
from gcl_core.benchmark import cost
from gcl_core.data.lists import PUBLISHED, official_counts
from gcl_core.errors import GCLError
from gcl_core.files import load_json
from gcl_core.methods.recipes import COMMON, RECIPES, Recipe, recipe_of
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.methods.settings import flat_settings
from gcl_core.networks.models import build_network
from gcl_core.networks.pretrained import freeze, renew_last_block
from gcl_core.results import protocol
from gcl_core.results.printed import LARGE, column_of, paper_rows, records_of
from gcl_core.training.runs import RunFolder
from gcl_core.training.two_stages import run
from toys import listed_images

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", PUBLISHED)
@pytest.mark.parametrize("method", RECIPES["imagenet_lt"])
def test_every_recipe_makes_settings_and_names_existing_ones(kind, method):
    settings = resolve(kind, method)
    names = flat_settings(settings)
    for name in RECIPES[kind][method].changes:
        assert name in names or (settings.stage2 is None and name.startswith("stage2_")), name
    mixes = METHODS[method].stage1.mixup_alpha > 0
    assert settings.stage1.mixup_alpha == (0.2 if mixes else 0)
    assert settings.stage1.batch_size == 512
    network = "timm:resnet152.tv_in1k" if kind == "places_lt" else "timm:resnet50"
    assert settings.network == network
    assert (settings.weights, settings.stage1.trains) == (
        ("default", "new_block") if kind == "places_lt" else ("none", None)
    )


# From the published code for Places-LT: the epochs (from 0) of each rate.
@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.04), (4, 0.2), (59, 0.2), (60, 0.02), (80, 2e-3)]
)
def test_the_rates_of_places_are_those_of_the_published_code(epoch, rate):
    from gcl_core.methods.settings import learning_rate

    assert learning_rate(resolve("places_lt", "gcl").stage1, epoch) == pytest.approx(rate)


def test_a_change_wins_over_the_recipe_and_the_recipe_over_the_method():
    settings = resolve("imagenet_lt", "gcl_crt", network="timm:resnext50_32x4d", lr=0.05)
    assert (settings.network, settings.stage1.lr) == ("timm:resnext50_32x4d", 0.05)
    assert settings.stage2.objective.scale == 15  # 20 in the method
    assert resolve("imagenet_lt", "gcl_crt", "smoke").stage1.epochs == 3
    # A ResNet-50 does not go with BBN, and is not taken.
    assert resolve("imagenet_lt", "bbn", network="resnet32").network == "resnet32"


def test_a_method_without_a_row_is_trained_as_the_others_are():
    assert recipe_of("inat2018", "focal") == COMMON["inat2018"]
    assert resolve("inat2018", "focal").stage1.weight_decay == 1e-4
    assert recipe_of("cifar10", "gcl") == Recipe({}, "")
    with pytest.raises(GCLError, match="preset 'paper' is for CIFAR"):
        resolve("imagenet_lt", "gcl_crt", "paper")


def test_every_row_of_table_2_has_a_recipe():
    rows = {row.method for row in paper_rows(2)} - {None}
    for recipes in RECIPES.values():
        assert rows <= recipes.keys()


def test_a_new_block_is_drawn_anew_and_nothing_else():
    built = {}
    for name in ("file", "renewed"):
        network = build_network(
            "timm:resnet18", 5, generator=torch.Generator().manual_seed(0), weights="none"
        )
        for buffer in network.buffers():
            buffer.fill_(3)
        built[name] = network
    renew_last_block(built["renewed"], torch.Generator().manual_seed(1))
    freeze(built["renewed"], "new_block")
    differs = {
        name
        for name, tensor in built["renewed"].state_dict().items()
        if not torch.equal(tensor, built["file"].state_dict()[name])
    }
    inside = {n for n in built["file"].state_dict() if n.startswith("backbone.model.layer4.1.")}
    equal = {f"backbone.model.layer4.1.bn{i}.bias" for i in (1, 2)}  # zero in both
    assert inside - equal - {"backbone.model.layer4.1.bn1.weight"} <= differs <= inside
    trained = {n for n, p in built["renewed"].named_parameters() if p.requires_grad}
    assert trained == {n for n in inside if "running" not in n and "num" not in n} | {"head.weight"}


@pytest.mark.parametrize(
    ("network", "said"),
    [("resnet32", "needs a network of timm"), ("timm:vit_tiny_patch16_224", "has a LayerNorm")],
)
def test_a_block_that_cannot_be_drawn_is_refused(network, said):
    with pytest.raises(GCLError, match=said):
        renew_last_block(build_network(network, 3), torch.Generator())


def a_record(kind, counts, **changes):
    settings = resolve(kind, "gcl_crt", **changes)
    from gcl_core.methods.settings import to_dict

    identity = {**to_dict(settings), "images": {"class_counts": counts}}
    epochs = [settings.stage1.epochs, settings.stage2.epochs]
    kept = {"dataset": kind, "imbalance_ratio": None, "preset": "official", "seed": 0}
    return {**kept, "epochs": epochs, "identity": identity, "top1": 54.0, "best_on_test": None}


def test_a_run_on_the_official_counts_is_a_row_of_table_2():
    data = PUBLISHED["places_lt"]
    counts = [data.images["train"] - data.classes + 1, *[1] * (data.classes - 1)]
    own = a_record("places_lt", counts)
    others = [a_record("places_lt", counts[:-1]), a_record("places_lt", counts, lr=0.1)]
    (row,) = [row for row in paper_rows(2) if row.name == "GCL"]
    assert column_of(own) == LARGE[2]
    assert records_of(row, LARGE[2], [own, *others]) == [own]


STAGES = [
    {"gflop": 20.0, "gflop_test": 8.0, "training": 3.0, "evaluation": 1.0},
    {"gflop": None, "gflop_test": 4.0, "training": None, "evaluation": 2.0},
]


def test_a_run_costs_what_its_images_cost(monkeypatch):
    """Three epochs of stage 1, each tested; a stage that trains nothing is tested once."""
    data = dataclasses.replace(PUBLISHED["places_lt"], images={"train": 100, "test": 10, "val": 5})
    settings = resolve("places_lt", "ce_ncm", epochs=3, batch_size=512)
    seconds = 3 * (100 * 3 + 15 * 1) + 15 * 2
    assert protocol.whole_run(settings, data, STAGES, "training", "evaluation") == seconds
    monkeypatch.setattr(protocol, "ASSUMED", 1e9)  # one GFLOP a second
    hours = (3 * (100 * 20 + 15 * 8) + 15 * 4) / 3600
    assert protocol.estimated_hours(settings, data, STAGES) == pytest.approx(hours)
    kept = [{"weights_gb": 0.5, "saved_mb": 50}, {"weights_gb": None, "saved_mb": None}]
    assert protocol.memory(settings, kept, 8) == pytest.approx(0.5 + 512 / 8 * 0.05)


def test_the_page_has_the_operations_that_the_networks_take():
    """ResNet-50 at 224 px: 4.09 10^9 multiplications; backwards twice, but for the images."""
    (cell,) = [
        cell
        for cell in load_json(ROOT / "results" / protocol.COST)["cells"]
        if (cell["dataset"], cell["method"]) == ("imagenet_lt", "ce")
    ]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        timm.create_model("resnet50")(torch.empty(1, 3, 224, 224)).sum().backward()
    first = 2 * 64 * 3 * 49 * 112**2
    assert cell["stages"][0]["gflop"] == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-3)
    assert 3 * cell["stages"][0]["gflop_test"] - first / 1e9 == pytest.approx(
        cell["stages"][0]["gflop"], rel=1e-3
    )


def test_costs_of_a_small_network_are_measured_in_both_stages():
    small = {"network": "timm:resnet10t", "image_size": 32, "trains": None, "accelerator": "cpu"}
    found = cost.measure_costs(
        kinds=["places_lt"], methods=["gcl_crt", "ce_ncm"], steps=1, batch_size=4, **small
    )
    (one, two), (other, means) = (cell["stages"] for cell in found["cells"])
    for stage in (one, two, other):
        assert all(stage[name] > 0 for name in stage.keys() - {"gb"})
    # Backwards twice the work, but not to the images; of a frozen network there is no way back.
    assert 2.5 * one["gflop_test"] < one["gflop"] < 3 * one["gflop_test"]
    assert two["gflop_test"] < two["gflop"] < 1.1 * two["gflop_test"]
    assert two["saved_mb"] < one["saved_mb"] / 5
    assert means["training"] is None and means["gflop_test"] > 0
    text, _, *table = protocol.cost_table(found).splitlines()
    assert len(table) == 4 and "Places-LT" in table[2]
    assert text.endswith(f", {found['precision']}, batch 4; steps timed: 1.")


def test_the_middle_of_a_test_image_is_a_share_of_its_shorter_side():
    """As torchvision's Resize(256) and CenterCrop(224) show it, up to resampling."""
    from PIL import Image

    from gcl_core.data.image_files import middle

    across = Image.linear_gradient("L").rotate(90).resize((512, 256)).convert("RGB")
    whole, part = (middle(across, (224, 224), share).astype(int) for share in (1.0, 0.875))
    assert whole[0, 0, 0] == pytest.approx(255 * 128 / 512, abs=2)
    assert part[0, 0, 0] == pytest.approx(255 * (256 - 112) / 512, abs=2)
    assert part[:, -1].mean() == pytest.approx(255 * (256 + 112) / 512, abs=2)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """The folder of a kind of list files: a thousandth of ImageNet-LT's images, in 20 classes."""
    counts = [max(1, n // 20) for n in sorted(official_counts()["imagenet_lt"])[34::50][::-1]]
    assert sum(counts) == 115
    return functools.cache(
        lambda kind: listed_images(tmp_path_factory.mktemp(kind), counts, val=1, kind=kind)
    )


# One of each way to a result; all 42: make recipes.
ALWAYS = {("imagenet_lt", "gcl_crt"), ("imagenet_lt", "ldam_drw"), ("places_lt", "mislas")}
ALWAYS |= {("inat2018", "oltr"), ("places_lt", "ce_ncm")}
CELLS = [
    pytest.param(kind, method, marks=() if (kind, method) in ALWAYS else pytest.mark.every)
    for kind, method in itertools.product(RECIPES, RECIPES["imagenet_lt"])
]


@pytest.mark.parametrize(("kind", "method"), CELLS)
def test_killed_in_an_epoch_a_recipe_ends_with_the_same_bits(
    kind, method, listed, tmp_path, monkeypatch, caplog
):
    """From list files to a result, both stages, on a small network."""
    small = {"network": "timm:test_resnet", "weights": "none", "image_size": 32, "batch_size": 32}
    if two := METHODS[method].stage2 is not None:
        small |= {"stage2_batch_size": 32}
    settings = resolve(f"{kind}:{listed(kind)}", method, "smoke", accelerator="cpu", **small)

    def train(runs):
        return run(settings, runs, accelerator="cpu", progress="none")

    whole = train(tmp_path / "whole")
    assert whole.dataset.augment.area == 0.08 and whole.dataset.test.images.share == 0.875
    # Four steps in each of three epochs, and one of stage 2, if that trains: a checkpoint after
    # each step, and after each epoch one more.
    trains = two and settings.stage2.trained_epochs > 0
    saved, save = [], RunFolder.save_checkpoint

    def save_and_stop(self, *state):
        save(self, *state)
        saved.append(state)
        if len(saved) == (17 if trains else 12):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setenv("GCL_CHECKPOINT_STEP_SECONDS", "0")
        patch.setattr(RunFolder, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts")
    caplog.set_level("INFO")
    parts = train(tmp_path / "parts")
    stage, epoch = (2, 1) if trains else (1, 3)
    assert f"stage {stage}: going on in epoch {epoch}, after step 2" in caplog.messages
    assert parts.result == whole.result
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    assert equal(checkpoints(tmp_path / "parts"), checkpoints(tmp_path / "whole"))
