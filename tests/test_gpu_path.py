"""What a GPU would refuse, or be made to wait for, seen on a machine without one."""

import csv
import os
from types import SimpleNamespace

import pytest
import torch

from bits import checkpoints, equal, tree
from fake_cuda import CUDA, fake_cuda
from gcl_core import hardware
from gcl_core.data.batch import Batch
from gcl_core.errors import GCLError
from gcl_core.methods.registry import METHODS
from gcl_core.training import runs, step, two_stages
from gcl_core.training.progress import Progress
from gcl_core.training.step import step_kind
from gcl_core.training.two_stages import run, run_folders
from test_contract import settings_of
from toys import toy_dataset

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, and shows it itself"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
]
NO_BAR = Progress("none", "", 0, 1, 1)
SMALL = {"batch_size": 16, "precision": "bfloat16"}


def trained_on_fake(place, method, monkeypatch, **changes):
    """A whole run on a GPU that computes nothing, and what its guard saw."""
    monkeypatch.setattr(runs, "atomic_save", lambda path, value: path.write_bytes(b""))
    dataset = toy_dataset((20, 9, 3))
    settings = settings_of(method, **SMALL | changes)
    monkeypatch.setattr(step, "_recorded", lambda body, generators: body)
    with fake_cuda() as guard:
        done = run(settings, place, accelerator="gpu", dataset=dataset, progress="none")
    return done, guard


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stays_on_the_device(tmp_path, monkeypatch, method):
    """Each epoch waits twice, for its loss and its accuracy; nothing else is fetched in a stage."""
    done, guard = trained_on_fake(tmp_path, method, monkeypatch)
    stages = [len(folder.metrics) for folder in done.folders]
    between_stages = {("two_stages.py", name) for name in ("features", "second_network", "run")}
    between_stages |= {("saved.py", "<dictcomp>")}
    in_stages = {place: n for place, n in guard.reads.items() if place not in between_stages}
    assert in_stages == {
        ("stage.py", "train_epoch"): sum(stages),
        ("evaluation.py", "accuracies"): sum(max(1, epochs) for epochs in stages),
    }
    for split in (done.dataset.train, done.dataset.test):
        assert guard.uploads[tuple(split.images.pixels.shape)] == 1


def test_a_run_in_float32_stays_on_the_device_too(tmp_path, monkeypatch):
    _, guard = trained_on_fake(tmp_path, "gcl_crt", monkeypatch, precision="float32")
    assert {file for file, _ in guard.reads} == {
        *("stage.py", "evaluation.py", "two_stages.py", "saved.py"),
    }


def other_generator(loss):
    return loss + torch.rand((), device=CUDA, generator=torch.Generator())


FAULTS = {
    "a tensor of the host": lambda loss: (loss + torch.ones(1)).sum(),
    "an index of the host": lambda loss: loss[None][torch.zeros(1, dtype=torch.int64)].sum(),
    "a generator of the host": other_generator,
    "a shape by values": lambda loss: loss[None][loss[None] > 0].sum(),
    "nonzero": lambda loss: loss * len(loss[None].nonzero()),
    "bincount": lambda loss: loss * torch.bincount(torch.zeros_like(loss[None]).long()).sum(),
}
WAITS = {
    "item": lambda loss: loss * loss.item(),
    "a condition": lambda loss: loss if loss > 0 else -loss,
    "to the host": lambda loss: loss * float(loss.detach().cpu().sum()),
    "a list": lambda loss: loss * loss[None].tolist()[0],
    "copied": lambda loss: loss * float(torch.empty(()).copy_(loss.detach())),
}


def planted(monkeypatch, fault):
    whole = Batch.loss
    monkeypatch.setattr(Batch, "loss", lambda *given: fault(whole(*given)))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_guard_sees_what_a_gpu_refuses(tmp_path, monkeypatch, fault):
    planted(monkeypatch, FAULTS[fault])
    with pytest.raises(
        Exception, match=r"host|another device|data-dependent|aten\.(nonz|bincount)"
    ):
        trained_on_fake(tmp_path, "ce", monkeypatch)


@pytest.mark.parametrize("wait", WAITS)
def test_the_guard_sees_what_a_gpu_waits_for(tmp_path, monkeypatch, wait):
    planted(monkeypatch, WAITS[wait])
    _, guard = trained_on_fake(tmp_path, "ce", monkeypatch)
    assert guard.reads.total() > 4 + guard.reads["two_stages.py", "run"]


