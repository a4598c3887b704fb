"""Runs of several processes: equal to one where mathematics says so; together to the end."""

import copy
import functools
import itertools
import os
import signal
import time

import filelock
import pytest
import torch
from torch import nn

import sabotage
from bits import checkpoints, equal, tree
from gcl_core import GCLError
from gcl_core.data.lists import read_list
from gcl_core.inference.saved import images_of, load_run
from gcl_core.methods.registry import resolve
from gcl_core.networks.models import build_network
from gcl_core.networks.pretrained import synchronise
from gcl_core.processes import summed
from gcl_core.training import two_stages
from gcl_core.training.evaluation import frozen
from gcl_core.training.two_stages import make_fabric, run
from processes import Forked, in_each, wait_until
from toys import listed_images, seeded, toy_features

SMALL = {"epochs": 2, "stage2_epochs": 1, "imbalance_ratio": 10, "n_max": 30, "batch_size": 32}


def train(runs, devices, **changes):
    """The arguments of a small run on digits; its epochs end with a batch of uneven shares."""
    options = SMALL | {"devices": devices, "accelerator": "cpu", "threads": 1, "runs": runs}
    options |= {"precision": "float32", "progress": "log"} | changes
    given = {f"--{k.replace('_', '-')}": str(v) for k, v in options.items() if v is not None}
    return ["train", *itertools.chain.from_iterable(given.items())]


def started(arguments, broken=None, **times):
    """Such a run, its other processes forked, with what `broken` does in which of them."""
    fork = functools.partial(sabotage.fork_the_others, arguments, broken or {}, **times)
    return Forked(*arguments, sabotage=fork)


def trained(runs, devices, **changes):
    """The folder of such a run, whole."""
    done = started(train(runs, devices, **changes)).finish()
    assert done.status == 0, done.err
    return runs


# As one process


METHODS = {"ce_ncm": {}, "ce": {"class_weights": "effective"}, "class_balanced": {}}


def train_on_features(devices, runs):
    """The images of the last step are 7: an uneven share for two and for three processes."""
    changes = {"network": "features", "precision": "float32", "batch_size": 10, "lr": 0.05}
    for method, more in METHODS.items():
        every = changes | more
        settings = resolve("digits", method, "smoke", devices=devices, epochs=2, **every)
        run(settings, runs / method, dataset=toy_features(), progress="none")


def test_they_learn_what_one_process_learns(tmp_path):
    """Loss, class weights, class means and accuracies; uneven shares count by their images."""
    runs = [tmp_path / str(devices) for devices in (1, 2, 3)]
    train_on_features(1, runs[0])
    for devices in (2, 3):
        in_each(devices, train_on_features, devices, runs[devices - 1])
    for method in METHODS:
        alone, *others = ([*checkpoints(place / method).values()] for place in runs)
        for several in others:
            for ours, theirs in zip(by_history(several), by_history(alone), strict=True):
                torch.testing.assert_close(ours["module"], theirs["module"])
                for ours_row, row in zip(ours["history"], theirs["history"], strict=True):
                    assert ours_row == pytest.approx(row, rel=1e-5)


