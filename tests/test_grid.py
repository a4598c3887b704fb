"""Grids: what a file means, what is refused, which runs are shared, and how far they are."""

import itertools
import json
import re
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from gcl_core import cli
from gcl_core.errors import GCLError
from gcl_core.grid.cells import NotebookCell, cells_of, points
from gcl_core.grid.failures import forget_failure, keep_failure
from gcl_core.grid.steps import Rates, State, jobs_of, predicted, state_of, steps_left
from gcl_core.methods.registry import resolve
from gcl_core.results.records import changes_of
from gcl_core.training.two_stages import run

ROOT = Path(__file__).parent.parent
NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=4)
VALUES = st.lists(st.integers() | st.text(max_size=3), min_size=1, max_size=3)


def grid(tmp_path, text):
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    return file


def cells(tmp_path, entries, top="dataset: digits\npreset: smoke"):
    return cells_of(grid(tmp_path, f"{top}\ncells:\n{entries}"))


@given(st.data())
def test_an_entry_is_the_product_of_its_values(data):
    entry = {name: data.draw(VALUES) for name in data.draw(NAMES)}
    naive = [{}]
    for name, values in entry.items():
        naive = [{**point, name: value} for point in naive for value in values]
    assert list(points(entry)) == naive


def test_what_is_named_in_one_key_moves_together(tmp_path):
    made = cells(
        tmp_path, "  - {method: gcl_crt, 'strategy, stage2_strategy': [cosine, log], seed: [0, 1]}"
    )
    found = [
        (c.settings.stage1.objective.strategy, c.settings.stage2.objective.strategy) for c in made
    ]
    assert found == [("cosine", "cosine")] * 2 + [("log", "log")] * 2
    assert made[1].name == "gcl_crt, strategy cosine, stage2_strategy cosine, seed 1"


def test_cells_are_what_the_command_line_would_run(tmp_path):
    top = "dataset: digits\npreset: smoke\nsettings: {imbalance_ratio: [50, 20], seed: 7}"
    made = cells(
        tmp_path, "  - {method: [ce, gcl], seed: 3}\n  - {method: ldam, preset: short}", top
    )
    expected = [
        resolve("digits", method, preset, imbalance_ratio=ratio, seed=seed)
        for methods, preset, seed in ((("ce", "gcl"), "smoke", 3), (("ldam",), "short", 7))
        for ratio, method in itertools.product((50, 20), methods)
    ]
    assert [cell.settings for cell in made] == expected
    assert {cell.preset for cell in made} == {"smoke", "short"}


def test_a_power_of_ten_is_a_number_though_yaml_says_text(tmp_path):
    """PyYAML reads 1e-4 as text (YAML 1.1 wants 1.0e-4)."""
    (text,) = cells(tmp_path, "  - {method: ce, weight_decay: 1e-4}")
    (number,) = cells(tmp_path, "  - {method: ce, weight_decay: 0.0001}")
    assert text.settings == number.settings
    assert text.settings.stage1.weight_decay == 0.0001
    with pytest.raises(GCLError, match=r"'ce, weight_decay 1e-4' and 'ce, weight_decay 0.0001'"):
        cells(tmp_path, "  - {method: ce, weight_decay: [1e-4, 0.0001]}")


@pytest.mark.parametrize("text", ["[[0.5, 0.7]]", "'0.5,0.7'", "['0.5,0.7']"])
def test_a_setting_of_several_numbers(tmp_path, text):
    (cell,) = cells(tmp_path, f"  - {{method: ce, milestones: {text}}}")
    assert cell.settings.stage1.milestones == (0.5, 0.7)


def test_changes_are_what_differs_from_the_method(tmp_path):
    (cell,) = cells(
        tmp_path,
        "  - {method: gcl_crt, scale: 30, stage2_scale: 9, stage2_sampler: class, seed: 2, "
        "data_seed: 1, precision: bfloat16, milestones: '0.5,0.7'}",
    )
    assert changes_of(cell.settings, cell.method, cell.preset) == {
        "stage2_scale": 9.0,
        "stage2_sampler": "class",
        "milestones": [0.5, 0.7],
    }


