"""Each method is what the published code and the paper say, value by value."""

import types

import pytest
import torch

from gcl_core import (
    CBENSampler,
    ClassBalancedSampler,
    GCLError,
    GCLLoss,
    InstanceBalancedSampler,
    hardware,
)
from gcl_core.data.load import DataSettings
from gcl_core.hardware import best_precision
from gcl_core.methods.objectives import (
    GCL,
    LADE,
    OLTR,
    AngularGCL,
    CrossEntropy,
    Equalization,
    Focal,
    HybridPSC,
    HybridSC,
    LabelAware,
    LogitAdjustment,
)
from gcl_core.methods.rebalance import (
    CRT,
    LWS,
    TDE,
    DisAlign,
    MetaEmbed,
    NearestMean,
    PostHoc,
)
from gcl_core.methods.registry import METHODS, PRESETS, resolve
from gcl_core.methods.reweight import PowerWeights
from gcl_core.methods.sampling import CBEN, ClassBalanced, InstanceBalanced
from gcl_core.methods.settings import get_setting
from gcl_core.networks.oltr import CosNormClassifier, OLTRLoss
from gcl_core.networks.tde import MultiHeadClassifier


def official(method):
    return resolve("cifar10", method, "official")


@pytest.mark.parametrize(
    ("method", "head", "mixup", "stages"),
    [
        ("ce", "linear", 0.0, 1),
        ("ce_mixup", "linear", 1.0, 1),
        ("ce_mixup_crt", "linear", 1.0, 2),
        ("gcl", "cosine", 1.0, 1),
        ("gcl_crt", "cosine", 1.0, 2),
    ],
)
def test_stage1_of_the_published_code(method, head, mixup, stages):
    settings = official(method)
    stage = settings.stage1
    assert (settings.network, settings.head) == ("resnet32", head)
    assert (stage.epochs, stage.batch_size, stage.lr, stage.momentum) == (200, 64, 0.1, 0.9)
    assert (stage.weight_decay, stage.schedule, stage.decay) == (2e-4, "multistep", 0.1)
    assert (stage.warmup, stage.milestones) == (5 / 200, (160 / 200, 180 / 200))
    assert (stage.mixup_alpha, stage.sampler, stage.rebalance) == (mixup, InstanceBalanced(), None)
    assert isinstance(stage.objective, GCL if head == "cosine" else CrossEntropy)
    assert (settings.stage2 is not None) == (stages == 2)


def test_clouds_of_the_published_code():
    first, second = official("gcl_crt").stage1.objective, official("gcl_crt").stage2.objective
    assert first == GCL(
        scale=30.0, noise_multiplier=0.5, sigma=1 / 3, strategy="log", margin=0.0, focal_gamma=0.0
    )
    assert second == GCL(
        scale=20.0, noise_multiplier=0.5, sigma=1 / 3, strategy="log", margin=0.1, focal_gamma=1.0
    )
    assert official("gcl").stage1 == official("gcl_crt").stage1


def test_stage2_of_gcl_in_the_published_code():
    stage = official("gcl_crt").stage2
    assert (stage.sampler, stage.rebalance) == (CBEN(0.9999, 1e-5), CRT(fresh_head=False))
    assert (stage.epochs, stage.batch_size, stage.lr, stage.schedule) == (30, 64, 0.002, "cosine")
    assert (stage.warmup, stage.momentum, stage.weight_decay) == (0.0, 0.9, 2e-4)
    assert stage.mixup_alpha == 1.0


def test_stage2_of_crt():
    stage = official("ce_mixup_crt").stage2
    assert (stage.sampler, stage.rebalance) == (ClassBalanced(), CRT(fresh_head=True))
    assert (stage.epochs, stage.lr, stage.weight_decay, stage.mixup_alpha) == (30, 0.1, 5e-4, 0.0)
    assert (stage.schedule, stage.milestones, stage.decay) == ("multistep", (1 / 3, 2 / 3), 0.1)


def test_stage2_of_mislas():
    """Its published configuration of CIFAR-10 at ratio 100."""
    chosen = official("mislas")
    assert (chosen.head, chosen.stage1) == ("linear", official("ce_mixup").stage1)
    stage = chosen.stage2
    assert stage.objective == LabelAware(smooth_head=0.3, smooth_tail=0.0)
    assert stage.sampler == ClassBalanced()
    assert stage.rebalance == LWS(head_lr_factor=0.5, batch_norm="frozen")
    assert (stage.epochs, stage.lr, stage.schedule, stage.warmup) == (10, 0.1, "cosine", 0.0)
    assert (stage.weight_decay, stage.mixup_alpha) == (2e-4, 0.0)