def by_history(saved):
    """Of two stages the first, which has epochs, first."""
    return sorted(saved, key=lambda each: -len(each["history"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of three."""
    return trained(tmp_path_factory.mktemp("whole"), 3)


def test_its_accuracies_are_those_of_the_network_that_is_saved(whole):
    """Batch normalisation counts other images in each process; what is tested is rank 0's."""
    (file,) = whole.rglob("model.pt")
    model = load_run(file.parent)
    test = images_of(model).test
    right = model.outputs(test.images.pixels).argmax(1) == test.labels
    assert model.result["top1"] == pytest.approx(100 * float(right.double().mean()))
    assert sum(map(sum, model.result["confusion"])) == len(test)


@pytest.mark.parametrize(
    ("die", "said"),
    [
        pytest.param(
            functools.partial(sabotage.die_after_a_step, 4),  # the settings, then a file each
            "stage 1: going on in epoch 1, after step 3",
            id="in an epoch",
        ),
        pytest.param(
            functools.partial(sabotage.die_at_write, 2 + SMALL["epochs"], "after"),
            "stage 2: epoch 1/1",
            id="in stage 2",
        ),
    ],
)
def test_continued_they_end_with_the_same_bits(tmp_path, whole, die, said):
    assert started(train(tmp_path, 3), {0: die}).finish().status == -signal.SIGKILL
    done = started(train(tmp_path, 3)).finish()
    assert done.status == 0 and said in done.err
    assert tree(tmp_path) == tree(whole)
    assert equal(checkpoints(tmp_path), checkpoints(whole))


def test_list_files_continue_within_an_epoch_of_two_processes(tmp_path):
    """Each decodes in a process of its own; one image is broken, and another stands in for it."""
    root = listed_images(tmp_path / "data", (12, 6, 3))
    os.truncate(root / read_list(root / "ImageNet_LT_train.txt").paths[13], 80)
    changes = {"dataset": f"imagenet_lt:{root}", "imbalance_ratio": None, "n_max": None}
    changes |= {"network": "resnet32", "image_size": 8, "batch_size": 6, "epochs": 1, "warmup": 0}
    changes |= {"method": "ce", "stage2_epochs": None, "skip_unreadable": 1, "workers": 1}
    whole, killed = (train(tmp_path / name, 2, **changes) for name in ("whole", "killed"))
    done = started(whole).finish()
    assert done.status == 0, done.err
    die = functools.partial(sabotage.die_after_a_step, 3)  # the settings, two steps
    assert started(killed, {0: die}).finish().status == -signal.SIGKILL
    done = started(killed).finish()
    assert "stage 1: going on in epoch 1, after step 2" in done.err
    assert "read from their files by 1 worker process" in done.err
    assert done.status == 0, done.err
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert equal(checkpoints(tmp_path / "killed"), checkpoints(tmp_path / "whole"))


def test_a_batch_smaller_than_the_processes_is_refused(tmp_path):
    refusal = started(train(tmp_path, 3, batch_size=2)).finish().refusal
    assert refusal.startswith("gcl: a batch of 2 images has none for some of 3 processes; take")


@pytest.mark.parametrize("name", ["resnet32", "timm:test_efficientnet"])
def test_synchronised_norms_change_nothing_but_the_statistics(name):
    """In one process PyTorch computes the ordinary ones; more than that needs GPUs."""
    network = build_network(name, 3, "linear", 3, seeded())
    plain, images = copy.deepcopy(network), torch.randn(4, 3, 32, 32, generator=seeded())
    synchronise(network)
    assert {type(norm) for norm in norms_of(network)}.isdisjoint(type(n) for n in norms_of(plain))
    assert network.state_dict().keys() == plain.state_dict().keys()
    for mode in (nn.Module.eval, nn.Module.train):
        torch.testing.assert_close(mode(network)(images), mode(plain)(images))
    folded = frozen(network.backbone, make_fabric("cpu", "float32"))(images)
    torch.testing.assert_close(folded, network.eval().backbone(images), rtol=1e-4, atol=1e-4)


class Total(torch.autograd.Function):
    """The sum of a tensor over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, values):
        return summed(values)

    @staticmethod
    def backward(ctx, gradient):
        return summed(gradient)


def normalise_together(norm, images):
    """`nn.SyncBatchNorm` by its formula: PyTorch's own needs GPUs."""
    if norm.training:
        flat, total = images.transpose(0, 1).flatten(1), Total.apply
        number = summed(torch.tensor(float(flat.shape[1])))
        mean = total(flat.sum(1)) / number
        variance = total((flat - mean[:, None]).square().sum(1)) / number
        with torch.no_grad():
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * number / (number - 1), norm.momentum)
    else:
        mean, variance = norm.running_mean, norm.running_var
    shift, scale = (each.view(1, -1, 1, 1) for each in (mean, (variance + norm.eps).rsqrt()))
    weight, bias = (each.view(1, -1, 1, 1) for each in (norm.weight, norm.bias))
    return (images - shift) * scale * weight + bias


def train_images(devices, sync_norm, runs):
    """Images that are not varied, so that all processes together have what one has."""
    if sync_norm:
        two_stages.device_kind = lambda *chosen: "gpu"
        two_stages.make_fabric = lambda kind, *rest: make_fabric("cpu", *rest)
        nn.SyncBatchNorm.forward = normalise_together
        nn.parallel.DistributedDataParallel._passing_sync_batchnorm_handle = lambda *network: None
    changes = {"n_max": 30, "imbalance_ratio": 10, "batch_size": 10, "epochs": 2, "lr": 0.02}
    changes |= {"crop_padding": 0, "flip": False, "precision": "float32"}
    settings = resolve("digits", "ce", "smoke", devices=devices, sync_norm=sync_norm, **changes)
    two_stages.run(settings, runs, progress="none")


def test_with_synchronised_norms_they_learn_what_one_process_learns(tmp_path):
    """The option reaches the network, and then nothing but rounding is left of the shares."""
    train_images(1, False, tmp_path / "1")
    in_each(2, train_images, 2, False, tmp_path / "apart")
    in_each(2, train_images, 2, True, tmp_path / "2")
    one, apart, two = (
        next(iter(checkpoints(tmp_path / place).values()))["module"]
        for place in ("1", "apart", "2")
    )
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(apart, one, rtol=1e-3, atol=1e-4)


def norms_of(network):
    return [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def test_synchronised_norms_are_refused_where_they_cannot_be(tmp_path):
    with pytest.raises(GCLError, match="^sync_norm is for several processes, and devices is 1"):
        resolve("digits", "ce", sync_norm=True)
    settings = resolve("digits", "ce", "smoke", sync_norm=True, devices=2)
    with pytest.raises(GCLError, match="^sync_norm needs GPUs, as PyTorch has none for a CPU"):
        run(settings, tmp_path, accelerator="cpu")


# The end of one is the end of all

EVALUATION = ("gcl_core.training.stage:StageRun", "evaluate")
STEP = ("gcl_core.training.step:Step", "__call__")
ENDED = "gcl: another process of this run has ended; the same command continues after the last"
ENDED += " saved epoch"


def at(number, what, action):
    return functools.partial(sabotage.at_call, number, *what, action)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({1: at(1, ("lightning_fabric:Fabric", "launch"), sabotage.die)}, id="start"),
        pytest.param({1: at(5, STEP, sabotage.die)}, id="epoch"),
        pytest.param({2: at(2, EVALUATION, sabotage.die)}, id="evaluation"),
        # Rank 0 is busy with something long of its own, and has no other to talk to.
        pytest.param({1: at(1, STEP, sabotage.die), 0: at(1, STEP, sabotage.sleep)}, id="busy"),
    ],
)
def test_one_that_dies_takes_the_others_with_it_in_one_line(tmp_path, broken):
    assert started(train(tmp_path, 3), broken).finish().refusal == ENDED


def test_an_error_of_one_process_is_told(tmp_path):
    broken = {1: at(2, STEP, sabotage.find_a_broken_image)}
    outcome = started(train(tmp_path, 2), broken).finish()
    assert outcome.refusal == ENDED
    assert "process 1 of 2: image 7 is broken" in outcome.err.splitlines()


def test_an_error_of_all_processes_is_told_once(tmp_path):
    broken = dict.fromkeys((0, 1), at(2, STEP, sabotage.find_a_broken_image))
    outcome = started(train(tmp_path, 2), broken, grace=20).finish()
    assert outcome.refusal == "gcl: image 7 is broken"
    assert outcome.err.count("image 7") == 1


def test_one_that_does_not_answer_ends_the_run(tmp_path):
    broken = {1: at(5, STEP, sabotage.sleep)}
    refusal = started(train(tmp_path, 2), broken, patience=3).finish().refusal
    assert "another process of this run has not answered for 0.05 minutes; the same" in refusal


def test_all_wait_for_a_folder_that_another_run_has(tmp_path):
    """For longer than one process waits for another."""
    (folder,) = {
        file.parent
        for file in trained(tmp_path, 2, method="ce", stage2_epochs=None).rglob("result.json")
    }
    (folder / "result.json").unlink()
    with filelock.FileLock(folder / ".lock"):
        waiting = started(train(tmp_path, 2, method="ce", stage2_epochs=None), patience=2)
        wait_until(lambda: "another process is working on this run" in waiting.err)
        time.sleep(3)
    assert waiting.finish().status == 0
    assert (folder / "result.json").exists()
