"""The benchmark runs and its figures hang together; it is no timed test."""

import json

import pytest

from gcl_core.benchmark import photographs, speed
from gcl_core.benchmark.interleaved import Spent
from gcl_core.benchmark.photographs import benchmark_files, files_table
from gcl_core.benchmark.speed import bench_table, benchmark
from gcl_core.errors import GCLError
from gcl_core.training.two_stages import make_fabric


def test_one_small_round():
    result = json.loads(json.dumps(benchmark(rounds=1, steps=1, accelerator="cpu")))
    first, second = result["stage1"], result["stage2"]
    assert result["images"] == 12_406
    (row,) = result["rows"]
    assert all(rate > 0 for rate in row.values())
    assert first["ratio"] == round(row["fast1"] / row["reference1"], 2)
    assert first["data_share"] == round(row["fast1"] / row["data"], 2)
    assert second["seconds_of_30_epochs"] == round(30 * 12_406 / second["images_per_s"], 1)
    table = bench_table(result)
    assert f"{first['ratio']:5.2f}" in table
    assert f"{result['gcl_loss']['ratio']:8.2f}" in table


SECONDS = {
    speed._reference_stage1: [4, 2, 8],
    speed._stage1: [1, 1, 4],
    "pair": [2, 2, 2],
    speed._reference_stage2: [4, 4, 4],
    speed._stage2: [1, 1, 1],
    speed._data: [0.1, 0.1, 0.1],
}


class KnownTimes:
    """Workers whose slices take these seconds."""

    def __init__(self, *_):
        self.left = {job: iter(times) for job, times in SECONDS.items()}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self, job, threads):
        return job.func

    def time(self, *jobs):
        return Spent(next(self.left["pair" if len(jobs) == 2 else jobs[0]]))

    def measure(self, job, threads):
        return {"matmul_tflop_per_s": 0.5}


def test_the_figures_are_worked_out_from_the_slices(monkeypatch):
    monkeypatch.setattr(speed, "Workers", KnownTimes)
    found = benchmark(rounds=3, steps=10, accelerator="cpu")  # 640 images a slice
    first, second = found["stage1"], found["stage2"]
    assert (first["reference_images_per_s"], first["images_per_s"], first["ratio"]) == (160, 640, 2)
    assert (first["two_processes_images_per_s"], first["two_processes_ratio"]) == (640, 4)
    assert first["data_share"] == 0.1
    assert (second["images_per_s"], second["ratio"]) == (640, 4)
    share = 3 * 2 * 68.9e6 * 640 / 0.5e12
    assert found["hardware"]["training_share_of_matmul_peak"] == round(share, 3)


class Here:
    """Candidates that work in this process; both together take as long as one after the other."""

    def __init__(self, accelerator):
        self.fabric = make_fabric(accelerator, "float32")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self, job, threads):
        job(self.fabric)()
        return job

    def time(self, job):
        name, both = job.func.__name__, job.keywords.get("in_files")
        seconds = 1 if "decoding" in name else 4 if both else 3
        return Spent(seconds * (2 if "timm" in name else 1), 0.5)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of timm's own loader
def test_files_are_decoded_and_trained_on_alone_and_together(monkeypatch):
    monkeypatch.setattr(photographs, "Workers", Here)
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", 3)
    sizes = {"steps": 2, "batch_size": 2, "image_size": 32, "workers": 0}
    found = benchmark_files(2, "cpu", network="timm:test_resnet", **sizes)
    assert found["waiting"] == {"our": 0.25, "timm's": 0.25}
    assert found["ratios"] == dict.fromkeys(("decoding", "training", "both"), 2)
    assert found["images_per_s"]["our decoding"] == 4
    assert set(found["cpu_ms_per_image"].values()) == {125}
    waiting = files_table(json.loads(json.dumps(found))).splitlines()[-1]
    assert waiting.split() == ["waiting", "25.0%", "25.0%"]


def test_files_are_compared_with_networks_of_timm_only():
    with pytest.raises(GCLError, match="'resnet32' is none of timm's"):
        benchmark_files(network="resnet32")