def test_stage2_of_disalign():
    """Its published configuration of ImageNet-LT; batch 64 instead of 256."""
    chosen = official("disalign")
    assert chosen.stage1 == official("ce").stage1
    stage = chosen.stage2
    assert (stage.objective, stage.class_weights) == (CrossEntropy(), PowerWeights(rho=1.2))
    assert (stage.sampler, stage.rebalance) == (InstanceBalanced(), DisAlign())
    assert (stage.epochs, stage.lr, stage.schedule, stage.warmup) == (10, 0.1, "cosine", 0.0)
    assert (stage.weight_decay, stage.batch_size, stage.mixup_alpha) == (5e-4, 64, 0.0)


def test_stage2_of_oltr():
    """Its published configuration of ImageNet-LT; 30 epochs instead of 60, batch 64 of 256."""
    chosen = official("oltr")
    assert chosen.stage1 == official("ce").stage1
    stage = chosen.stage2
    assert stage.objective == OLTR(weight=0.01)
    assert stage.sampler == ClassBalanced()
    assert stage.rebalance == MetaEmbed(slow_factor=0.1, reach=10.0)
    assert (stage.epochs, stage.batch_size, stage.lr, stage.weight_decay) == (30, 64, 0.1, 5e-4)
    assert (stage.schedule, stage.milestones, stage.decay) == ("multistep", (1 / 3, 2 / 3), 0.1)
    assert stage.warmup == 0.0
    assert (OLTRLoss.repel, OLTRLoss.margin, CosNormClassifier.scale) == (0.01, 10.0, 16.0)


def test_values_of_tde_and_of_the_hybrids():
    assert official("tde").stage2.rebalance == TDE(alpha=1.0)
    assert official("tde").stage1.objective == CrossEntropy()
    head = MultiHeadClassifier
    assert (head.groups, head.scale, head.gamma, head.momentum) == (2, 16.0, 1 / 32, 0.9)
    assert official("hybrid_sc").stage1.objective == HybridSC(temperature=0.1)
    assert official("hybrid_psc").stage1.objective == HybridPSC(temperature=1.0)


ANGULAR = {"scale": 30.0, "noise_multiplier": 0.5, "margin": 0.0, "easy_margin": True}


@pytest.mark.parametrize(
    ("method", "place", "expected"),
    [
        ("focal", "stage1.objective", Focal(gamma=1.0, scale=1.0)),
        ("equalization", "stage1.objective", Equalization(threshold=0.05, gamma=0.9)),
        ("logit_adjustment", "stage1.objective", LogitAdjustment(tau=1.0, scale=1.0)),
        ("balanced_softmax", "stage1.objective", LogitAdjustment(tau=1.0, scale=1.0)),
        ("lade", "stage1.objective", LADE(weight=0.1, regulariser=0.1)),
        ("ce_drs", "stage1.deferred", 0.8),
        ("post_hoc", "stage2.rebalance", PostHoc(tau=1.0, scale=1.0)),
        ("ce_ncm", "stage2.rebalance", NearestMean(transform="cl2n")),
        ("gcl_angular_crt", "stage1.objective", AngularGCL(**ANGULAR, focal_gamma=0.0)),
        ("gcl_angular_crt", "stage2.objective", AngularGCL(**ANGULAR, focal_gamma=1.0)),
        ("gcl_angular_crt", "stage2.sampler", ClassBalanced()),
    ],
)
def test_values_of_the_other_methods(method, place, expected):
    assert get_setting(official(method), tuple(place.split("."))) == expected


@pytest.mark.parametrize("method", METHODS)
def test_the_paper_s_text_where_it_differs(method):
    settings = resolve("cifar10", method, "paper")
    assert (settings.stage1.batch_size, settings.stage1.decay) == (128, 0.01)
    assert settings.stage1.epochs == 200
    if method in ("gcl", "gcl_crt"):
        assert settings.stage1.objective.noise_multiplier == 1.0
        assert settings.stage1.objective.margin == 0.0
    if settings.stage2:
        assert settings.stage2.batch_size == 128
        assert getattr(settings.stage2.rebalance, "fresh_head", True)
        assert settings.stage2.mixup_alpha == 0.0
    if method == "gcl_crt":
        assert settings.stage2.objective == GCL(scale=20.0, noise_multiplier=1.0)
        assert settings.stage2.sampler == CBEN(0.9999, 1e-5)
        assert settings.stage2.lr == 0.1  # our assumption


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("preset", "epochs"), [("short", (60, None)), ("digits", (120, 30)), ("smoke", (3, 1))]
)
def test_short_presets_change_the_epochs_only(method, preset, epochs):
    short, long = resolve("cifar10", method, preset), official(method)
    assert short.stage1.epochs == epochs[0]
    if short.stage2:
        assert short.stage2.epochs == (epochs[1] or long.stage2.epochs)
    changes = {"epochs": 200} | ({"stage2_epochs": long.stage2.epochs} if long.stage2 else {})
    assert resolve("cifar10", method, preset, **changes) == long