# Where a run is


def test_a_run_on_a_gpu_is_another_run(tmp_path, monkeypatch):
    """Its noise is drawn otherwise; the folder of the run on the CPU is the one it always had."""
    done, _ = trained_on_fake(tmp_path, "gcl_crt", monkeypatch)
    on_cpu = run_folders(done.settings, done.dataset.described, tmp_path)
    assert {folder.path for folder in on_cpu}.isdisjoint(folder.path for folder in done.folders)
    assert all("device" not in folder.identity for folder in on_cpu)
    assert all(folder.identity["device"] == "gpu" for folder in done.folders)


def test_a_small_network_stays_on_the_cpu_by_itself(monkeypatch):
    asked = [("auto", "resnet32"), ("auto", "digits_cnn"), ("gpu", "digits_cnn"), ("cpu", "x")]
    assert [hardware.device_kind(*each) for each in asked] == ["cpu", "cpu", "gpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [hardware.device_kind(*each) for each in asked] == ["gpu", "cpu", "gpu", "cpu"]


@pytest.mark.parametrize(
    ("visible", "taken"),
    [(None, ["0", "1", "2", "0"]), ("4,7,9", ["4", "7", "9", "4"])],
)
def test_workers_take_the_gpus_in_turn(monkeypatch, visible, taken):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for number, expected in enumerate(taken):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        hardware.take_gpu(number)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_a_gpu_gives_the_same_bits_and_float32(monkeypatch):
    conv, product = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        hardware.repeatable_gpu()
        assert torch.are_deterministic_algorithms_enabled()
        assert conv.fp32_precision == product.fp32_precision == "ieee"
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        conv.fp32_precision, product.fp32_precision = "tf32", "none"


# The captured step


PRECISION = dict.fromkeys(("ce_mixup", "bbn"), "float32")
PRECISION |= dict.fromkeys(("ldam_drw", "oltr", "gcl_crt"), "bfloat16")


@pytest.mark.parametrize("method", PRECISION)
def test_a_replayed_step_gives_the_bits_of_the_eager_one(tmp_path, monkeypatch, method):
    """On a CPU a graph is replayed by doing again, on the same tensors, what was recorded."""
    recorded, replayed = [], []

    def record(body, generators):
        assert len(generators) == 1
        recorded.append(body)
        return lambda: replayed.append(body) or body()

    monkeypatch.setattr(step, "_recorded", record)
    changes = {"epochs": 4, "batch_size": 16, "schedule": "cosine", "precision": PRECISION[method]}
    settings = settings_of(method, **changes)
    runs = {}
    for kind in ("eager", "captured"):
        monkeypatch.setattr(two_stages, "step_kind", lambda *_, kind=kind: kind)
        place = tmp_path / kind
        runs[kind] = run(settings, place, dataset=toy_dataset((60, 25, 3)), progress="none")
        assert {row["step"] for row in timings(runs[kind].folders[0])} == {kind}
    assert len(replayed) > len(recorded) >= 4  # anew for the rate of each epoch
    assert tree(tmp_path / "captured") == tree(tmp_path / "eager")
    assert equal(checkpoints(tmp_path / "captured"), checkpoints(tmp_path / "eager"))


def timings(folder):
    return list(csv.DictReader((folder.path / "timing.csv").read_text().splitlines()))


@pytest.mark.parametrize(("asked", "devices"), [("captured", 1), ("graph", 1)])
def test_a_step_that_cannot_be_is_refused(tmp_path, asked, devices):
    words = "needs a GPU and one process, got 1 on cpu" if asked == "captured" else "is unknown"
    with pytest.raises(GCLError, match=f"step '{asked}' {words}"):
        run(settings_of("ce"), tmp_path, dataset=toy_dataset(), step=asked)
    assert not list(tmp_path.iterdir())


def test_a_gpu_captures_by_itself_and_only_in_one_process():
    def kind(asked, device, ranks):
        return step_kind(asked, SimpleNamespace(device=torch.device(device), world_size=ranks))

    assert kind("auto", "cuda", 1) == kind("captured", "cuda", 1) == "captured"
    assert kind("eager", "cuda", 1) == kind("auto", "cuda", 2) == kind("auto", "cpu", 1) == "eager"
    with pytest.raises(GCLError, match="got 2 on cuda"):
        kind("captured", "cuda", 2)
