"""Epochs of a run that are kept to be looked at: the weights and accuracies that it had then."""

import dataclasses
import itertools

import pytest
import torch

from bits import checkpoints, equal
from gcl_core import GCLError
from gcl_core.course.notebook import watched_epochs
from gcl_core.data.streams import Streams
from gcl_core.files import load_tensors
from gcl_core.methods.registry import resolve
from gcl_core.networks.models import build_network
from gcl_core.training import runs, two_stages
from gcl_core.training.evaluation import Tally, outputs_of
from gcl_core.training.side_by_side import run_many

CPU = torch.device("cpu")
SETTINGS = resolve("digits", "gcl", epochs=3, n_max=40, imbalance_ratio=10)


def run(place, keep=(0, 1, 2, 3), settings=SETTINGS):
    return two_stages.run(settings, place, accelerator="cpu", progress="none", keep=keep)


def kept_files(place):
    return {p.name: load_tensors(p) for p in place.rglob("kept-*.pt")}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run with all of its epochs kept, that the tests only read."""
    return run(tmp_path_factory.mktemp("runs"))


def test_keeping_changes_nothing_but_the_name(watched, tmp_path):
    plain = run(tmp_path, keep=())
    assert plain.path.name != watched.path.name
    assert (plain.kept, watched.kept) == ([], [0, 1, 2, 3])
    assert plain.result == watched.result
    assert plain.folders[0].metrics == watched.folders[0].metrics
    ours, theirs = (
        next(iter(checkpoints(place).values())) for place in (tmp_path, watched.path.parent)
    )
    assert equal(ours | {"run": ""}, theirs | {"run": ""})


def test_the_kept_epochs_are_those_of_the_training(watched):
    streams = Streams.seeded(0, 1, 0, CPU)
    untrained = build_network(SETTINGS.network, 10, SETTINGS.head, 1, streams.weights)
    first = watched.at(0).network.state_dict()
    assert equal(dict(first), dict(untrained.state_dict()))
    assert equal(dict(watched.at(3).network.state_dict()), dict(watched.network.state_dict()))
    assert watched.at(3).result["per_class"] == watched.result["per_class"]
    for epoch, row in enumerate(watched.folders[0].metrics, start=1):
        then = watched.at(epoch)
        assert then.result["top1"] == float(row["top1"])
        outputs = outputs_of(then.network, then.dataset.test, then.dataset, CPU)
        tally = Tally(10).add(outputs, then.dataset.test.labels)
        assert tally.accuracies(then.dataset.groups)["top1"] == then.result["top1"]
    weights = [watched.at(epoch).network.head.weight for epoch in range(4)]
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(weights))
    assert watched.at(1).settings == SETTINGS


def test_looking_at_an_epoch_leaves_the_run_as_it_is(watched):
    before = watched.network.head.weight.clone()
    assert watched.at(1).network is not watched.network
    assert torch.equal(watched.network.head.weight, before)


def test_an_interrupted_run_keeps_the_same_bits(watched, tmp_path, monkeypatch):
    real = runs.RunFolder.save_checkpoint

    def killed(self, checkpoint, timings):
        if len(checkpoint["history"]) == 2:
            raise KeyboardInterrupt
        real(self, checkpoint, timings)

    monkeypatch.setattr(runs.RunFolder, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert sorted(kept_files(tmp_path)) == ["kept-0000.pt", "kept-0001.pt", "kept-0002.pt"]
    monkeypatch.undo()
    assert run(tmp_path).result == watched.result
    assert equal(kept_files(tmp_path), kept_files(watched.path.parent))


def test_side_by_side_keeps_too(tmp_path):
    (one, two) = run_many([SETTINGS, SETTINGS], tmp_path, workers=2, keep=(1,))
    assert one.kept == two.kept == [1]
    assert one.at(1).result == two.at(1).result


@pytest.mark.parametrize("epoch", [-1, 4])
def test_an_epoch_that_there_is_not_is_refused_before_anything_trains(epoch, tmp_path):
    with pytest.raises(GCLError, match=f"keep must be epochs from 0 to 3, got {epoch}"):
        run(tmp_path, keep=(1, epoch))
    assert not list(tmp_path.iterdir())


def test_an_epoch_that_was_not_kept_is_refused_by_name(tmp_path):
    with pytest.raises(GCLError, match=r"has nothing of epoch 1; kept: 0, 3"):
        run(tmp_path, keep=(0, 3)).at(1)
    with pytest.raises(GCLError, match=r"has nothing of epoch 3; kept: none"):
        run(tmp_path, keep=()).at(3)


def test_a_second_stage_is_refused(watched):
    both = resolve("digits", "gcl_crt", epochs=3, n_max=40, imbalance_ratio=10)
    with pytest.raises(GCLError, match="of stage 1 only; ask for a method of one stage"):
        dataclasses.replace(watched, settings=both).at(1)


def test_watched_epochs_start_close_together_and_end_with_the_last():
    assert watched_epochs(120) == [0, 1, 2, 3, 4, 7, 11, 18, 29, 46, 74, 120]
    assert watched_epochs(200, 4) == [0, 1, 14, 200]
    assert watched_epochs(3) == [0, 1, 2, 3]
    assert watched_epochs(1) == [0, 1]
    for epochs in range(1, 300):
        chosen = watched_epochs(epochs)
        assert chosen[0] == 0
        assert chosen[-1] == epochs
        assert len(chosen) <= 12
