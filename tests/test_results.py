"""Results of a grid: one row a cell, and records."""

import json

import pyarrow
import pytest
from pandas import read_parquet

from gcl_core import cli
from gcl_core.grid.cells import cells_of
from gcl_core.grid.parquet import save_results
from gcl_core.grid.steps import jobs_of
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.results.records import load_records, plain_settings, record
from gcl_core.training.two_stages import run

GRID = """
dataset: digits
preset: smoke
settings: {n_max: 40, imbalance_ratio: 10}
cells:
  - {method: gcl_crt, stage2_sampler: [class, cben], milestones: "0.5,0.7"}
  - {method: ce, seed: 4}
  - {method: ce_crt, seed: 4}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid whose last cell has its stage 1 only; its folder, jobs and runs."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "grid.yaml").write_text(GRID)
    jobs = jobs_of(cells_of(folder / "grid.yaml"), folder / "runs")
    done = [run(job.cell.settings, folder / "runs", progress="none") for job in jobs[:-1]]
    return folder, jobs, done


def test_a_row_for_each_finished_cell(finished, tmp_path):
    _, jobs, done = finished
    assert save_results(tmp_path / "new" / "results.parquet", jobs) == 3
    frame = read_parquet(tmp_path / "new" / "results.parquet")
    assert frame.method.tolist() == ["gcl_crt", "gcl_crt", "ce"]
    assert frame.top1.tolist() == [each.result["top1"] for each in done]
    assert frame.per_class[0].tolist() == done[0].result["per_class"]
    assert frame.best_on_test[2] == done[2].result["best_on_test"]["top1"]
    assert frame.epochs_by_stage[0].tolist() == [3, 1]
    assert frame.epochs_by_stage[2].tolist() == [3]
    assert frame.run.tolist() == [each.path.name for each in done]
    assert frame.seed.tolist() == [0, 0, 4]
    assert frame.stage2_sampler.tolist()[:2] == ["class", "cben"]
    assert frame.stage2_lr.isna().tolist() == [False, False, True]
    assert frame.milestones[0].tolist() == [0.5, 0.7]
    assert set(frame.preset) == {"smoke"}
    assert set(frame.version_threads) == {1}


def test_every_setting_of_every_method_fits_into_one_table():
    rows = [plain_settings(resolve("cifar10", name, "official")) for name in METHODS]
    for name in {name for row in rows for name in row}:
        pyarrow.array([row.get(name) for row in rows])


def test_a_place_on_a_machine_is_not_kept(finished, tmp_path):
    folder, jobs, _ = finished
    save_results(tmp_path / "results.parquet", jobs)
    frame = read_parquet(tmp_path / "results.parquet")
    assert set(frame.dataset) == {"digits"}
    assert str(folder) not in frame.to_json()


def test_records_are_those_of_the_runs_in_the_order_of_the_grid(finished, tmp_path):
    folder, _, done = finished
    words = [str(folder / "grid.yaml"), "--runs", str(folder / "runs")]
    assert cli.main(["grid", "collect", *words, "--records", str(tmp_path / "r.json")]) == 0
    expected = [
        record(each.settings, each.folders, method, "smoke", history=True)
        for each, method in zip(done, ("gcl_crt", "gcl_crt", "ce"), strict=True)
    ]
    assert load_records(tmp_path / "r.json") == json.loads(json.dumps(expected))
    assert [r["changes"].get("stage2_sampler") for r in expected] == ["class", None, None]
    assert all(r["changes"]["n_max"] == 40 for r in expected)


def test_collecting_keeps_records_of_runs_that_are_not_here(finished, tmp_path, capsys):
    folder, _, _ = finished
    file = tmp_path / "r.json"
    words = ["grid", "collect", str(folder / "grid.yaml"), "--records", str(file)]
    assert cli.main([*words, "--runs", str(folder / "runs")]) == 0
    before = file.read_bytes()
    capsys.readouterr()
    assert cli.main([*words, "--runs", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == f"{file}: 0 of 4 cells, beside 3 of runs that are not here\n"
    assert cli.main([*words, "--runs", str(folder / "runs")]) == 0
    assert capsys.readouterr().out == f"{file}: 3 of 4 cells\n"
    assert file.read_bytes() == before


def test_collecting_says_what_is_there(finished, tmp_path, capsys, monkeypatch):
    folder, _, _ = finished
    monkeypatch.chdir(tmp_path)
    words = [str(folder / "grid.yaml"), "--runs", str(folder / "runs")]
    assert cli.main(["grid", "collect", *words]) == 0
    assert capsys.readouterr().out == "results.parquet: 3 of 4 cells\n"
    assert len(read_parquet(tmp_path / "results.parquet")) == 3
    assert cli.main(["grid", "collect", *words, "--runs", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == "results.parquet: 0 of 4 cells\n"
    assert len(read_parquet(tmp_path / "results.parquet")) == 0
