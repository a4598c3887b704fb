"""Training against a plain PyTorch loop; what a run leaves behind, shares, reuses and refuses."""

import io
import json
import logging
import math
import sys
import time

import pytest
import torch
import torch.nn.functional as F

from gcl_core import GCLError, GCLLoss
from gcl_core.data.epoch import TrainingImages
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.data.streams import Streams
from gcl_core.methods.rebalance import CRT
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.methods.settings import learning_rate
from gcl_core.networks.models import build_network
from gcl_core.networks.network import initialise
from gcl_core.results.records import record
from gcl_core.training import stage, two_stages
from gcl_core.training.evaluation import Tally, outputs_of
from gcl_core.training.progress import Progress
from toys import seeded, toy_dataset

CPU = torch.device("cpu")
SHORT = {"epochs": 3, "n_max": 40, "imbalance_ratio": 10}


def settings_of(method="gcl_crt", **changes):
    if METHODS[method].stage2:
        changes = {"stage2_epochs": 2} | changes
    return resolve("digits", method, **SHORT | changes)


def run(place, method="gcl_crt", **changes):
    return two_stages.run(settings_of(method, **changes), place, accelerator="cpu", progress="none")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the full method that the tests only read."""
    return run(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(
    ("size", "precision", "message"),
    [
        (32, "float32", "stage 1: a batch of one image, whose feature maps are one pixel"),
        (16, "bfloat16", "images of 16 px leave timm:test_resnet maps of one pixel"),
    ],
)
def test_maps_of_one_pixel_are_one_line(tmp_path, size, precision, message):
    small = {"network": "timm:test_resnet", "batch_size": 46, "precision": precision}
    settings, dataset = resolve("digits", "ce", **small), toy_dataset((30, 12, 5), size=size)
    with pytest.raises(GCLError, match=message):
        two_stages.run(settings, tmp_path, accelerator="cpu", progress="none", dataset=dataset)


def plain_images(settings, part, streams, dataset):
    sampler = part.sampler.build(dataset.train.labels, streams.order)
    return TrainingImages(
        dataset, sampler, part.batch_size, streams, CPU, mixup_alpha=part.mixup_alpha
    )


def plain_training(module, inputs_of, part, images, criterion):
    """The loop that one would write: one batch at a time, every sum in the open."""
    losses, state = [], None
    for epoch in range(part.epochs):
        optimizer = torch.optim.SGD(module.parameters(), learning_rate(part, epoch), part.momentum)
        if state:
            optimizer.load_state_dict(
                {**state, "param_groups": optimizer.state_dict()["param_groups"]}
            )
        total = count = 0
        for batch in images:
            outputs = module(inputs_of(batch.inputs))
            if batch.partner is None:
                loss = criterion(outputs, batch.target)
            else:
                loss = batch.share * criterion(outputs, batch.target)
                loss = loss + (1 - batch.share) * criterion(outputs, batch.partner)
            module.zero_grad()
            loss.backward()
            with torch.no_grad():
                for weight in module.parameters():
                    weight.grad += part.weight_decay * weight
            optimizer.step()
            total, count = (
                total + float(loss.detach()) * len(batch.target),
                count + len(batch.target),
            )
        losses.append(total / count)
        state = optimizer.state_dict()
    return losses


@pytest.mark.parametrize("method", ["ce", "ce_mixup_crt", "gcl_crt"])
def test_both_stages_against_a_plain_loop(tmp_path, method):
    settings = settings_of(method, batch_size=32, lr=0.02, milestones="0.4,0.7")
    ours = two_stages.run(settings, tmp_path, accelerator="cpu", progress="none")
    dataset = load_dataset(settings.data)
    counts = torch.tensor(dataset.class_counts)

    streams = Streams.seeded(0, 1, 0, CPU)
    network = build_network("digits_cnn", 10, settings.head, 1, streams.weights).train()
    first = settings.stage1
    criterion = (
        F.cross_entropy if method.startswith("ce") else GCLLoss(counts, generator=streams.noise)
    )
    images = plain_images(settings, first, streams, dataset)
    losses = [plain_training(network, lambda x: x, first, images, criterion)]
    if settings.stage2:
        network.eval()
        second, streams = settings.stage2, Streams.seeded(0, 2, 0, CPU)
        if second.rebalance == CRT(fresh_head=True):
            initialise(network.head, streams.weights)
        if method == "gcl_crt":
            criterion = GCLLoss(
                counts, scale=20, margin=0.1, focal_gamma=1, generator=streams.noise
            )
        images = plain_images(settings, second, streams, dataset)

        def features(inputs):
            return network.features(inputs).detach()

        losses.append(plain_training(network.head, features, second, images, criterion))
    expected = network.state_dict()
    for name, weight in ours.network.state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)
    for folder, expected in zip(ours.folders, losses, strict=True):
        assert [float(row["train_loss"]) for row in folder.metrics] == pytest.approx(
            expected, rel=1e-3
        )


def test_the_result_is_that_of_the_last_weights(finished):
    network, dataset, result = finished.network, finished.dataset, finished.result
    assert not network.training
    inputs = (dataset.test.images.pixels.float() / 255 - dataset.mean[0]) / dataset.std[0]
    guesses = network(inputs).argmax(1)
    right = (guesses == dataset.test.labels).double()
    assert result["top1"] == pytest.approx(100 * float(right.mean()), abs=1e-3)
    by_class = [100 * float(right[dataset.test.labels == j].mean()) for j in range(10)]
    assert result["per_class"] == pytest.approx(by_class, abs=1e-3)
    for group, classes in dataset.groups.items():
        assert result[group] == pytest.approx(
            sum(by_class[j] for j in classes) / len(classes), abs=1e-3
        )
    for true, row in enumerate(result["confusion"]):
        expected = torch.bincount(guesses[dataset.test.labels == true], minlength=10)
        assert row == expected.tolist()


def test_last_and_best_epochs_are_told_apart(finished):
    for folder, epochs in zip(finished.folders, (3, 2), strict=True):
        rows, result = folder.metrics, folder.result
        assert [int(row["epoch"]) for row in rows] == list(range(1, epochs + 1))
        assert float(rows[-1]["top1"]) == result["top1"]
        best = max(rows, key=lambda row: float(row["top1"]))
        assert result["best_on_test"]["top1"] == float(best["top1"])
        assert result["best_on_test"]["epoch"] == int(best["epoch"])
        assert "optimistic" in result["best_on_test"]["note"]
        assert result["epochs"] == epochs
    rates = [float(row["lr"]) for row in finished.folders[0].metrics]
    assert rates == [learning_rate(finished.settings.stage1, e) for e in range(3)]


def test_what_a_folder_holds(finished):
    for folder in finished.folders:
        assert sorted(p.name for p in folder.path.iterdir() if p.name != ".lock") == [
            "checkpoint.pt",
            "metrics.csv",
            *(["model.pt"] if folder is finished.folders[-1] else []),
            "result.json",
            "settings.json",
            "timing.csv",
        ]
        content = json.loads((folder.path / "settings.json").read_text())
        assert content["identity"]["stage1"]["epochs"] == 3
        assert content["identity"]["images"]["fingerprint"] == finished.dataset.fingerprint
        assert ("stage2" in content["identity"]) == (folder is finished.folders[1])
    assert finished.path == finished.folders[1].path
    assert finished.folders[0].path.parent == finished.folders[1].path.parent


def test_stage_2_trains_the_classifier_only(finished):
    first = finished.folders[0].load_checkpoint()["module"]
    last = finished.network.state_dict()
    for name, weight in first.items():
        assert torch.equal(weight, last[name]) == (name != "head.weight"), name


def test_threads_of_an_unfinished_run_are_known(tmp_path):
    done = run(tmp_path, "ce")
    file = done.path / "settings.json"
    assert two_stages.threads_so_far(done.folders) is None  # it is finished
    (done.path / "result.json").unlink()
    assert two_stages.threads_so_far(done.folders) == torch.get_num_threads()
    for damaged in ("[]", "{}", '{"versions": 1}'):
        file.write_text(damaged)
        assert two_stages.threads_so_far(done.folders) is None


def test_a_seed_decides_every_bit(tmp_path, finished):
    again, other = run(tmp_path), run(tmp_path, seed=1)
    assert again.path.name == finished.path.name != other.path.name
    for (name, weight), same in zip(
        finished.network.state_dict().items(), again.network.state_dict().values(), strict=True
    ):
        assert torch.equal(weight, same), name
    assert not torch.equal(finished.network.head.weight, other.network.head.weight)
    for ours, theirs in zip(finished.folders, again.folders, strict=True):
        for name in ("metrics.csv", "result.json"):
            assert (ours.path / name).read_bytes() == (theirs.path / name).read_bytes()


def test_a_finished_run_is_only_read(tmp_path, monkeypatch):
    first = run(tmp_path)
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*") if p.name != ".lock"}

    def forbidden(*arguments):
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(stage, "train_epoch", forbidden)
    again = run(tmp_path)
    assert again.result == first.result
    assert torch.equal(again.network.head.weight, first.network.head.weight)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_stage_1_is_shared_by_all_that_differ_after_it(tmp_path, monkeypatch):
    alone = run(tmp_path, "gcl")
    epochs, real = [], stage.train_epoch

    def counted(*arguments):
        epochs.append(1)
        return real(*arguments)

    monkeypatch.setattr(stage, "train_epoch", counted)
    both = run(tmp_path)
    assert both.folders[0].path == alone.path
    assert len(epochs) == 2  # stage 2 only
    other = run(tmp_path, stage2_sampler="class")
    assert other.folders[0].path == alone.path
    assert other.path != both.path
    assert len(list(tmp_path.iterdir())) == 3


def test_everything_that_decides_the_result_is_in_the_name(tmp_path):
    def path(**changes):
        settings = settings_of(**changes)
        dataset = load_dataset(settings.data)
        return two_stages.run_folders(settings, dataset.described, tmp_path)[-1].path

    changes = [
        {},
        {"seed": 1},
        {"lr": 0.2},
        {"scale": 9.0},
        {"imbalance_ratio": 5},
        {"data_seed": 1},
    ]
    changes += [{"precision": "bfloat16"}, {"flip": True}, {"crop_padding": 2}, {"devices": 2}]
    changes += [
        {"stage2_sampler_a": 0.5},
        {"stage2_rebalance_fresh_head": True},
        {"batch_size": 32},
        {"class_weights": "effective"},
        {"deferred": 0.5},
    ]
    assert len({path(**change) for change in changes}) == len(changes)
    assert path(profile="exp") == path()  # a default said aloud


@pytest.mark.parametrize(("kind", "epochs"), [("lws", 2), ("tau_norm", 0)])
def test_other_kinds_of_rebalancing_run(tmp_path, kind, epochs):
    done = run(tmp_path, "ce_mixup_crt", stage2_rebalance=kind)
    assert done.result["epochs"] == epochs
    assert record(done.settings, done.folders, "ce_mixup_crt", "smoke")["epochs"] == [3, epochs]
    first = done.folders[0].load_checkpoint()["module"]
    images = torch.randn(4, 1, 8, 8, generator=seeded())
    features = done.network.features(images)
    if kind == "lws":
        scales = done.network.head.scales
        assert not torch.equal(scales, torch.ones(10))
        expected = scales * F.linear(features, first["head.weight"], first["head.bias"])
    else:
        weight = first["head.weight"]
        expected = F.linear(features, weight / weight.norm(dim=1, keepdim=True))
    torch.testing.assert_close(done.network(images), expected)
    again = run(tmp_path, "ce_mixup_crt", stage2_rebalance=kind)
    torch.testing.assert_close(again.network(images), expected)


def test_a_classifier_can_learn_at_a_rate_of_its_own(tmp_path):
    def change(factor):
        done = run(tmp_path, "mislas", stage2_rebalance_head_lr_factor=factor)
        before = done.folders[0].load_checkpoint()["module"]["head.weight"]
        return (done.network.head.head.weight - before).norm(), done.network.head.scales

    (still, scales), (slow, _), (fast, _) = change(1e-9), change(0.01), change(0.5)
    assert still < 1e-6 < slow < fast / 10
    assert not torch.equal(scales, torch.ones(10))


def test_bfloat16_keeps_float32_weights(tmp_path):
    done = run(tmp_path, precision="bfloat16")
    assert {p.dtype for p in done.network.parameters()} == {torch.float32}
    plain = run(tmp_path)
    assert done.path != plain.path
    assert not torch.equal(done.network.head.weight, plain.network.head.weight)
    close = F.cosine_similarity(done.network.head.weight, plain.network.head.weight)
    assert close.min() > 0.9


def test_a_loss_that_is_not_finite_is_refused_and_nothing_of_it_kept(tmp_path):
    with pytest.raises(GCLError, match="stage 1, epoch 1: the training loss is .*smaller lr"):
        run(tmp_path, "ce", lr=1000, weight_decay=1000, warmup=0, batch_size=4)
    (folder,) = tmp_path.iterdir()
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "settings.json"]


def test_a_result_without_its_weights_is_refused(tmp_path):
    done = run(tmp_path)
    done.folders[0].checkpoint_file.unlink()
    with pytest.raises(GCLError, match="has a result but no checkpoint.pt; move it away"):
        run(tmp_path)


@pytest.mark.parametrize("job", [{}, {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "dask-worker"}])
def test_a_run_does_not_mind_slurm(tmp_path, monkeypatch, job):
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert run(tmp_path / "runs", "ce", epochs=1).result["top1"] > 0


def test_an_accelerator_that_is_not_there_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(GCLError, match="accelerator"):
        two_stages.run(settings_of(), tmp_path, accelerator="gpu")
    assert not list(tmp_path.iterdir())
    assert not torch.are_deterministic_algorithms_enabled()  # nothing is left of the try


def test_a_data_set_is_the_same_wherever_it_lies(tmp_path):
    dataset = load_dataset(DataSettings(n_max=40, imbalance_ratio=10))
    settings = settings_of("ce", epochs=1)
    first = two_stages.run(settings, tmp_path, accelerator="cpu", progress="none", dataset=dataset)
    assert first.path == run(tmp_path, "ce", epochs=1).path


# Progress


def test_a_log_has_one_line_an_epoch_with_the_time_left(caplog):
    with caplog.at_level(logging.INFO):
        progress = Progress("log", "stage 1", 2, 4, 5)
        progress.began -= 7200  # two hours for the third epoch
        progress.epoch({"epoch": 3, "train_loss": 1.5, "top1": 40.0})
        progress.epoch({"epoch": 4, "train_loss": 0.5, "top1": 60.0})
        progress.close()
    first, second = caplog.messages
    assert first.startswith("stage 1: epoch 3/4  loss 1.5000  top-1 40.00 %  2:00:0")
    assert second.endswith("0:00:00 left")


def test_a_long_epoch_is_told_of_after_a_minute_and_then_after_twice_as_long(caplog):
    with caplog.at_level(logging.INFO):
        progress = Progress("log", "stage 1", 2, 4, 500)
        progress.skip(100)  # which were done before it was killed, and took no time
        for passed in (30, 70, 100, 141):
            progress.taken += 24
            progress.epoch_began = time.perf_counter() - passed
            progress.step()
        progress.epoch({"epoch": 3, "train_loss": 1.5, "top1": 40.0})
        progress.step()
        progress.close()
    first, second, _ = caplog.messages
    # 50 steps of 500 in 70 seconds, 100 in 141.
    assert first.startswith("stage 1: epoch 3/4, step 150 of 500; about 0:11:4")
    assert second.startswith("stage 1: epoch 3/4, step 200 of 500; about 0:11:4")


class Terminal(io.StringIO):
    """A standard error that somebody watches."""

    def isatty(self):
        """It is one."""
        return True


def test_a_terminal_gets_a_bar(monkeypatch, caplog):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with caplog.at_level(logging.INFO):
        progress = Progress("auto", "stage 2", 1, 2, 3)
        for _ in range(3):
            progress.step()
        progress.epoch({"epoch": 2, "train_loss": 1.5, "top1": 40.0})
        assert (progress.bar.n, progress.bar.total) == (6, 6)
        progress.close()
    assert "stage 2: 100%" in terminal.getvalue()
    assert "top1=40" in terminal.getvalue()
    assert caplog.messages == []


def test_who_wants_no_bars_gets_none(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TQDM_DISABLE", "1")
    progress = Progress("auto", "stage 2", 0, 1, 1)
    progress.step()
    progress.close()
    assert (progress.kind, terminal.getvalue()) == ("log", "")


def test_a_log_gets_no_bar(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    progress = Progress("auto", "stage 2", 0, 1, 1)
    progress.step()
    progress.close()
    assert (progress.kind, log.getvalue()) == ("log", "")


def test_silent_progress_says_nothing(caplog, capsys):
    with caplog.at_level(logging.INFO):
        progress = Progress("none", "stage 1", 0, 1, 1)
        progress.step()
        progress.epoch({"epoch": 1, "train_loss": math.pi, "top1": 1.0})
        progress.close()
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


def test_unknown_progress_is_refused():
    with pytest.raises(GCLError, match="progress 'loud' is unknown; allowed: auto, bar, log, none"):
        Progress("loud", "stage 1", 0, 1, 1)


def test_shifted_statistics_are_those_of_balanced_batches(tmp_path):
    method = "mislas"
    frozen = run(tmp_path, method).network.backbone.state_dict()
    changed = {"stage2_rebalance_batch_norm": "shifted"}
    shifted = run(tmp_path, method, **changed).network.backbone.state_dict()
    differs = {name for name in frozen if not torch.equal(frozen[name], shifted[name])}
    assert differs == {name for name in frozen if "running" in name or "tracked" in name}
    again = run(tmp_path / "again", method, **changed).network.backbone.state_dict()
    assert all(torch.equal(part, again[name]) for name, part in shifted.items())


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("mislas", {"stage2_rebalance_batch_norm": "shifted"}),
        ("bbn", {}),
        ("tde", {}),
        ("oltr", {"stage2_rebalance_slow_factor": 1.0}),
    ],
)
def test_the_result_is_that_of_the_network(tmp_path, method, changes):
    """Its accuracies belong to the final network, backbone and classifier, in evaluation mode."""
    finished = run(tmp_path, method, **changes)
    data = finished.dataset
    with torch.no_grad():
        outputs = outputs_of(finished.network, data.test, data, CPU)
    confusion = Tally(10).add(outputs, data.test.labels).confusion
    assert (confusion - torch.tensor(finished.result["confusion"])).abs().sum() <= 2  # one image


def test_evaluation_leaves_the_classifier_as_it_is():
    """The moving average of TDE holds training images only."""
    data, fabric = toy_dataset(), two_stages.make_fabric("cpu", "float32")
    network = build_network("digits_cnn", 3, "multi_head", 3, seeded()).train()
    streams = Streams.seeded(0, 1, 0, CPU)
    settings = METHODS["tde"].stage1
    part = stage.StageRun(1, settings, data, network, None, streams, None, fabric)
    assert 0 <= part.evaluate()["top1"] <= 100
    assert network.head.mean.abs().max() == 0