def test_the_data_set_can_be_another(tmp_path):
    file = grid(tmp_path, "cells: [{method: ce}]")
    (cell,) = cells_of(file, dataset="folder:images")
    assert cell.settings.data.dataset == f"folder:{Path.cwd() / 'images'}"
    assert (cell.preset, cell.settings.network) == ("official", "resnet32")


def test_each_list_of_a_data_set_is_looked_for_beside_the_file(tmp_path):
    text = "dataset: list:train.txt,test.txt\ncells: [{method: ce, network: resnet32}]"
    (tmp_path / "grid.yaml").write_text(text)
    (cell,) = cells_of(tmp_path / "grid.yaml")
    lists = f"{tmp_path.resolve()}/train.txt,{tmp_path.resolve()}/test.txt"
    assert cell.settings.data.dataset == f"list:{lists}"


ENTRY = "cells: [{method: ce}]"


def bomb(level):
    """A file of some lines that stands for 10 ** 10 values."""
    lines = ["a0: &a0 {k: 1}" if "<<" in level else "a0: &a0 [1]"]
    for n in range(1, 11):
        lines += [f"a{n}: " + level.format(n, ", ".join([f"*a{n - 1}"] * 10))]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("dataset: digits\nsede: 3\n" + ENTRY, "unknown key 'sede'; allowed: dataset, preset, set"),
        ("dataset: digits\ndataset: cifar10\n" + ENTRY, "dataset is given twice, again in line 2"),
        ("dataset: digits\ncells: [{method: ce, lr: 1, lr: 2}]", "lr is given twice"),
        ("dataset: [digits", "cannot read .*grid.yaml"),
        ("- 1", "is not a grid"),
        ("", "is not a grid"),
        (ENTRY, "names no dataset"),
        ("dataset: digits", "cells must be a list of entries"),
        ("dataset: digits\ncells: []", "cells must be a list of entries"),
        ("dataset: digits\nsettings: 3\n" + ENTRY, "settings must be names with values"),
        ("dataset: digits\ncells: [{seed: 1}]", "entry 1: neither a method nor a notebook"),
        ("dataset: digits\ncells: [ce]", "entry 1: neither a method nor a notebook"),
        ("dataset: digits\ncells: [{method: ce, epohcs: 3}]", "did you mean epochs"),
        ("dataset: digits\ncells: [{method: ec}]", "method 'ec' is unknown"),
        ("dataset: digits\npreset: long\n" + ENTRY, "preset 'long' is unknown"),
        ("dataset: digits\npreset: [smoke]\n" + ENTRY, "preset must be one name"),
        ("dataset: digits\ncells: [{method: 1}]", "entry 1: method 1 is unknown"),
        ("dataset: digits\ncells: [{method: [[ce]]}]", r"entry 1: method \('ce',\) is unknown"),
        (
            f"dataset: digits\ncells: [{{notebook: {ROOT}/README.md}}]",
            r"entry 1: .*README.md is not a notebook \(.ipynb\)",
        ),
        (
            f"dataset: digits\ncells: [{{notebook: {ROOT}/notebooks/06_ablations.py}}]",
            r"entry 1: .*06_ablations.py is not a notebook \(.ipynb\)",
        ),
        ("dataset: digits\ncells: [{method: ce, seed: []}]", "seed must be a value or a list"),
        ("dataset: digits\ncells: [{method: ce, seed: {a: 1}}]", "seed must be a value or a list"),
        ("dataset: digits\ncells: [{method: ce, seed: x}]", "seed must be a whole number, got 'x'"),
        (
            "dataset: digits\ncells: [{method: ce, dataset: cifar10}]",
            "dataset is one for the whole",
        ),
        ("dataset: digits\ncells: [{method: ce, accelerator: cpu}]", "accelerator is one for the"),
        ("dataset: digits\ncells: [{method: ce, devices: 2}]", "devices must be 1: a grid gives"),
        ("dataset: digits\ncells: [{method: ce, stage2_lr: 1}]", "unknown setting 'stage2_lr'"),
        ("dataset: digits\ncells: [{method: ce, stage2_sampler: [[a]]}]", "unknown setting"),
        ("dataset: digits\ncells: [{method: gcl_crt, stage2_sampler: [[a]]}]", r"\('a',\) is unkn"),
        (
            "dataset: digits\ncells: [{method: ce}, {method: gcl_crt, head: [cosine, linear]}]",
            "entry 2: objective 'gcl' does not work with head 'linear'; allowed: cosine",
        ),
        (
            "dataset: digits\ncells: [{method: ce, 'seed, data_seed': 1, seed: 2}]",
            "entry 1: seed is given twice",
        ),
        (
            "dataset: digits\ncells: [{method: ce, seed: [0, 1]}, {method: ce, lr: 0.1}]",
            "two cells have the same settings: 'ce, seed 0' and 'ce, lr 0.1'",
        ),
        (
            "dataset: digits\ncells: [{method: ce, head: [linear, cosine]}]",
            "entry 1: objective 'cross_entropy' does not work with head 'cosine'",
        ),
        (
            "dataset: digits\ncells: [{method: gcl_crt, stage2_rebalance: [crt, post_hoc]}]",
            "entry 1: re-balancing 'post_hoc' .*stage2_rebalance_scale must be > 1",
        ),
        (
            "dataset: digits\ncells: [{method: gcl_crt, stage2_sampler_b: 0.1}]",
            r"entry 1: a and a \+ b must be in \[0, 1\), got a = 0.9999, b = 0.1",
        ),
        (
            "dataset: digits\ncells: [{method: gcl_crt, stage2_sampler_a: 0, "
            "stage2_sampler_b: -0.5}]",
            "got a = 0.0, b = -0.5",
        ),
        (
            "dataset: digits\ncells: [{method: gcl_crt, strategy: [log, power]}]",
            "strategy 'power' needs an exponent",
        ),
        (
            "dataset: digits\ncells: [{method: gcl_crt, stage2_strategy: power}]",
            "strategy 'power' needs an exponent",
        ),
        (
            "dataset: digits\ncells: [{method: gcl, exponent: 0.25}]",
            "exponent belongs to strategy 'power', not to 'log'",
        ),
        ("dataset: digits\ncells: [{notebook: none.ipynb}]", "there is no notebook .*none.ipynb"),
        (
            f"dataset: digits\ncells: [{{method: ce, seed: {[*range(101)]}, lr: {[1] * 100}}}]",
            "has 10100 cells, more than 10000; `max_cells:` allows more",
        ),
        (
            "dataset: digits\nmax_cells: 3\ncells: [{method: ce, seed: [0, 1]}, "
            "{method: [gcl, ldam]}]",
            "has 4 cells, more than 3",
        ),
        ("dataset: digits\nmax_cells: 0\n" + ENTRY, "max_cells must be a whole number > 0, got 0"),
        (bomb("&a{} [{}]"), "aliases make more than 1000000 values"),
        (bomb("&a{} {{<<: [{}]}}"), "aliases make more than 1000000 values"),
        ("a: &a [*a]", "aliases make more than 1000000 values"),
        ("a: !!timestamp x", "cannot read .*grid.yaml"),
        ("!!map [1]", "cannot read .*grid.yaml"),
        (f"a: 0x{'f' * 9000}", "a number of more than 100 digits"),
        ("dataset: digits\ncells: [{method: ce, seed: 2001-01-01}]", "seed must be a value or a"),
        ("dataset: digits\ncells: [{method: ce, lr: [[[1]]]}]", "lr must be a value or a list"),
        ("a: " + "[" * 21 + "]" * 21, "nested deeper than 20"),
        ("a: " + "[" * 5000, "nested deeper than 20"),
        ('dataset: digits\ncells: [{method: ce, "se\\e[2Jed": 1}]', r"se\\x1b\[2Jed"),
    ],
)
def test_a_bad_grid_is_one_line_and_leaves_nothing(tmp_path, capsys, text, named):
    file = grid(tmp_path, text)
    assert cli.main(["grid", "run", str(file), "--runs", str(tmp_path / "runs")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gcl: ")
    assert err.count("\n") == 1
    assert "grid.yaml" in err
    assert re.search(named, err)
    assert not (tmp_path / "runs").exists()


def test_places_are_taken_from_the_folder_of_the_file(tmp_path, notebook, monkeypatch):
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "near.ipynb").write_bytes(notebook.read_bytes())
    file = tmp_path / "grids" / "grid.yaml"
    file.write_text(
        "dataset: folder:images\ncells: [{notebook: near.ipynb}, {notebook: book.ipynb}]"
    )
    monkeypatch.chdir(tmp_path / "gcl_core")
    near, project = cells_of(file)
    assert near.notebook.samefile(tmp_path / "grids" / "near.ipynb")
    assert project.notebook.samefile(notebook)
    place = dict(near.parameters)["dataset"].removeprefix("folder:")
    assert Path(place).resolve() == (tmp_path / "grids" / "images").resolve()
    file.write_text("dataset: folder:~/images\ncells: [{method: ce}]")
    assert cells_of(file)[0].settings.data.dataset == f"folder:{Path.home() / 'images'}"


def test_a_name_from_a_file_moves_no_cursor(tmp_path, notebook, capsys):
    file = grid(tmp_path, 'dataset: digits\ncells: [{notebook: book.ipynb, runs: "a\\e[2J\\nb"}]')
    (job,) = jobs_of(cells_of(file), tmp_path / "runs")
    keep_failure(job.folders[0], "ValueError", "red \x1b[31m")
    assert cli.main(["grid", "status", str(file), "--runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert r"runs a\x1b[2J\nb  interrupted: ValueError: red \x1b[31m" in out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2


def test_a_missing_file_and_bad_data_are_one_line(tmp_path, capsys):
    assert cli.main(["grid", "plan", str(tmp_path / "none.yaml")]) == 1
    assert "cannot read" in capsys.readouterr().err
    file = grid(tmp_path, "dataset: digits\ncells: [{method: ce, imbalance_ratio: [9, 500]}]")
    assert cli.main(["grid", "plan", str(file)]) == 1
    named = r"^gcl: ce, imbalance_ratio 500: .* leaves the last class without an image.*\n$"
    assert re.search(named, capsys.readouterr().err)


# Which work there is


def test_cells_that_differ_in_stage_2_alone_share_stage_1(tmp_path):
    made = cells(
        tmp_path,
        "  - {method: gcl_crt, stage2_sampler: [class, instance]}\n  - method: [gcl, ce, ce_crt]",
    )
    jobs = jobs_of(made, tmp_path / "runs")
    firsts = [job.steps[0] for job in jobs]
    assert firsts[0] is firsts[1] is firsts[2]
    assert firsts[3] is firsts[4] is not firsts[0]
    assert [len(job.steps) for job in jobs] == [2, 2, 1, 1, 2]
    assert all(step.after is firsts[0] for job in jobs[:2] for step in job.steps[1:])
    assert len(steps_left(jobs)) == 2 + 3
    assert not (tmp_path / "runs").exists()


def test_two_cells_that_are_one_run_are_refused(tmp_path):
    """Written otherwise, and the same images after all."""
    made = cells(tmp_path, "  - {method: ce, n_max: [none, 124]}")
    with pytest.raises(GCLError, match="the same settings: 'ce, n_max none' and 'ce, n_max 124'"):
        jobs_of(made, tmp_path)


def test_the_state_of_a_cell(tmp_path, monkeypatch):
    (cell,) = cells(tmp_path, "  - {method: gcl_crt, n_max: 40, imbalance_ratio: 10}")
    (job,) = jobs_of([cell], tmp_path / "runs")
    first, second = job.folders
    assert state_of(job) == State("left")
    with first.opened():
        assert state_of(job) == State("running", "stage 1, epoch 0 of 3")
        first.write_metrics([{"epoch": 1, "top1": 3.0}])
        assert state_of(job) == State("running", "stage 1, epoch 1 of 3")
    assert state_of(job) == State("interrupted", "stage 1, epoch 1 of 3")
    keep_failure(first, "GCLError", "too hot", "Traceback")
    assert str(state_of(job)) == "failed: stage 1 failed: GCLError: too hot"
    assert steps_left([job]) == []
    for kind in ("OSError", "MachineError", "KilledWorker"):  # nothing of the run itself
        keep_failure(first, kind, "no space")
        assert str(state_of(job)) == f"interrupted: stage 1 failed: {kind}: no space"
        assert steps_left([job]) == list(job.steps)
    forget_failure(first)
    with first.opened():
        first.finish({"top1": 3.0})
    assert state_of(job) == State("left", "stage 1 is done")
    assert [step.folder for step in steps_left([job])] == [second]
    keep_failure(second, "GCLError", "no", "")
    assert state_of(job) == State("failed", "GCLError: no")
    with second.opened():
        second.write_metrics([{"epoch": 1, "top1": 3.0}])
    forget_failure(second)
    assert state_of(job) == State("interrupted", "stage 2, epoch 1 of 1")
    with second.opened():
        second.finish({"top1": 3.0})
    assert str(state_of(job)) == "done"
    assert steps_left([job]) == []


def test_looking_at_a_grid_writes_nothing(tmp_path, capsys):
    file = grid(tmp_path, "dataset: digits\npreset: smoke\ncells: [{method: [ce, gcl_crt]}]")
    for action in ("plan", "status"):
        assert cli.main(["grid", action, str(file), "--runs", str(tmp_path / "runs")]) == 0
        assert "2 cells: 2 left" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def time_of(folder, epoch, seconds):
    """Have an epoch of a run taken so long."""
    row = {"epoch": epoch, "train_seconds": seconds}
    folder.save_checkpoint({"history": []}, [row])


def test_time_is_predicted_from_runs_like_it(tmp_path, capsys):
    entries = "  - {method: [ce, gcl], epochs: 40, n_max: [20, 40], imbalance_ratio: 1}"
    jobs = jobs_of(cells(tmp_path, entries), tmp_path / "runs")
    left = steps_left(jobs)
    assert predicted(left, Rates(tmp_path / "runs"), 1) == (0.0, 4)
    with jobs[0].folders[0].opened():  # 200 images, 30 of 40 epochs
        for epoch, seconds in enumerate((9.0, 2.0, 2.0)):
            time_of(jobs[0].folders[0], epoch, seconds)
        jobs[0].folders[0].write_metrics([{"epoch": e} for e in range(30)])
    rates = Rates(tmp_path / "runs")
    assert [rates.seconds(job.steps[0]) for job in jobs] == pytest.approx([20, 160, 80, 160])
    assert predicted(left, rates, 1) == (pytest.approx(420), 0)
    assert predicted(left, rates, 2) == (pytest.approx(210), 0)
    assert predicted(left, rates, 9) == (pytest.approx(160), 0)
    with jobs[2].folders[0].opened():  # of the objective itself
        time_of(jobs[2].folders[0], 1, 4.0)
    rates = Rates(tmp_path / "runs")
    assert rates.seconds(jobs[3].steps[0]) == pytest.approx(320)
    assert rates.seconds(jobs[1].steps[0]) == pytest.approx(160)
    file = grid(tmp_path, f"dataset: digits\npreset: smoke\ncells:\n{entries}")
    cli.main(["grid", "plan", str(file), "--runs", str(tmp_path / "runs"), "--workers", "1"])
    assert "0:11:00 of training left with one worker" in capsys.readouterr().out


@pytest.mark.parametrize("left", ["", "1,2.0\n", "epoch,train_seconds\n1,2.0\n3", "\0"])
def test_what_a_full_disk_has_left_of_a_run_stops_no_prediction(tmp_path, left):
    jobs = jobs_of(cells(tmp_path, "  - {method: ce, seed: [0, 1, 2]}"), tmp_path / "runs")
    for job in jobs:
        with job.folders[0].opened():
            time_of(job.folders[0], 1, 2.0)
    expected = Rates(tmp_path / "runs").rates
    (jobs[0].folders[0].path / "timing.csv").write_text(left)
    (jobs[1].folders[0].path / "settings.json").write_text("[]")
    (later,) = jobs_of(cells(tmp_path, "  - {method: ce_tau_norm}"), tmp_path / "runs")
    with later.folders[1].opened():
        time_of(later.folders[1], 1, 2.0)
    file = later.folders[1].path / "settings.json"
    file.write_text(file.read_text().replace('"tau_norm"', '"not known yet"'))
    assert Rates(tmp_path / "runs").rates == expected


def test_runs_of_another_version_predict_nothing(tmp_path):
    (job,) = jobs_of(cells(tmp_path, "  - {method: ce}"), tmp_path / "runs")
    with job.folders[0].opened():
        time_of(job.folders[0], 1, 2.0)
    assert Rates(tmp_path / "runs").seconds(job.steps[0]) is not None
    file = job.folders[0].path / "settings.json"
    file.write_text(file.read_text().replace('"results_version": 2', '"results_version": 1'))
    assert Rates(tmp_path / "runs").seconds(job.steps[0]) is None


def test_stages_on_images_and_on_features_are_timed_apart(tmp_path):
    entries = "  - {method: gcl_crt, stage2_rebalance_batch_norm: [frozen, shifted]}"
    jobs = jobs_of(cells(tmp_path, entries), tmp_path / "runs")
    for job, seconds in zip(jobs, (1.0, 50.0), strict=True):
        with job.folders[1].opened():
            time_of(job.folders[1], 1, seconds)
    file = jobs[1].folders[1].path / "settings.json"  # of a time when there was one setting more
    file.write_text(file.read_text().replace('"fresh_head"', '"gone": false, "fresh_head"'))
    rates = Rates(tmp_path / "runs")
    frozen, shifted = (rates.seconds(job.steps[1]) for job in jobs)
    assert shifted == pytest.approx(50 * frozen)


def test_without_a_run_no_time_is_predicted(tmp_path, capsys):
    file = grid(tmp_path, "dataset: digits\ncells: [{method: ce}]")
    assert cli.main(["grid", "plan", str(file), "--runs", str(tmp_path / "runs")]) == 0
    assert "an unknown time (no run to predict from)" in capsys.readouterr().out


def test_a_chain_of_two_stages_is_not_shorter_than_both(tmp_path):
    (job,) = jobs_of(cells(tmp_path, "  - {method: gcl_crt}"), tmp_path / "runs")
    for step, seconds in zip(job.steps, (8.0, 2.0), strict=True):
        with step.folder.opened():
            time_of(step.folder, 1, seconds)
    assert predicted(steps_left([job]), Rates(tmp_path / "runs"), 2) == (pytest.approx(26), 0)


def test_what_trains_nothing_takes_no_time(tmp_path):
    entries = "  - method: [ce_tau_norm, ce_ncm, post_hoc, tde, ce_lws, disalign, oltr]"
    jobs = jobs_of(cells(tmp_path, entries), tmp_path / "runs")
    trained = [run(job.cell.settings, tmp_path / "runs", progress="none") for job in jobs]
    expected = [each.result["epochs"] for each in trained]
    assert [job.steps[1].epochs for job in jobs] == expected == [0, 0, 0, 0, 1, 1, 1]


# Notebooks


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook in a project's folder, which is the current one."""
    (tmp_path / "gcl_core").mkdir()
    (tmp_path / "gcl_core" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    code = "dataset: str = ''  # which\nseeds: int = 1  # how many\nruns: str = 'runs'  # where"
    book = [new_code_cell(code, metadata={"tags": ["parameters"]}), new_code_cell("print(seeds)")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=book, metadata={"kernelspec": kernel}), "book.ipynb")
    return tmp_path / "book.ipynb"


def test_a_cell_can_be_a_notebook(tmp_path, notebook):
    made = cells(tmp_path, "  - {notebook: book.ipynb, seeds: [1, 2]}")
    assert made == [
        NotebookCell(f"book.ipynb, seeds {n}", notebook, (("dataset", "digits"), ("seeds", n)))
        for n in (1, 2)
    ]
    jobs = jobs_of(made, tmp_path / "runs")
    before = [job.steps[0].key for job in jobs]
    assert len(set(before)) == 2
    notebook.write_text(notebook.read_text().replace("print(seeds)", "print(-seeds)"))
    assert not {job.steps[0].key for job in jobs_of(made, tmp_path / "runs")} & set(before)


def test_entries_can_share_what_an_anchor_names(tmp_path):
    (first, second) = cells(
        tmp_path, "  - &base {method: ce, lr: 0.2}\n  - {<<: *base, seed: 1, lr: 0.3}"
    )
    assert (first.method, first.settings.stage1.lr, first.settings.seed) == ("ce", 0.2, 0)
    assert (second.method, second.settings.stage1.lr, second.settings.seed) == ("ce", 0.3, 1)


def test_an_unknown_parameter_of_a_notebook_is_refused(tmp_path, notebook):
    with pytest.raises(GCLError, match="entry 1: book.ipynb has no parameter 'seed'; allowed: d"):
        cells(tmp_path, "  - {notebook: book.ipynb, seed: 1}")


# The committed grids


@pytest.mark.parametrize("file", sorted((ROOT / "grids").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_committed_grid_is_valid(file):
    made = cells_of(file)
    assert len({cell.name for cell in made}) == len(made)


def test_the_grid_of_the_digits_gives_every_run_its_own_split():
    expected = [
        resolve("digits", method, "digits", imbalance_ratio=ratio, seed=seed, data_seed=seed)
        for ratio in (50.0, 100.0)
        for method in ("ce", "ce_mixup", "ce_mixup_crt", "gcl", "gcl_crt")
        for seed in range(5)
    ]
    assert [cell.settings for cell in cells_of(ROOT / "grids" / "digits.yaml")] == expected


def test_the_grids_of_cifar10_have_the_tables_of_the_paper():
    short, official = (
        cells_of(ROOT / "grids" / f"cifar10-{n}.yaml") for n in ("short", "official")
    )
    networks = ("tde", "oltr", "bbn", "hybrid_sc", "hybrid_psc")
    others = [cell for cell in short if cell.method in networks]
    changes = [changes_of(cell.settings, cell.method, cell.preset) for cell in short]
    margins = [each for each in changes if "tau" in each]
    # There the contrastive and meta-embedding rows are left out, and margins are of one ratio.
    left_out = {"oltr", "hybrid_psc"}
    assert {cell.method for cell in short} - {cell.method for cell in official} == left_out
    at_every_ratio = len(short) - len(left_out) - len(margins)
    assert len(official) == 3 * at_every_ratio + len(margins) == 3 * 23 + 2
    assert (len(others), len(margins)) == (5, 2)
    assert {cell.settings.data.imbalance_ratio for cell in short} == {100}
    assert {cell.settings.data.imbalance_ratio for cell in official} == {50, 100, 200}
    pairs = list(zip(short, changes, strict=True))
    assert sum(cell.method == "gcl_crt" and not each for cell, each in pairs) == 3
    changed = [(cell.method, json.dumps(each)) for cell, each in pairs if each]
    assert len(changed) == len(set(changed)) == 3 + 3 + 2 + len(margins)
    for cell, each in pairs:
        first, second = cell.settings.stage1.objective, cell.settings.stage2
        if "strategy" in each:
            assert first.strategy == second.objective.strategy != "log"
            assert first.exponent == second.objective.exponent
