"""The whole study in small, what it gives to notebooks, and records on disk."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

import gcl_core
from gcl_core import study
from gcl_core.course.execution import execution_of, notebooks_in
from gcl_core.errors import GCLError
from gcl_core.grid.cells import cells_of
from gcl_core.methods.registry import resolve
from gcl_core.results.records import add_records, load_records, record, save_records
from gcl_core.results.tables import comparison
from gcl_core.training.side_by_side import run_many, side_by_side
from gcl_core.training.two_stages import run


def test_records_hold_result_protocol_and_history(tmp_path):
    settings = resolve("digits", "gcl_crt", "smoke", seed=3, data_seed=3)
    finished = run(settings, tmp_path / "runs", progress="none")
    kept = record(finished.settings, finished.folders, "gcl_crt", "smoke", history=True)
    save_records(tmp_path / "records.json", [kept])
    (back,) = load_records(tmp_path / "records.json")
    assert back == json.loads(json.dumps(kept))
    assert back["top1"] == finished.result["top1"]
    assert back["epochs"] == [3, 1]
    assert [len(rows) for rows in back["history"]] == [3, 1]
    assert back["identity"]["stage1"]["objective"]["scale"] == 30.0
    assert str(tmp_path) not in json.dumps(back)


def test_a_stage_that_records_share_is_written_once(tmp_path):
    alone, first, second = ([{"epoch": i, "top1": 10.0 * i}] for i in (1, 2, 3))
    records = [
        {"run": "a", "history": [alone]},
        {"run": "b", "history": [alone, first]},
        {"run": "c", "history": [alone, second]},
        {"run": "d"},
        {"run": "e", "history": [first, []]},
    ]
    save_records(tmp_path / "r.json", records)
    assert load_records(tmp_path / "r.json") == records
    assert (tmp_path / "r.json").read_text().count('"top1"') == 3
    save_records(tmp_path / "again.json", load_records(tmp_path / "r.json"))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "r.json").read_bytes()


def test_a_record_of_given_counts_has_no_ratio(tmp_path):
    counts = "20,19,18,17,16,15,14,13,12,10"
    settings = resolve("digits", "ce", "smoke", class_counts=counts)
    done = run(settings, tmp_path, progress="none")
    kept = record(settings, done.folders, "ce", "smoke")
    assert kept["imbalance_ratio"] is None


def test_several_processes_add_records_to_one_file(tmp_path):
    def add(number):
        new = {"run": f"{number}", "method": "ce", "preset": "smoke"}
        add_records(tmp_path / "r.json", [new])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert {each["run"] for each in load_records(tmp_path / "r.json")} == set(map(str, range(40)))


def test_two_methods_that_are_one_run_have_a_record_each(tmp_path):
    for method in ("logit_adjustment", "balanced_softmax", "logit_adjustment"):
        new = {"run": "1", "method": method, "preset": "smoke"}
        number = add_records(tmp_path / "r.json", [new])
    methods = [each["method"] for each in load_records(tmp_path / "r.json")]
    assert methods == ["balanced_softmax", "logit_adjustment"]
    assert number == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 0, "records": []}'])
def test_foreign_records_are_refused_by_name(tmp_path, content):
    (tmp_path / "records.json").write_text(content)
    with pytest.raises(GCLError, match=r"records\.json"):
        load_records(tmp_path / "records.json")


def test_side_by_side_is_the_same_as_one_after_another(tmp_path):
    plan = [resolve("digits", method, "smoke") for method in ("gcl", "gcl_crt")]
    together = run_many(plan, tmp_path / "a", workers=2)
    torch.set_num_threads(2)
    try:
        alone = run_many(plan, tmp_path / "b", workers=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert [r.result for r in together] == [r.result for r in alone]
    assert [r.path.name for r in together] == [r.path.name for r in alone]
    for each in (*together, *alone):  # two threads in each of two processes would be far slower
        about = json.loads((each.path / "settings.json").read_text())
        assert about["versions"]["threads"] == 1
    # One stage 1, shared, and one stage 2.
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.fixture
def project(tmp_path):
    """A project of eight short runs and two notebooks, one of which needs the file `ready`."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "digits.yaml").write_text(
        "{dataset: digits, preset: smoke, cells: [{method: [ce, gcl_crt], "
        "imbalance_ratio: [50, 100], 'seed, data_seed': [0, 1]}]}"
    )
    needs = f"import os, pathlib\nif not pathlib.Path('{tmp_path}/ready').exists():\n"
    for number, code in enumerate(("print(1)", f"{needs}    os.kill(os.getpid(), 9)")):
        cells = [new_code_cell("figures: str = ''  # folder", metadata={"tags": ["parameters"]})]
        cells.append(new_code_cell(code))
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        if number == 0:
            book.metadata["gcl"] = {"core_seconds": 20}
        nbformat.write(book, tmp_path / "notebooks" / f"0{number}_x.ipynb")
    return tmp_path


