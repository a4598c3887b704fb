"""What a GPU would refuse, or be made to wait for, seen on a machine without one."""

import pytest
import torch

from fake_cuda import CUDA, fake_cuda
from gcl_core.data.batch import Batch
from gcl_core.methods.registry import METHODS
from gcl_core.training import runs
from gcl_core.training.two_stages import run
from test_contract import settings_of
from toys import toy_dataset

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, and shows it itself"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
]
SMALL = {"batch_size": 16, "precision": "bfloat16"}


def trained_on_fake(place, method, monkeypatch, **changes):
    """A whole run on a GPU that computes nothing, and what its guard saw."""
    monkeypatch.setattr(runs, "atomic_save", lambda path, value: path.write_bytes(b""))
    dataset = toy_dataset((20, 9, 3))
    settings = settings_of(method, **SMALL | changes)
    with fake_cuda() as guard:
        done = run(settings, place, accelerator="gpu", dataset=dataset, progress="none")
    return done, guard


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stays_on_the_device(tmp_path, monkeypatch, method):
    """Each epoch waits twice, for its loss and its accuracy; nothing else is fetched in a stage."""
    done, guard = trained_on_fake(tmp_path, method, monkeypatch)
    stages = [len(folder.metrics) for folder in done.folders]
    between_stages = {("two_stages.py", name) for name in ("_rebalanced", "<lambda>", "run")}
    in_stages = {place: n for place, n in guard.reads.items() if place not in between_stages}
    assert in_stages == {
        ("stage.py", "train_epoch"): sum(stages),
        ("evaluation.py", "accuracies"): sum(max(1, epochs) for epochs in stages),
    }
    for split in (done.dataset.train, done.dataset.test):
        assert guard.uploads[tuple(split.images.pixels.shape)] == 1


def test_a_run_in_float32_stays_on_the_device_too(tmp_path, monkeypatch):
    _, guard = trained_on_fake(tmp_path, "gcl_crt", monkeypatch, precision="float32")
    assert {file for file, _ in guard.reads} == {"stage.py", "evaluation.py", "two_stages.py"}


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
