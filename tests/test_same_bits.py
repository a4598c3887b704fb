"""Runs of every method as they were recorded: the same folders, and on this machine the same bits.

`recorded_runs.json` was written before the package's rooms were rebuilt. A folder's name depends on
images and settings alone. The last bits of metrics and weights depend on processor and version of
torch too, so they are compared where those are the recorded ones.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from gcl_core.data.load import load_dataset
from gcl_core.files import load_tensors
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.results.records import load_records
from gcl_core.training.two_stages import run, run_folders

RECORDED = json.loads(Path(__file__).with_name("recorded_runs.json").read_text())
ROOT = Path(__file__).parents[1]


def machine():
    """What the last bits depend on; nothing of the processor where Linux does not tell it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    told = dict(line.split(":", 1) for line in lines[:10] if ":" in line)
    names = ("vendor_id", "cpu family", "model", "stepping")
    cpu = {key.strip(): value.strip() for key, value in told.items() if key.strip() in names}
    return {"torch": torch.__version__, "cpu": cpu}


def folders(settings, described):
    return [folder.path.name for folder in run_folders(settings, described, Path("runs"))]


def weights_hash(file):
    digest = hashlib.sha256()
    for weight in load_tensors(file)["module"].values():
        digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def test_every_method_has_its_recorded_folder():
    described = load_dataset(resolve("digits", "ce", "smoke").data).described
    for method, stages in RECORDED["runs"].items():
        found = folders(resolve("digits", method, "smoke"), described)
        assert found == [stage["run"] for stage in stages], method
    assert RECORDED["runs"].keys() <= METHODS.keys()


def test_the_records_of_the_study_have_the_folders_that_their_settings_name():
    described = {}
    for record in load_records(ROOT / "results" / "digits.json"):
        protocol = {k: record[k] for k in ("imbalance_ratio", "seed", "data_seed")}
        settings = resolve("digits", record["method"], record["preset"], **protocol)
        if settings.data not in described:
            described[settings.data] = load_dataset(settings.data).described
        assert folders(settings, described[settings.data])[-1] == record["run"]


@pytest.mark.parametrize(
    "method", ["ce", "ce_mixup_crt", "ldam_drw", "ce_ncm", "bbn", "oltr", "gcl_crt"]
)
def test_metrics_and_weights_are_the_recorded_ones(tmp_path, method):
    settings = resolve("digits", method, "smoke")
    done = run(settings, tmp_path, accelerator="cpu", progress="none")
    exact = machine() == RECORDED["machine"]
    for folder, stage in zip(done.folders, RECORDED["runs"][method], strict=True):
        assert folder.result["top1"] == pytest.approx(stage["top1"], abs=0 if exact else 10)
        if exact:
            assert weights_hash(folder.checkpoint_file) == stage["weights"]
            if stage["metrics"]:
                metrics = (folder.path / "metrics.csv").read_bytes()
                assert hashlib.sha256(metrics).hexdigest() == stage["metrics"]