def test_the_whole_study_in_small(project, caplog, capfd, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    caplog.set_level("INFO", "gcl_core")
    out, runs = project / "study", project / "runs"
    with pytest.raises(GCLError, match=r"^01_x\.ipynb failed .*Kernel died.*failed/01_x\.ipynb$"):
        study.study(project, out, runs, workers=1)
    (project / "ready").touch()
    text = study.study(project, out, runs, workers=1)
    records = load_records(out / "results" / "digits.json")
    assert len(records) == 2 * 2 * 2
    assert (out / "results.md").read_text().startswith(comparison(records))
    said = caplog.messages
    plan = said.index("To do, in about 1:21 minutes:")
    parts = ["8 of 8 runs", "00_x.ipynb", "01_x.ipynb"]
    assert [line.split(maxsplit=1)[1] for line in said[plan + 1 : plan + 4]] == parts
    found, look = text.split("Where to look:")
    assert [line.split()[0] for line in found.strip().splitlines()[1:]] == ["1.", "2.", "3.", "4."]
    places = [line.split(": ")[-1].strip() for line in look.splitlines() if "figures" not in line]
    assert all(Path(place).exists() for place in places)
    parts = [line for line in said if "left" in line]
    assert [line.split(": ")[1] for line in parts if ".ipynb" in line][-1] == "01_x.ipynb"
    assert parts[-1] == "100 %, about 0:00 left: 01_x.ipynb"
    assert not re.search("error|traceback|warning", capfd.readouterr().err, re.IGNORECASE)
    before = {file: file.stat().st_mtime_ns for file in runs.glob("*/checkpoint.pt")}
    caplog.clear()
    assert study.study(project, out, runs, workers=1) == text
    assert "Nothing is left to do." in caplog.messages
    assert {file: file.stat().st_mtime_ns for file in runs.glob("*/checkpoint.pt")} == before
    assert not [line for line in caplog.messages if "about" in line]


def test_the_plan_is_what_the_notebooks_took_and_the_readme_says_it(tmp_path):
    """All of it within eight minutes on two cores, and no notebook above two."""
    root = Path(gcl_core.__file__).parents[1]
    sources = notebooks_in(root / "notebooks")
    took = [execution_of(source)["core_seconds"] for source in sources]
    targets = [tmp_path / source.name for source in sources]
    reading = study._reading(sources, targets, {}, share=0.5)
    assert [part.seconds for part in reading] == [seconds / 2 for seconds in took]
    assert max(part.seconds for part in reading) <= 120
    cells = cells_of(root / "grids" / "digits.yaml")
    training = study._training(cells, tmp_path / "runs", share=0.5)
    minutes = sum(part.seconds for part in (*training, *reading)) / 60
    readme = " ".join((root / "README.md").read_text().split())
    (word,) = re.findall(r"`make study` works offline and takes about (\w+) minutes", readme)
    stated = ("one", "two", "three", "four", "five", "six", "seven", "eight").index(word) + 1
    assert stated / 1.5 < minutes < 1.5 * stated


def test_a_bar_where_somebody_sees_it(capsys, monkeypatch):
    monkeypatch.setattr(study, "watched", lambda: True)
    parts = [study.Part("one", 30, 0), study.Part("there already", 0, 0), study.Part("two", 60, 0)]
    assert list(study._followed(parts, iter("abc"))) == ["a", "b", "c"]
    bars = re.findall(r"(\d+) % \|[^\r]* about \d+:\d\d left: (\w+)", capsys.readouterr().err)
    assert list(dict.fromkeys(bars)) == [("33", "one"), ("100", "two")]


def test_the_time_left_is_the_plans_at_first_and_follows_this_machine_then(caplog, monkeypatch):
    caplog.set_level("INFO", "gcl_core")
    now = iter([0.0, 0.0, 2.0, 70.0, 700.0])
    monkeypatch.setattr(study.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(study, "watched", lambda: False)
    parts = [study.Part(name, seconds, 0) for name, seconds in (("a", 1), ("b", 69), ("c", 630))]
    list(study._followed(parts, iter("abc")))
    assert [line.split(",")[1] for line in caplog.messages] == [
        " about 12:01 left: a",  # (2 + 30) / (1 + 30) times 699 s, though "a" took twice its time
        " about 10:30 left: b",
        " about 0:00 left: c",
    ]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_ends_in_one_line():
    with pytest.raises(GCLError, match="a process was killed"):
        list(side_by_side([joblib.delayed(die)()] * 2, 2))
