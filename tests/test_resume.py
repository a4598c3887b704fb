"""Killed at any moment and started again, a run ends with the same bits; other interruptions."""

import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sabotage
from bits import checkpoints, equal, tree
from processes import Forked, forked, python, wait_until

EPOCHS, STAGE2_EPOCHS = 3, 2
WRITES = 2 * 2 + EPOCHS + STAGE2_EPOCHS + 1  # settings and result; checkpoints; model.pt


def train(runs, *more, **changes):
    """The arguments of the run that every test here interrupts, with some settings changed."""
    options = {"epochs": EPOCHS, "stage2_epochs": STAGE2_EPOCHS, "imbalance_ratio": 10, "n_max": 60}
    options |= {"threads": 1, "runs": runs, "progress": "log"} | changes
    return [
        "train",
        *[w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", v)],
        *more,
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of the uninterrupted run."""
    runs = tmp_path_factory.mktemp("whole")
    assert forked(*train(runs)).status == 0
    return runs


def assert_same(runs, whole):
    """A run's folder ends as the uninterrupted one, bit by bit, and with nothing else in it."""
    assert tree(runs) == tree(whole)
    assert len(tree(runs)) == 6
    ours, theirs = checkpoints(runs), checkpoints(whole)
    assert len(ours) == 2
    assert equal(ours, theirs)
    names = [{p.name for p in place.rglob("*")} for place in (runs, whole)]
    assert names[0] == names[1]
    assert not list(runs.rglob("*.tmp"))


def test_the_comparison_sees_one_bit(whole):
    ours = checkpoints(whole)
    changed = checkpoints(whole)
    weights = next(iter(changed.values()))["module"]
    next(iter(weights.values())).view(torch.int32).view(-1)[0] ^= 1
    assert equal(ours, checkpoints(whole))
    assert not equal(ours, changed)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_killed_at_every_write(tmp_path, whole, number, moment):
    die = functools.partial(sabotage.die_at_write, number, moment)
    killed = forked(*train(tmp_path), sabotage=die)
    assert killed.status == -signal.SIGKILL
    for finished in tmp_path.rglob("result.json"):  # a grid does not look at that again
        there, all_of_it = (
            {file.name for file in folder.iterdir()}
            for folder in (finished.parent, whole / finished.parent.name)
        )
        assert there == all_of_it
    done = forked(*train(tmp_path, "--json"))
    assert done.status == 0, done.err
    assert_same(tmp_path, whole)
    assert json.loads(done.out.splitlines()[-1])["epochs"] == [EPOCHS, STAGE2_EPOCHS]


def test_there_are_no_other_writes(tmp_path, whole):
    beyond = functools.partial(sabotage.die_at_write, WRITES + 1, "before")
    assert forked(*train(tmp_path), sabotage=beyond).status == 0


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_at_random(tmp_path, whole, seed):
    """Killed until it gets through; it gets more time with each start, so that it does."""
    delays, seconds, kills = random.Random(seed), 0.1, 0
    while True:
        process = Forked(*train(tmp_path))
        process.process.join(delays.uniform(0, seconds))
        if process.process.exitcode is None:
            process.send(signal.SIGKILL)
        outcome = process.finish()
        if outcome.status == 0:
            break
        assert outcome.status == -signal.SIGKILL, outcome.err
        kills, seconds = kills + 1, seconds * 1.4
    assert kills > 0
    assert_same(tmp_path, whole)


def test_at_most_one_epoch_is_lost(tmp_path, whole):
    # The first write is of the settings, the third is the second checkpoint.
    last = functools.partial(sabotage.die_at_write, 3, "after")
    forked(*train(tmp_path), sabotage=last)
    log = forked(*train(tmp_path)).err
    assert "stage 1: epoch 3/3" in log
    assert "epoch 2/3" not in log


def test_epochs_that_were_not_saved_are_trained_again(tmp_path, whole):
    # Of each stage the last epoch alone is saved, here as the second and the fifth file.
    killed = functools.partial(sabotage.checkpoints_apart, "1000", 2)
    assert forked(*train(tmp_path), sabotage=killed).status == -signal.SIGKILL
    assert not checkpoints(tmp_path)
    others = functools.partial(sabotage.checkpoints_apart, "1000", 7)  # after the first file
    done = forked(*train(tmp_path), sabotage=others)
    assert done.status == 0
    assert "stage 1: epoch 1/3" in done.err
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("given", ["soon", "-1", "nan", ""])
def test_an_interval_that_is_no_number_is_refused(tmp_path, given):
    wrong = functools.partial(sabotage.checkpoints_apart, given)
    refusal = forked(*train(tmp_path), sabotage=wrong).refusal
    assert refusal == f"gcl: GCL_CHECKPOINT_SECONDS must be a number from 0 to 1e9, got {given!r}"


def test_the_real_command_killed_and_continued(tmp_path, whole):
    """`python -m gcl_core` from nothing, killed in the middle of stage 1, then started again."""
    assert python(*train(tmp_path), kill_at="stage 1: epoch 1/3").status == -signal.SIGKILL
    done = python(*train(tmp_path))
    assert done.status == 0, done.err
    assert "stage 1: epoch 1/3" not in done.err
    assert_same(tmp_path, whole)


# Other interruptions


def test_a_process_that_dies_takes_the_others_with_it(tmp_path):
    """Of two processes the second is killed: the first ends with one line, and goes on later."""
    if not Path("/proc/self/task").exists():
        pytest.skip("needs Linux's list of a process's children")
    options = train(tmp_path, devices=2, accelerator="cpu", epochs=900)
    command = [sys.executable, "-m", "gcl_core", *map(str, options)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if line.startswith("stage 1: epoch 2/"))
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        (second,) = [int(pid) for t in threads for pid in (t / "children").read_text().split()]
        os.kill(second, signal.SIGKILL)
        last = process.stderr.read().splitlines()[-1]
    assert process.returncode == 1
    assert last == (
        "gcl: another process of this run has ended; "
        "the same command continues after the last saved epoch"
    )
    assert len(checkpoints(tmp_path)) == 1


@pytest.mark.parametrize(("stage", "changes"), [(1, {"epochs": 900}), (2, {"stage2_epochs": 900})])
def test_ctrl_c_says_how_to_continue(tmp_path, stage, changes):
    process = Forked(*train(tmp_path, **changes))
    wait_until(lambda: f"stage {stage}: epoch 2/" in process.err)
    process.send(signal.SIGINT)
    outcome = process.finish()
    assert outcome.status == 130
    last = outcome.err.splitlines()[-1]
    assert last == "gcl: interrupted; the same command continues after the last saved epoch"
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.rglob("*.tmp"))
    assert len(checkpoints(tmp_path)) == stage
    assert len(list(tmp_path.rglob("result.json"))) == stage - 1
    (left,) = {p.parent for p in tmp_path.rglob("checkpoint.pt")} - {
        p.parent for p in tmp_path.rglob("result.json")
    }
    epochs = len(checkpoints(tmp_path)[left.name]["history"])
    again = Forked(*train(tmp_path, **changes))
    wait_until(lambda: f"stage {stage}: epoch" in again.err)
    again.send(signal.SIGKILL)
    first = re.search(rf"stage {stage}: epoch (\d+)/900", again.finish().err)
    assert int(first[1]) == epochs + 1


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(tmp_path, whole, number):
    full = functools.partial(sabotage.full_disk_at_write, number)
    outcome = forked(*train(tmp_path), sabotage=full)
    assert "No space left on device" in outcome.refusal
    assert str(tmp_path) in outcome.refusal  # the file is named
    assert not list(tmp_path.rglob("*.tmp"))
    assert all(c["history"] for c in checkpoints(tmp_path).values())  # whole ones
    assert forked(*train(tmp_path)).status == 0  # with space again
    assert_same(tmp_path, whole)


def test_a_file_that_is_too_large_is_one_line(tmp_path, whole):
    small = functools.partial(sabotage.small_files_only, 20_000)
    outcome = forked(*train(tmp_path), sabotage=small)
    assert "checkpoint.pt" in outcome.refusal
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("checkpoint.pt"))
    assert forked(*train(tmp_path)).status == 0
    assert_same(tmp_path, whole)


