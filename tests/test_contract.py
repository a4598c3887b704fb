"""What every method promises: it trains, resumes to the same bits, evaluates alike, refuses."""

import itertools
import math

import pytest
import torch

from bits import equal
from gcl_core.data.load import load_dataset
from gcl_core.errors import GCLError
from gcl_core.files import load_tensors
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.methods.settings import flat_settings, get_setting
from gcl_core.networks.models import NETWORKS
from gcl_core.training.progress import Progress
from gcl_core.training.two_stages import run
from toys import toy_dataset

every_method = pytest.mark.parametrize("method", METHODS)
SHIFTED = {"stage2_rebalance_batch_norm": "shifted"}


def settings_of(method, data="folder:toy", **changes):
    """Small ones, with every part of the method in force at least once (deferred ones in half)."""
    deferred = {"deferred": 0.5} if METHODS[method].stage1.deferred else {}
    small = {"epochs": 2, "batch_size": 8, "network": "digits_cnn", "precision": "float32"}
    if METHODS[method].stage2 is not None:
        small |= {"stage2_epochs": 2, "stage2_batch_size": 8}
    return resolve(data, method, "official", **small | deferred | changes)


def trained(runs, method, dataset, **changes):
    return run(settings_of(method, **changes), runs, dataset=dataset, progress="none")


def weights(finished):
    return [load_tensors(folder.checkpoint_file)["module"] for folder in finished.folders]


@every_method
@pytest.mark.parametrize(
    ("counts", "precision"),
    [((20, 3), "float32"), (tuple(max(1, 9 - j // 12) for j in range(100)), "bfloat16")],
    ids=["2 classes", "100 classes"],
)
def test_it_trains_and_evaluates(tmp_path, method, counts, precision):
    dataset = toy_dataset(counts, tests=2)
    finished = trained(tmp_path, method, dataset, precision=precision)
    assert 0 <= finished.result["top1"] <= 100
    assert len(finished.result["per_class"]) == len(counts)
    for row in itertools.chain(*(folder.metrics for folder in finished.folders)):
        assert float(row["train_loss"]) < 1000
    state = torch.get_rng_state()
    with torch.no_grad():
        outputs = [finished.network(torch.ones(3, 3, 8, 8)) for _ in range(2)]
    assert torch.equal(*outputs)
    assert outputs[0].shape == (3, len(counts))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        *((name, {}) for name in METHODS),
        ("mislas", SHIFTED),
        *((name, {"precision": "bfloat16"}) for name in ("ce_ncm", "bbn", "oltr", "gcl_crt")),
    ],
)
def test_interrupted_after_every_epoch_on_digits_it_ends_with_the_same_bits(
    tmp_path, method, changes, monkeypatch
):
    changes = changes | {"data": "digits", "imbalance_ratio": 100}
    dataset = load_dataset(settings_of(method, **changes).data)
    whole = trained(tmp_path / "whole", method, dataset, **changes)
    done = Progress.epoch

    def stop(self, row):
        done(self, row)
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "epoch", stop)
    epochs = sum(len(load_tensors(f.checkpoint_file)["history"]) for f in whole.folders)
    for _ in range(epochs):
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "parts", method, dataset, **changes)
    parts = trained(tmp_path / "parts", method, dataset, **changes)
    assert parts.result == whole.result
    assert equal(weights(parts), weights(whole))


@every_method
def test_it_refuses_what_it_cannot_do(method):
    with pytest.raises(GCLError, match="unknown setting 'cloud'"):
        settings_of(method, cloud=1)
    with pytest.raises(GCLError, match="batch_size must be >= 2"):
        settings_of(method, batch_size=1)
    stages = [s for s in (METHODS[method].stage1, METHODS[method].stage2) if s]
    parts = [stage.rebalance for stage in stages if stage.rebalance]
    parts += [s.objective for s in stages if not (s.rebalance and s.rebalance.makes)]
    for head in NETWORKS:
        if head == "cosine" and any(part.scaled_for_logits for part in parts):
            with pytest.raises(GCLError, match="with (bare cosines|head 'cosine')"):
                settings_of(method, head=head)
        elif all(head in part.heads for part in parts):
            assert settings_of(method, head=head).head == head
        else:
            with pytest.raises(GCLError, match=f"does not work with head '{head}'"):
                settings_of(method, head=head)


@every_method
def test_each_of_its_numbers_is_refused_out_of_range(method):
    settings = settings_of(method)
    shared = flat_settings(settings_of("ce")) if method != "ce" else {}
    for name, path in flat_settings(settings).items():
        given = get_setting(settings, path)
        if name in shared or isinstance(given, bool) or not isinstance(given, int | float):
            continue
        wrong = [-1] if isinstance(given, int) else [-1.0, math.nan, math.inf]
        for value in wrong:
            if name.endswith("margin") and value == -1:
                continue  # a margin may be negative
            with pytest.raises(GCLError, match=str(value)):
                settings_of(method, **{name: value})


@every_method
def test_equal_terms(method):
    """Outside of what makes a method itself, stage 1 is that of cross-entropy."""
    plain, own = METHODS["ce"].stage1, METHODS[method].stage1
    for name in ("epochs", "batch_size", "lr", "momentum", "weight_decay", "schedule", "warmup"):
        assert getattr(own, name) == getattr(plain, name)
    assert (own.milestones, own.decay) == (plain.milestones, plain.decay)
