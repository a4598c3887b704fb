"""The benchmark runs and its figures hang together; it is no timed test."""

import json

from gcl_core.benchmark import speed as bench
from gcl_core.benchmark.speed import bench_table, benchmark


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
    "reference stage 1": [4, 2, 8],
    "stage 1": [1, 1, 4],
    "pair": [2, 2, 2],
    "reference stage 2": [4, 4, 4],
    "stage 2": [1, 1, 1],
    "data": [0.1, 0.1, 0.1],
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
        return job

    def time(self, *jobs):
        return next(self.left["pair" if len(jobs) == 2 else jobs[0]])

    def measure(self, job, threads):
        return {"matmul_tflop_per_s": 0.5}


def test_the_figures_are_worked_out_from_the_slices(monkeypatch):
    monkeypatch.setattr(bench, "_Workers", KnownTimes)
    found = benchmark(rounds=3, steps=10, accelerator="cpu")  # 640 images a slice
    first, second = found["stage1"], found["stage2"]
    assert (first["reference_images_per_s"], first["images_per_s"], first["ratio"]) == (160, 640, 2)
    assert (first["two_processes_images_per_s"], first["two_processes_ratio"]) == (640, 4)
    assert first["data_share"] == 0.1
    assert (second["images_per_s"], second["ratio"]) == (640, 4)
    share = 3 * 2 * 68.9e6 * 640 / 0.5e12
    assert found["hardware"]["training_share_of_matmul_peak"] == round(share, 3)