def test_defaults_of_the_data_sets():
    digits, cifar = resolve("digits", "gcl_crt"), resolve("folder:/x", "gcl_crt")
    assert digits == resolve("digits", "gcl_crt", "digits")
    assert cifar == resolve("folder:/x", "gcl_crt", "official")
    assert (digits.network, cifar.network) == ("digits_cnn", "resnet32")
    assert digits.data == DataSettings(dataset="digits", imbalance_ratio=100.0)
    assert digits.precision == "float32"
    assert resolve() == digits
    assert resolve("digits", epochs=7, seed=3).stage1.epochs == 7


def test_every_method_and_preset_is_described():
    for method in METHODS.values():
        assert method.summary
        assert method.source
    assert set(PRESETS) == {"official", "paper", "short", "digits", "smoke", "pretrained"}
    assert set(METHODS) >= {"ce", "ce_mixup", "ce_mixup_crt", "gcl", "gcl_crt"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("digits", "gcll"),
            "method 'gcll' is unknown .did you mean gcl.*; allowed: ce, ce_mixup, .*, gcl, gcl_crt",
        ),
        (
            ("digits", "gcl", "best"),
            "preset 'best' is unknown; allowed: official, paper, short, digits, smoke",
        ),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(GCLError, match=message):
        resolve(*arguments)


def test_parts_build_what_they_name():
    settings, counts = official("gcl_crt"), torch.tensor([50, 20, 5])
    labels, generator = torch.arange(3).repeat_interleave(counts), torch.Generator()
    criterion = settings.stage2.objective.build(counts, generator)
    assert isinstance(criterion, GCLLoss)
    assert (criterion.scale, criterion.noise_multiplier, criterion.margin) == (20.0, 0.5, 0.1)
    assert (criterion.focal_gamma, criterion.generator) == (1.0, generator)
    assert isinstance(
        official("ce").stage1.objective.build(counts, generator), torch.nn.CrossEntropyLoss
    )
    sampler = settings.stage2.sampler.build(labels, generator)
    assert isinstance(sampler, CBENSampler)
    assert (sampler.a, sampler.b, sampler.generator) == (0.9999, 1e-5, generator)
    assert isinstance(InstanceBalanced().build(labels, generator), InstanceBalancedSampler)
    assert isinstance(ClassBalanced().build(labels, generator), ClassBalancedSampler)


# Precision


@pytest.mark.parametrize("supported", [True, False])
def test_precision_follows_the_hardware(monkeypatch, supported):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    expected = "bfloat16" if supported else "float32"
    assert best_precision("auto") == best_precision("cpu") == expected
    assert resolve("cifar10", "gcl").precision == expected
    assert resolve("cifar10", "gcl", precision="float32").precision == "float32"
    assert resolve("digits", "gcl", precision="auto").precision == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not supported)
    assert best_precision("gpu") == best_precision("auto") != expected
    assert best_precision("cpu") == expected


def test_memory_is_kept_where_the_c_library_can(monkeypatch):
    asked = {}
    library = types.SimpleNamespace(mallopt=asked.__setitem__)
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: library)
    hardware.keep_freed_memory()
    assert asked == {-1: 2**31 - 1, -2: 2**26, -3: 2**30}

    def without(name):
        raise OSError

    monkeypatch.setattr(hardware.ctypes, "CDLL", without)
    hardware.keep_freed_memory()


def test_inference_batches():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert hardware.inference_batch(cpu, (3, 32, 32)) == 64
    assert hardware.inference_batch(cpu, (3, 224, 224)) == 4
    assert hardware.inference_batch(gpu, (3, 32, 32)) > 64
    assert 64 < hardware.inference_batch(gpu, (3, 224, 224)) < 128
