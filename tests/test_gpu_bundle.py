"""The folder for a bare GPU machine: what is in it, and what it refuses."""

import importlib.util
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.errors import GCLError

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("gpu_bundle", ROOT / "gpu" / "bundle.py")
gpu_bundle = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gpu_bundle)
GRID = "dataset: digits\npreset: smoke\ncells: [{method: ce}]\n"


def made(tmp_path, monkeypatch, grid=GRID):
    """A bundle of digits without its wheels, which need a network."""
    monkeypatch.setattr(gpu_bundle, "_wheels", lambda folder, python: folder.mkdir())
    (tmp_path / "grid.yaml").write_text(grid)
    gpu_bundle.bundle(tmp_path / "bundle", "digits", tmp_path / "grid.yaml", 50, "3.12")
    return tmp_path / "bundle"


def run_sh(folder, *words):
    """Its last line, of a run that must fail."""
    done = subprocess.run(
        ["sh", folder / "run.sh", *words],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_it_holds_one_subset_bit_by_bit_and_the_whole_test_set(tmp_path, monkeypatch):
    folder = made(tmp_path, monkeypatch)
    names = {"grid.yaml", "images.tar", "run.sh", "check.py", "wheels"}
    assert {each.name for each in folder.iterdir()} == names
    assert (folder / "grid.yaml").read_text() == GRID.replace("digits", "folder:images")
    shutil.unpack_archive(folder / "images.tar", folder)
    theirs = load_dataset(DataSettings(dataset=f"folder:{folder / 'images'}"))
    ours = load_dataset(DataSettings(dataset="digits", imbalance_ratio=50))
    assert theirs.class_counts == ours.class_counts
    for mine, yours in ((ours.train, theirs.train), (ours.test, theirs.test)):
        for label in range(10):
            pixels = [each.images.pixels[each.labels == label][:, 0] for each in (mine, yours)]
            first, second = (sorted(each.flatten(1).tolist()) for each in pixels)
            assert first == second


def test_one_that_is_too_large_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_bundle, "LARGEST", 2**19)
    with pytest.raises(GCLError, match=r"0\.\d MiB, more than 0; a greater --imbalance-ratio"):
        made(tmp_path, monkeypatch)
    assert {each.name for each in tmp_path.iterdir()} <= {"grid.yaml", "cache"}


def test_a_grid_without_a_data_set_is_refused(tmp_path, monkeypatch):
    with pytest.raises(GCLError, match="must name its dataset in one line"):
        made(tmp_path, monkeypatch, "cells: [{method: ce}]\n")


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ((), "say check, or train MINUTES, not ''"),
        (("bench",), "say check, or train MINUTES, not 'bench'"),
        (("train",), "train needs whole MINUTES, got ''"),
        (("train", "0"), "train needs whole MINUTES, got '0'"),
        (("train", "1.5"), "train needs whole MINUTES, got '1.5'"),
    ],
)
def test_other_words_are_refused(tmp_path, words, refusal):
    shutil.copy(ROOT / "gpu" / "run.sh", tmp_path)
    assert run_sh(tmp_path, *words) == f"run.sh: {refusal}"


def test_a_bundle_for_another_torch_is_refused(tmp_path):
    shutil.copy(ROOT / "gpu" / "run.sh", tmp_path)
    about = tmp_path / "site" / "gcl_core-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: gcl-core\nVersion: 0.1.0\nRequires-Dist: torch>=99\n"
    )
    (tmp_path / "site" / ".whole").touch()
    found = version("torch")
    assert run_sh(tmp_path, "check") == (
        f"run.sh: this bundle is for torch>=99, and here is {found}; make another one"
    )
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_unpacked_are_refused(tmp_path):
    shutil.copy(ROOT / "gpu" / "run.sh", tmp_path)
    (tmp_path / "images.tar").write_bytes(b"half")
    assert run_sh(tmp_path, "check") == (
        "run.sh: images.tar cannot be unpacked here; is the disk full?"
    )
    assert not (tmp_path / "site" / ".whole").exists()