@pytest.fixture
def half(tmp_path):
    """The folder of stage 1 of a run that was killed after its first epoch."""
    after = functools.partial(sabotage.die_at_write, 2, "after")
    forked(*train(tmp_path), sabotage=after)
    (folder,) = tmp_path.iterdir()
    return folder


@pytest.mark.parametrize("content", ["truncated", "empty", "foreign", "of another run", "code"])
def test_a_checkpoint_that_is_not_ours_is_refused_by_name_and_left_alone(
    tmp_path, half, whole, content
):
    file = half / "checkpoint.pt"
    own = file.read_bytes()
    others = [c for c in whole.rglob("checkpoint.pt") if c.parent.name != half.name]
    damaged = {
        "truncated": own[: len(own) // 2],
        "empty": b"",
        "foreign": b"PNG is not a checkpoint\n" * 9,
        "of another run": others[0].read_bytes(),
        "code": b"cos\nsystem\n(S'touch intruder'\ntR.",
    }[content]
    file.write_bytes(damaged)
    before = {p: p.read_bytes() for p in half.iterdir()}
    refusal = forked(*train(tmp_path)).refusal
    assert str(file) in refusal
    assert "move it away and run again" in refusal
    assert {p: p.read_bytes() for p in half.iterdir()} == before
    file.unlink()  # as it says
    assert forked(*train(tmp_path)).status == 0
    assert_same(tmp_path, whole)


def test_a_folder_of_other_settings_is_refused_and_left_alone(tmp_path, half):
    file = half / "settings.json"
    file.write_text(file.read_text().replace('"momentum": 0.9', '"momentum": 0.8'))
    before = {p: p.read_bytes() for p in half.iterdir()}
    refusal = forked(*train(tmp_path)).refusal
    assert f"{half} holds a run of other settings" in refusal
    assert {p: p.read_bytes() for p in half.iterdir()} == before


def test_two_at_once_train_once(tmp_path, whole):
    """The second waits for the first and takes its result."""
    runs, go = tmp_path / "runs", tmp_path / "go"
    holds = functools.partial(sabotage.wait_at_write, 2, str(go))
    first = Forked(*train(runs, "--json"), sabotage=holds)
    wait_until(lambda: list(runs.rglob("settings.json")))
    second = Forked(*train(runs, "--json"))
    wait_until(lambda: "another process is working on this run; waiting for it" in second.err)
    go.touch()
    outcomes = [process.finish() for process in (first, second)]
    assert [outcome.status for outcome in outcomes] == [0, 0]
    assert outcomes[0].out == outcomes[1].out != ""
    logs = "".join(outcome.err for outcome in outcomes)
    for epoch in (f"stage 1: epoch {EPOCHS}/", f"stage 2: epoch {STAGE2_EPOCHS}/"):
        assert logs.count(epoch) == 1
    assert_same(runs, whole)
