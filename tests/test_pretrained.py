"""Networks of timm: weights from files, what of them is trained, features in the cache."""

import errno
import logging
import math
import os
from collections import OrderedDict
from dataclasses import replace

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from gcl_core.errors import GCLError, MachineError
from gcl_core.files import load_tensors
from gcl_core.hardware import channels_last
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.networks import pretrained
from gcl_core.networks.models import build_network
from gcl_core.networks.pretrained import (
    SMALL,
    TimmBackbone,
    freeze,
    load_weights,
    pixels_of,
    slow_down,
    weights_identity,
)
from gcl_core.training import features as features_module
from gcl_core.training.evaluation import frozen
from gcl_core.training.features import features_of
from gcl_core.training.stage import parameter_groups
from gcl_core.training.two_stages import make_fabric, run
from toys import image_folder, seeded, toy_dataset

TINY = "timm:resnet10t"  # 5 million weights; 32 px are enough


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GCL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fabric():
    return make_fabric("cpu", "float32")


def saved(tmp_path, network=TINY, change=None, name="weights.pt", seed=5):
    """A file of the weights that a network of timm has with another seed."""
    state = OrderedDict(TimmBackbone(network, generator=seeded(seed)).model.state_dict())
    if change:
        change(state)
    file = tmp_path / name
    if name.endswith(".safetensors"):
        safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, file)
    else:
        torch.save(dict(state), file)
    return file


