"""Executing notebooks: once, with known parameters, keeping what failed; records on disk."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from gcl_core.course import study
from gcl_core.errors import GCLError
from gcl_core.methods.declared import resolve
from gcl_core.results.records import load_records, record, save_records
from gcl_core.results.tables import comparison
from gcl_core.training.side_by_side import run_many
from gcl_core.training.two_stages import run

PARAMETERS = "runs: str = 'runs'  # folder of runs\nfigures: str = ''  # folder of figures"


@pytest.fixture
def notebook(tmp_path):
    def make(code):
        cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell(code)]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        file = tmp_path / "source" / "01_test.ipynb"
        file.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), file)
        return file

    return make


def test_a_notebook_is_executed_once_for_one_source_and_parameters(notebook, tmp_path):
    target = tmp_path / "out" / "01_test.ipynb"
    source = notebook("print(runs, figures)")
    assert study.execute_notebook(source, target, {"runs": "here"})
    assert nbformat.read(target, 4).cells[-1].outputs[0].text == "here \n"
    assert not study.execute_notebook(source, target, {"runs": "here"})
    assert study.execute_notebook(source, target, {"runs": "there"})
    assert study.execute_notebook(notebook("print(1)"), target, {"runs": "there"})
    assert not (target.parent / "failed").exists()
    assert "papermill" not in target.read_text()


@pytest.mark.parametrize("reads", [True, False])
def test_new_run_records_are_a_reason_to_execute_what_reads_them_again(
    notebook, tmp_path, monkeypatch, reads
):
    own = PARAMETERS + ("\nrecords: str = 'results'  # folder of records" if reads else "")
    monkeypatch.setattr(f"{__name__}.PARAMETERS", own)
    source, target = notebook("print(1)"), tmp_path / "out.ipynb"
    assert study.execute_notebook(source, target, {})
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bench.json").write_text("{}")
    assert not study.execute_notebook(source, target, {})
    (tmp_path / "results" / "cifar10-jpeg.json").write_text("{}")
    assert study.execute_notebook(source, target, {}) == reads
    assert not study.execute_notebook(source, target, {})


def test_executed_in_place_the_parameters_are_not_left_behind(notebook):
    source = notebook("print(runs)")
    assert study.execute_notebook(source, source, {"runs": "elsewhere"})
    cells = nbformat.read(source, 4).cells
    assert [cell.source for cell in cells] == [PARAMETERS, "print(runs)"]
    assert cells[1].outputs[0].text == "elsewhere\n"
    assert not study.execute_notebook(source, source, {"runs": "elsewhere"})


def test_an_unknown_parameter_is_refused_before_anything_runs(notebook, tmp_path):
    target = tmp_path / "out.ipynb"
    with pytest.raises(GCLError, match=r"no parameter 'run'; allowed: runs, figures"):
        study.execute_notebook(notebook("1 / 0"), target, {"run": "x"})
    assert not target.exists()


def test_the_study_gives_a_notebook_what_it_has(notebook):
    given = {"runs": "here", "seeds": 3}
    assert study._accepted(notebook("print(runs)"), given) == {"runs": "here"}


def test_a_failed_notebook_is_kept_and_named(notebook, tmp_path):
    target = tmp_path / "out.ipynb"
    with pytest.raises(GCLError, match=r"ZeroDivisionError.*failed/out\.ipynb"):
        study.execute_notebook(notebook("1 / 0"), target, {})
    assert not target.exists()
    assert (tmp_path / "failed" / "out.ipynb").exists()


def test_records_hold_result_protocol_and_history(tmp_path):
    settings = resolve("digits", "gcl_crt", "smoke", seed=3, data_seed=3)
    finished = run(settings, tmp_path / "runs", progress="none")
    kept = record(finished, "gcl_crt", "smoke", history=True)
    save_records(tmp_path / "records.json", [kept])
    (back,) = load_records(tmp_path / "records.json")
    assert back == json.loads(json.dumps(kept))
    assert back["top1"] == finished.result["top1"]
    assert back["epochs"] == [2, 1]
    assert [len(rows) for rows in back["history"]] == [2, 1]
    assert back["identity"]["stage1"]["objective"]["scale"] == 30.0
    assert str(tmp_path) not in json.dumps(back)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 0, "records": []}'])
def test_foreign_records_are_refused_by_name(tmp_path, content):
    (tmp_path / "records.json").write_text(content)
    with pytest.raises(GCLError, match=r"records\.json"):
        load_records(tmp_path / "records.json")


def test_side_by_side_is_the_same_as_one_after_another(tmp_path):
    plan = [resolve("digits", m, "smoke", seed=s) for m in ("gcl", "gcl_crt") for s in (0, 1)]
    together = run_many(plan, tmp_path / "a", workers=2)
    alone = run_many(plan, tmp_path / "b", workers=1)
    assert [r.result for r in together] == [r.result for r in alone]
    assert [r.path.name for r in together] == [r.path.name for r in alone]
    for each in (*together, *alone):  # two threads in each of two processes would be far slower
        about = json.loads((each.path / "settings.json").read_text())
        assert about["versions"]["threads"] == 1
    # Two stages 1, shared, and two stages 2.
    assert len(list((tmp_path / "a").iterdir())) == 4


def test_the_whole_study_in_small(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "digits.yaml").write_text(
        "{dataset: digits, preset: smoke, cells: [{method: [ce, gcl_crt], "
        "imbalance_ratio: [50, 100], 'seed, data_seed': [0, 1]}]}"
    )
    out, runs = tmp_path / "study", tmp_path / "runs"
    text = study.study(tmp_path, out, runs, workers=1)
    records = load_records(out / "results" / "digits.json")
    assert len(records) == 2 * 2 * 2
    assert comparison(records) in text
    assert (out / "results.md").read_text().startswith("| method |")
    before = {file: file.stat().st_mtime_ns for file in runs.glob("*/checkpoint.pt")}
    assert study.study(tmp_path, out, runs, workers=1) == text
    assert {file: file.stat().st_mtime_ns for file in runs.glob("*/checkpoint.pt")} == before
