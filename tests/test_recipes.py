"""The protocol of Table 2: what the recipes set, the new last block, the costs worked out."""

import dataclasses

import pytest
import torch

from gcl_core.benchmark import cost
from gcl_core.data.lists import PUBLISHED
from gcl_core.errors import GCLError
from gcl_core.methods.recipes import COMMON, RECIPES, Recipe, recipe_of
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.methods.settings import flat_settings
from gcl_core.networks.models import build_network
from gcl_core.networks.pretrained import freeze, renew_last_block
from gcl_core.results.printed import LARGE, column_of, paper_rows, records_of
from gcl_core.results.protocol import estimated_hours
from gcl_core.training.two_stages import run
from toys import listed_images


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
    assert settings.network == f"timm:resnet{152 if kind == 'places_lt' else 50}"
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


def test_hours_are_passes_over_speed():
    data = dataclasses.replace(PUBLISHED["imagenet_lt"], images={"train": 2600, "test": 0})
    settings = resolve("imagenet_lt", "ce_crt", epochs=3600, stage2_epochs=3 * 3600)
    assert estimated_hours(settings, data) == pytest.approx(1 + 1)  # a third of the work, 3 times
    rates = [
        {"training": 10.0, "evaluation": 5.0},
        {"training": 100.0, "evaluation": 5.0},
    ]
    settings = resolve("imagenet_lt", "ce_crt", epochs=2, stage2_epochs=3)
    seconds = 2 * 50 / 10 + 2 * 20 / 5 + 3 * 50 / 100 + 3 * 20 / 5
    assert cost.hours_of(settings, rates, 50, 20) == pytest.approx(seconds / 3600)


def test_costs_of_a_small_network_are_measured_in_both_stages():
    small = {"network": "timm:resnet10t", "image_size": 32, "trains": None}
    found = cost.measure_costs(
        kinds=["places_lt"], methods=["gcl_crt", "ce_ncm"], steps=1, batch_size=4, **small
    )
    first, second = found["cells"]
    assert all(stage["training"] > 0 and stage["evaluation"] > 0 for stage in first["stages"])
    assert [stage["training"] is None for stage in second["stages"]] == [False, True]
    assert first["hours"] > 0


def test_the_middle_of_a_test_image_is_a_share_of_its_shorter_side():
    """As torchvision's Resize(256) and CenterCrop(224) show it, up to resampling."""
    from PIL import Image

    from gcl_core.data.image_files import middle

    across = Image.linear_gradient("L").rotate(90).resize((512, 256)).convert("RGB")
    whole, part = (middle(across, (224, 224), share).astype(int) for share in (1.0, 0.875))
    assert whole[0, 0, 0] == pytest.approx(255 * 128 / 512, abs=2)
    assert part[0, 0, 0] == pytest.approx(255 * (256 - 112) / 512, abs=2)
    assert part[:, -1].mean() == pytest.approx(255 * (256 + 112) / 512, abs=2)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *(("imagenet_lt", method) for method in RECIPES["imagenet_lt"]),
        ("places_lt", "gcl_crt"),
        ("inat2018", "mislas"),
    ],
)
def test_every_recipe_is_run_from_list_files_to_a_result(kind, method, tmp_path):
    root = listed_images(tmp_path / "data", kind=kind)
    small = {"network": "timm:test_resnet", "weights": "none", "image_size": 32, "batch_size": 4}
    if METHODS[method].stage2 is not None:
        small |= {"stage2_batch_size": 4}
    settings = resolve(f"{kind}:{root}", method, "smoke", accelerator="cpu", **small)
    done = run(settings, tmp_path / "runs", accelerator="cpu", progress="none")
    assert 0 <= done.result["top1"] <= 100
    assert done.dataset.augment.area == 0.08
    assert done.dataset.test.images.share == 0.875
