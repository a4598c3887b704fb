"""More epochs of a run that has ended."""

import json
import logging

import pytest

from bits import checkpoints, equal, tree
from gcl_core.cli import main

SAME = ["--schedule", "constant", "--warmup", "0"]


def train(runs, method, epochs, *options):
    words = ["train", "--method", method, "--preset", "smoke", "--epochs", str(epochs), *options]
    place = ["--runs", str(runs), "--accelerator", "cpu", "--progress", "none"]
    assert main([*words, "--n-max", "40", "--imbalance-ratio", "10", *place]) == 0


@pytest.mark.parametrize("method", ["ce", "gcl_crt"])
def test_a_longer_run_goes_on_and_ends_with_the_same_bits(tmp_path, caplog, method):
    caplog.set_level(logging.INFO)
    train(tmp_path / "whole", method, 5, *SAME)
    assert "going on" not in caplog.text
    for epochs in (2, 3, 5):
        train(tmp_path / "parts", method, epochs, *SAME)
    assert "going on from the 2 epochs" in caplog.text
    assert "going on from the 3 epochs" in caplog.text
    whole, parts = tree(tmp_path / "whole"), tree(tmp_path / "parts")
    assert whole.items() <= parts.items()
    found = checkpoints(tmp_path / "parts")
    for name, state in checkpoints(tmp_path / "whole").items():
        assert equal(state, found[name])
    timed = [f.read_text().splitlines()[1:] for f in (tmp_path / "parts").glob("*/timing.csv")]
    first = [len(rows) for rows in timed if rows]
    assert min(first) <= 2  # the epochs that were not trained again are not timed again


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("ce", [], "its learning rates depend on the number"),
        ("ce_drw", SAME, "when class weights or sampler come into force depends on the number"),
        ("bbn", SAME, "objective bbn shifts its weight with the number of epochs"),
    ],
)
def test_where_it_would_not_be_the_same_it_starts_anew_and_says_why(
    tmp_path, caplog, method, options, reason
):
    caplog.set_level(logging.INFO)
    for epochs in (3, 5):
        train(tmp_path, method, epochs, *options)
    assert f"has 3 epochs of this, but {reason}" in caplog.text
    assert "going on" not in caplog.text


def test_other_settings_and_unfinished_runs_are_not_gone_on_from(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(tmp_path, "ce", 2, *SAME)
    train(tmp_path, "ce", 3, *SAME, "--seed", "1")
    (settings,) = (f for f in tmp_path.glob("*/settings.json") if _epochs(f) == 2)
    (settings.parent / "result.json").unlink()
    train(tmp_path, "ce", 4, *SAME)
    train(tmp_path, "ce", 3, *SAME, "--seed", "2")
    assert "epochs of" not in caplog.text


def _epochs(file):
    return json.loads(file.read_text())["identity"]["stage1"]["epochs"]
