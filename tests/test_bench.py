"""The benchmark runs and its figures hang together; it is no timed test."""

import json

from gcl_core.training.bench import bench_table, benchmark


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