def test_new_weights_follow_the_generator_and_leave_the_default_one_alone():
    before = torch.get_rng_state()
    one, again, other = (TimmBackbone(TINY, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    first = "model.conv1.0.weight"
    assert torch.equal(one.state_dict()[first], again.state_dict()[first])
    assert not torch.equal(one.state_dict()[first], other.state_dict()[first])


def test_the_small_network_gives_the_features_of_its_own_package():
    """The same numbers as a plain timm network with the package's file, matched by order."""
    file = pretrained._default_file(SMALL)
    state = torch.load(file, weights_only=True)
    body = [tensor for name, tensor in state.items() if not name.startswith("_fc.")]
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    plain.load_state_dict(dict(zip(plain.state_dict(), body, strict=True)))
    ours = build_network(SMALL, 3, generator=seeded(), weights="default").eval()
    images = torch.rand(2, 3, 64, 64, generator=seeded())
    with torch.no_grad():
        assert torch.equal(ours.features(images), plain(images))
        # As evaluation has it: a copy, channels last. timm's normalisation holds the activation.
        copied = frozen(ours.backbone, fabric())(images)
        torch.testing.assert_close(copied, plain(images), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_file_is_read_whatever_wraps_its_names(tmp_path, name):
    def wrap(state):
        for key in list(state):
            state[f"module.{key}"] = state.pop(key)
        state["module.fc.weight"], state["module.fc.bias"] = torch.ones(7, 512), torch.ones(7)

    backbone = TimmBackbone(TINY, generator=seeded(1))
    load_weights(backbone, str(saved(tmp_path, change=wrap, name=name)))
    theirs = TimmBackbone(TINY, generator=seeded(5)).state_dict()
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, theirs[key]), key


def test_torchvision_files_load_by_name(tmp_path):
    """ResNet-50 and ResNeXt-50 have the same names; the small sibling is quicker to make."""
    torchvision = pytest.importorskip("torchvision")
    for ours, theirs in (("resnet18", "resnet18"), ("resnext50_32x4d", "resnext50_32x4d")):
        model = getattr(torchvision.models, theirs)(weights=None)
        torch.save({"state_dict": model.state_dict()}, tmp_path / "tv.pt")
        backbone = TimmBackbone(f"timm:{ours}", generator=seeded(1))
        load_weights(backbone, str(tmp_path / "tv.pt"))
        model.fc = nn.Identity()
        images = torch.rand(1, 3, 64, 64, generator=seeded())
        with torch.no_grad():
            torch.testing.assert_close(backbone.eval()(images), model.eval()(images))


def test_what_a_file_lacks_is_drawn_and_named_and_so_is_what_is_left(tmp_path, caplog):
    def change(state):
        del state["layer4.0.conv2.weight"]
        state["extra.weight"] = torch.ones(2)

    backbone = TimmBackbone(TINY, generator=seeded(1))
    drawn = backbone.model.state_dict()["layer4.0.conv2.weight"].clone()
    with caplog.at_level(logging.WARNING):
        load_weights(backbone, str(saved(tmp_path, change=change)))
    assert "missing, drawn anew: layer4.0.conv2.weight" in caplog.text
    assert "not used: extra.weight" in caplog.text
    assert torch.equal(backbone.model.state_dict()["layer4.0.conv2.weight"], drawn)
    other = TimmBackbone(TINY, generator=seeded(5)).model.state_dict()
    assert torch.equal(backbone.model.state_dict()["conv1.0.weight"], other["conv1.0.weight"])


class Code:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_weights_that_cannot_be_used_are_refused_in_a_line(tmp_path):
    torch.save(Code(), tmp_path / "code.pt")
    whole = saved(tmp_path).read_bytes()
    (tmp_path / "short.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "short.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    saved(tmp_path, name="nan.pt", change=lambda state: state["bn1.bias"].fill_(math.nan))
    torch.save({"bn1.bias": torch.ones(2) * 1j}, tmp_path / "complex.pt")
    wide = saved(tmp_path, "timm:resnet18", name="wide.pt")
    for name, message in {
        "code.pt": "no state dict that is read without running code; save model.state_dict()",
        "short.pt": "no state dict that is read without running code",
        "short.safetensors": "cannot read weights",
        "none.pt": "holds no weights by name",
        "nan.pt": "bn1.bias has not finite numbers throughout",
        "complex.pt": "bn1.bias has not finite numbers throughout",
        "~nobody-of-this-name/a.pt": "no such file of weights",
        "absent.pt": "no such file of weights",
        wide.name: "are not of timm:resnet10t",
    }.items():
        with pytest.raises(GCLError, match=message) as refused:
            load_weights(TimmBackbone(TINY, generator=seeded()), str(tmp_path / name))
        assert "\n" not in str(refused.value)


def test_weights_of_another_shape_name_the_tensor(tmp_path):
    def change(state):
        state["conv1.0.weight"] = torch.ones(3, 3, 3, 3)

    with pytest.raises(GCLError, match=r"conv1.0.weight has shape \(3, 3, 3, 3\) there"):
        load_weights(TimmBackbone(TINY), str(saved(tmp_path, change=change)))


@pytest.mark.parametrize("full", [False, True])
def test_without_a_network_the_file_to_fetch_is_named(monkeypatch, tmp_path, full):
    import huggingface_hub

    def fail(*args, local_files_only=False):
        if full and not local_files_only:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.setattr(pretrained, "getproxies", lambda: {"https": "a proxy"})
    with pytest.raises(
        MachineError, match=r"download timm/resnet18\.\S+/model.safetensors .* --weights"
    ) as caught:
        load_weights(TimmBackbone("timm:resnet18"), "default")
    assert full == ("fetched (No space left on device)" in str(caught.value))


def test_names_are_checked_and_the_closest_ones_told():
    with pytest.raises(GCLError, match="no network 'resnet5o'; close to it: resnet50"):
        resolve("digits", "ce", network="timm:resnet5o")
    with pytest.raises(GCLError, match="allowed: resnet32, digits_cnn, features, or timm:NAME"):
        resolve("digits", "ce", network="resnet50")
    with pytest.raises(GCLError, match="weights are for networks of timm, not for 'resnet32'"):
        resolve("digits", "ce", network="resnet32", weights="default")
    with pytest.raises(GCLError, match="need RGB images, these have 1 channel"):
        build_network(SMALL, 3, in_channels=1, weights="default")


def test_freezing_leaves_what_is_said_to_be_trained():
    every = {n for n, _ in TimmBackbone(TINY).named_parameters()}

    def trained(trains):
        network = build_network(TINY, 3, generator=seeded())
        freeze(network, trains)
        assert all(p.requires_grad for p in network.head.parameters())
        return {n for n, p in network.backbone.named_parameters() if p.requires_grad}

    assert trained(None) == trained("all") == every
    assert trained("head") == set()
    last = trained("last_block")
    assert last and all(n.startswith("model.layer4.") for n in last)
    norms = trained("norms")
    assert norms and all(n.endswith(("weight", "bias")) for n in norms)
    assert {n for n in every if n.endswith("bias")} <= norms
    assert not any("conv" in n and n.endswith("conv1.weight") for n in norms)


def test_frozen_parts_keep_their_statistics_and_trained_ones_move():
    network = build_network(TINY, 3, generator=seeded())
    freeze(network, "last_block")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.train()(torch.rand(4, 3, 32, 32, generator=seeded()))
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all("layer4" in k for k in moved)
    assert network.eval().train().training and not network.backbone.model.bn1.training


def test_rates_fall_from_layer_to_layer():
    network = build_network(TINY, 3, generator=seeded())
    slow_down(network, 0.5)
    groups = {group["lr_factor"]: group["params"] for group in parameter_groups(network)}
    assert groups[1.0] == [network.head.weight]
    depths = network.backbone.depths()
    top = max(depths.values())
    assert set(groups) == {1.0} | {0.5 ** (top + 1 - d) for d in depths.values()}
    first = network.backbone.model.conv1[0].weight
    assert any(first is p for p in groups[min(groups)])
    for what, call in {
        "layer_decay": lambda n: slow_down(n, 0.5),
        "trains 'last_block'": lambda n: freeze(n, "last_block"),
    }.items():
        with pytest.raises(GCLError, match=f"{what} needs a network of timm"):
            call(build_network("resnet32", 3))


def test_features_are_computed_once_in_order_and_kept(cache, monkeypatch):
    dataset = toy_dataset(size=32)
    backbone = TimmBackbone(TINY, generator=seeded(3)).eval()
    found = features_of(dataset, backbone, fabric())
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
    with torch.no_grad():
        expected = channels_last(backbone)((dataset.test.images.pixels / 255 - mean) / std)
    assert found.test.images.pixels.shape == (12, 512, 1, 1)
    torch.testing.assert_close(found.test.images.pixels[:, :, 0, 0], expected, atol=1e-4, rtol=1e-3)
    assert torch.equal(found.train.labels, dataset.train.labels)
    assert not found.has_pixels

    def forbidden(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(features_module, "_computed", forbidden)
    again = features_of(toy_dataset(size=32), backbone, fabric())
    assert torch.equal(again.train.images.pixels, found.train.images.pixels)
    # Other parts of the same images, one of them twice: nothing new is to be computed.
    other = replace(dataset, train=dataset.test, validation=dataset.train.subset(torch.arange(9)))
    other = replace(other, test=dataset.train)
    again = features_of(other, backbone, fabric())
    assert torch.equal(again.train.images.pixels, found.test.images.pixels)
    assert again.validation is not None
    assert torch.equal(again.validation.images.pixels, found.train.images.pixels[:9])
    with pytest.raises(AssertionError, match="computed again"):
        features_of(dataset, TimmBackbone(TINY, generator=seeded(4)), fabric())
    with pytest.raises(AssertionError, match="computed again"):
        features_of(toy_dataset(size=32, counts=(20, 12, 5)), backbone, fabric())


def test_damaged_features_in_the_cache_are_computed_again(cache, caplog):
    backbone, dataset = TimmBackbone(TINY, generator=seeded(3)), toy_dataset(size=32)
    features_of(dataset, backbone, fabric())
    (kept,) = cache.glob("features-*.pt")
    whole = features_of(dataset, backbone, fabric())
    kept.write_bytes(b"PK")
    found = features_of(dataset, backbone, fabric())
    assert "features are made again" in caplog.text
    assert torch.equal(found.train.images.pixels, whole.train.images.pixels)


@pytest.fixture
def photographs(tmp_path, cache):
    return image_folder(tmp_path / "photos", train=6, test=3, size=(72, 64), suffix=".jpg")


def quick(root, method, **changes):
    size = {"image_size": 32, "network": TINY, "weights": "none"}
    common = (
        {"precision": "float32", "epochs": 2, "stage2_epochs": 1, "batch_size": 8} | size | changes
    )
    if METHODS[method].stage2 is None:
        common.pop("stage2_epochs")
    return resolve(f"folder:{root}", method, "pretrained", accelerator="cpu", **common)


@pytest.mark.parametrize("trains", ["head", "last_block", "norms", "all"])
@pytest.mark.parametrize("method", ["gcl_crt", "ce"])
def test_photographs_are_trained_and_only_what_is_said_changes(
    tmp_path, photographs, method, trains
):
    settings = quick(photographs, method, trains=trains)
    done = run(settings, tmp_path / "runs", accelerator="cpu", progress="none")
    assert done.result["top1"] is not None
    with torch.no_grad():
        logits = done.network(torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, 3)
    again = run(settings, tmp_path / "runs", accelerator="cpu", progress="none")
    for key, tensor in again.network.state_dict().items():
        assert torch.equal(tensor, done.network.state_dict()[key]), key


def test_the_trunk_of_last_block_is_that_of_the_file(tmp_path, photographs):
    file = saved(tmp_path)
    settings = quick(photographs, "ce", trains="last_block", weights=str(file))
    done = run(settings, tmp_path / "runs", accelerator="cpu", progress="none")
    given, found = load_tensors(file), done.network.backbone.model.state_dict()
    changed = {key for key in given if not torch.equal(given[key], found[key])}
    assert changed and all(key.startswith("layer4") for key in changed)


def test_stage_2_may_train_more_than_the_classifier(tmp_path, photographs):
    settings = quick(photographs, "ce_crt", trains="all", stage2_trains="last_block")
    done = run(settings, tmp_path / "runs", accelerator="cpu", progress="none")
    first = load_tensors(done.folders[0].checkpoint_file)["module"]
    second = load_tensors(done.folders[1].checkpoint_file)["module"]
    changed = {k for k in first if "backbone" in k and not torch.equal(first[k], second[k])}
    assert changed and all("layer4" in key for key in changed)


def test_a_classifier_can_start_from_the_class_means(tmp_path, photographs):
    settings = quick(photographs, "gcl", head_start="means", lr=1e-9, weight_decay=0)
    done = run(settings, tmp_path / "runs", accelerator="cpu", progress="none")
    backbone, data = done.network.backbone, done.dataset
    found = features_of(data, backbone, fabric())
    own = found.train.images.pixels[:, :, 0, 0].double()
    means = torch.stack([own[found.train.labels == j].mean(0) for j in range(3)])
    expected = nn.functional.normalize(means).float()
    torch.testing.assert_close(done.network.head.weight.data, expected, atol=1e-5, rtol=1e-4)


def test_runs_are_named_by_what_the_weights_are_not_where(tmp_path, photographs):
    here, there = saved(tmp_path), saved(tmp_path, name="again.safetensors")
    other = saved(tmp_path, name="other.pt", seed=6)
    names = [
        run(quick(photographs, "ce", weights=str(f)), tmp_path / "runs", progress="none").path
        for f in (here, there, other)
    ]
    assert names[0] == names[1] != names[2]
    assert weights_identity(TINY, str(here)) == weights_identity(TINY, str(there))


def test_a_folder_of_photographs_gets_the_small_network_by_itself(photographs, tmp_path):
    settings = resolve(f"folder:{photographs}", "gcl_crt", accelerator="cpu")
    assert (settings.network, settings.weights, settings.stage1.trains) == (
        SMALL,
        "default",
        "head",
    )
    assert settings.data.image_size == 224 and settings.data.augment == "resized_crop"
    assert settings.data.mean == pixels_of(SMALL)[1]
    scratch = resolve(f"folder:{photographs}", "gcl_crt", network="resnet32")
    assert (scratch.network, scratch.weights, scratch.data.augment) == (
        "resnet32",
        "none",
        "pad_crop",
    )
    assert scratch.stage1.epochs == 200 and scratch.stage1.trains is None
    assert resolve(f"folder:{photographs}", "ce", image_size=32).network == "resnet32"
    small = image_folder(tmp_path / "small", size=(32, 32))
    assert resolve(f"folder:{small}", "ce").network == "resnet32"


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (
            "hybrid_sc",
            {"trains": "head"},
            "objective 'hybrid_sc' trains the backbone, and trains 'head' leaves",
        ),
        ("oltr", {"trains": "head"}, "re-balancing 'oltr' trains the backbone"),
        ("bbn", {}, "head 'bilateral' doubles the last block"),
        ("ce", {"head_start": "means"}, "head_start 'means' needs head 'cosine', not 'linear'"),
        ("gcl_crt", {"stage2_head_start": "means"}, "head_start is for stage 1"),
        ("gcl_crt", {"trains": "head", "stage2_trains": "all"}, "stage2_trains 'all' needs images"),
        (
            "ce",
            {"trains": "half"},
            "trains 'half' is unknown; allowed: all, last_block, new_block, norms, head",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(method, changes, message):
    with pytest.raises(GCLError, match=message) as refused:
        resolve("digits", method, "official", network=TINY, **changes)
    assert "\n" not in str(refused.value)


def test_what_a_file_lacks_does_not_change_the_name_of_a_run(tmp_path):
    file = saved(tmp_path, change=lambda state: state.pop("layer4.0.conv2.weight"))
    state = torch.get_rng_state()
    name = weights_identity.__wrapped__(TINY, str(file))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(7)
    assert weights_identity.__wrapped__(TINY, str(file)) == name
