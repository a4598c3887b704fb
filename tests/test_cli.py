"""The command line: its output for people and programs, and one line for whatever is wrong."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from gcl_core import cli, hardware
from gcl_core.benchmark.plain import plain_accuracy
from gcl_core.data import split_image_folder
from gcl_core.data.sources import DATASETS
from gcl_core.errors import GCLError
from gcl_core.methods import registry
from gcl_core.methods.registry import METHODS
from gcl_core.methods.settings import flat_settings
from gcl_core.results.page import page_blocks
from gcl_core.results.records import load_records
from gcl_core.training import two_stages
from processes import forked, python
from sabotage import set_threads
from test_readme import ROOT
from toys import image_folder

SMALL = ["--epochs", 2, "--stage2-epochs", 1, "--n-max", 40, "--imbalance-ratio", 10]


def main(*arguments):
    return cli.main([str(word) for word in arguments])


def test_a_run_and_its_json(tmp_path):
    done = forked("train", *SMALL, "--seed", 3, "--runs", tmp_path, "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    keys = ["top1", "many", "medium", "few", "per_class", "class_names", "epochs", "run"]
    assert list(result) == keys
    assert len(result["per_class"]) == 10
    assert result["top1"] == pytest.approx(sum(result["per_class"]) / 10)
    assert all(0 <= x <= 100 for x in result["per_class"])
    assert result["epochs"] == [2, 1]
    folder = tmp_path / result["run"].rpartition("/")[2]
    assert json.loads((folder / "result.json").read_text())["top1"] == result["top1"]
    assert json.loads((folder / "settings.json").read_text())["identity"]["seed"] == 3
    for text in ("class counts [40, ", "imbalance ratio 10", "gcl_crt, float32, seed 3"):
        assert text in done.err
    assert re.findall(r"stage \d: epoch \d/\d", done.err) == [
        "stage 1: epoch 1/2",
        "stage 1: epoch 2/2",
        "stage 2: epoch 1/1",
    ]
    assert "optimistic" in done.err
    again = forked("train", *SMALL, "--seed", 3, "--runs", tmp_path, "--json")
    assert again.out == done.out
    assert "epoch 1/" not in again.err  # reused


@pytest.mark.parametrize(
    ("asked", "variable", "threads"), [(2, None, 2), (2, "1", 2), (None, "2", 2), (None, None, 1)]
)
def test_threads_are_those_asked_for_and_one_for_digits(tmp_path, asked, variable, threads):
    words = ("--threads", asked) if asked else ()
    sabotage = functools.partial(set_threads, variable)
    words = (*SMALL, *words, "--runs", tmp_path)
    assert forked("train", *words, sabotage=sabotage).status == 0
    found = [json.loads(file.read_text()) for file in tmp_path.rglob("settings.json")]
    assert [each["versions"]["threads"] for each in found] == [threads, threads]


@pytest.mark.parametrize(
    ("network", "idle", "processes", "threads"),
    [
        *(("resnet32", 8, 1, 8), ("resnet32", 3, 1, 3), ("resnet32", 64, 1, 8)),
        *(("resnet32", 0, 1, 1), ("resnet32", 8, 2, 4), ("resnet32", 1, 2, 1)),
        ("digits_cnn", 8, 1, 1),
    ],
)
def test_threads_are_for_idle_cores(monkeypatch, network, idle, processes, threads):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", (used := []).append)
    monkeypatch.setattr(hardware, "idle_cores", lambda: idle)
    hardware.use_threads(None, network, processes)
    assert used == [threads]
    assert os.environ["OMP_NUM_THREADS"] == str(threads)


@pytest.mark.parametrize("command", ["study", "notebooks", "students", "tables"])
def test_what_is_made_of_the_project_says_where_it_works(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 1
    assert "this command works inside a copy of the project" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("supported", [False, True])
def test_emulated_bfloat16_is_said(tmp_path, monkeypatch, supported, caplog):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    words = ("--method", "ce", "--preset", "smoke", "--epochs", 1, "--precision", "bfloat16")
    assert main("train", *words, "--runs", tmp_path) == 0
    assert ("emulated" in caplog.text) is not supported


def test_idle_cores_are_counted(monkeypatch):
    lines = iter(["cpu  9 1 5 80 5 0 0 0 7 7\n", "cpu  59 1 55 170 15 0 0 0 7 7\n"])
    monkeypatch.setattr(hardware.Path, "read_text", lambda path: next(lines))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert hardware.idle_cores(seconds=0) == 4


def test_a_run_is_added_to_a_record_file_once(tmp_path):
    file = tmp_path / "results" / "mine.json"
    for method in ("gcl", "gcl_crt", "gcl"):
        words = SMALL if method == "gcl_crt" else [*SMALL[:2], *SMALL[4:]]
        assert main("train", "--method", method, *words, "--runs", tmp_path, "--record", file) == 0
    kept = load_records(file)
    assert [(r["method"], r["preset"], r["epochs"]) for r in kept] == [
        ("gcl_crt", "digits", [2, 1]),
        ("gcl", "digits", [2]),
    ]
    assert [len(rows) for rows in kept[0]["history"]] == [2, 1]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="for a folder that takes no file")
@pytest.mark.parametrize("place", ["/proc/records.json", "."])
def test_a_record_file_that_cannot_be_made_is_not_waited_for(tmp_path, capsys, place):
    assert main("train", *SMALL, "--runs", tmp_path / "runs", "--record", place) == 1
    assert place in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("case", ["damaged", "of something else", "below a file"])
def test_a_record_file_that_cannot_be_is_refused_before_the_training(tmp_path, capsys, case):
    file = tmp_path / "mine.json"
    file.write_text("{" if case == "damaged" else '{"format": 1}')
    target = file / "more.json" if case == "below a file" else file
    content = file.read_text()
    assert main("train", *SMALL, "--runs", tmp_path / "runs", "--record", target) == 1
    assert str(file) in capsys.readouterr().err.splitlines()[-1]
    assert file.read_text() == content
    assert not (tmp_path / "runs").exists()


def test_home_is_known_where_the_shell_does_not_say_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("{")
    assert main("train", *SMALL, "--runs=~/runs", "--record=~/mine.json") == 1
    assert f"cannot read {tmp_path}/mine.json" in capsys.readouterr().err
    (tmp_path / "mine.json").unlink()
    assert main("train", "--method", "ce", "--preset", "smoke", "--runs=~/runs") == 0
    assert (tmp_path / "runs").is_dir() and not (tmp_path / "~").exists()


def test_a_folder_of_images_from_the_command_line(tmp_path):
    images = image_folder(tmp_path / "images", train=20)
    done = forked(
        *("train", "--dataset", f"folder:{images}", "--method", "ce", "--epochs", 1),
        *("--imbalance-ratio", 4, "--network", "digits_cnn", "--runs", tmp_path / "runs", "--json"),
    )
    assert done.status == 0, done.err
    assert "class counts [20, 10, 5]" in done.err
    assert "decoding 69 images" in done.err
    assert len(json.loads(done.out)["per_class"]) == 3


def test_methods_and_datasets_are_listed(capsys):
    assert main("methods") == 0
    listing = capsys.readouterr().out
    width = max(map(len, METHODS)) + 1  # all texts begin in one column
    for line in listing.splitlines():
        assert line[width - 1] == " " and line[width : width + 1].strip()
    assert main("methods", "--json") == 0
    parsed = json.loads(capsys.readouterr().out)
    assert list(parsed) == list(METHODS)
    for name, method in METHODS.items():
        assert name in listing
        assert method.summary in listing
        assert parsed[name] == {"summary": method.summary, "source": method.source}
    assert main("datasets") == 0
    listing = capsys.readouterr().out
    assert main("datasets", "--json") == 0
    parsed = json.loads(capsys.readouterr().out)
    assert list(parsed) == list(DATASETS)
    assert all(name in listing and text in listing for name, text in parsed.items())


def test_compare_needs_two_seeds_for_an_error(tmp_path, capsys):
    assert main("compare", "--seeds", 1, "--runs", tmp_path) == 1
    assert "--seeds: must be a whole number from 2 to 1024, got '1'" in capsys.readouterr().err


def test_compare_is_of_both_loops(tmp_path, capsys):
    words = ("--epochs", 1, "--seeds", 2, "--imbalance-ratio", "none", "--runs", tmp_path)
    assert main("compare", *words, "--json") == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    same = {"imbalance_ratio": None, "epochs": 1}
    settings = [registry.resolve("digits", "ce", seed=seed, **same) for seed in (0, 1)]
    assert said["plain"] == [round(plain_accuracy(each), 2) for each in settings]
    fast = [two_stages.run(each, tmp_path, progress="none").result["top1"] for each in settings]
    assert said["fast"] == [round(top1, 2) for top1 in fast]


def test_tables_are_checked_and_renewed(tmp_path, monkeypatch, capsys):
    (tmp_path / "gcl_core").mkdir()
    (tmp_path / "gcl_core" / "__init__.py").touch()  # what makes a folder the project's
    pages = {page: (ROOT / page).read_text() for page in page_blocks(ROOT / "results")}
    shutil.copytree(ROOT / "results", tmp_path / "results")
    (tmp_path / "docs").mkdir()
    for page, text in pages.items():
        (tmp_path / page).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main("tables", "--check") == 0
    drifted = pages["results/README.md"].replace("| 82.68 |", "| 82.86 |", 1)
    (tmp_path / "results" / "README.md").write_text(drifted)
    assert main("tables", "--check") == 1
    assert "results/README.md: out of step" in capsys.readouterr().out
    assert (tmp_path / "results" / "README.md").read_text() == drifted
    assert not (tmp_path / "figures").exists()
    assert main("tables") == 0
    assert {page: (tmp_path / page).read_text() for page in pages} == pages
    for name in ("table1", "cifar10-jpeg"):
        file = f"figures/{name}.json"  # with the runs that are in the picture
        assert (tmp_path / file).read_text() == (ROOT / file).read_text()


def test_help_of_training_has_every_setting(capsys):
    with pytest.raises(SystemExit) as stop:
        main("train", "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    options = set(re.findall(r"^  (--[\w-]+)", text, re.MULTILINE))
    for method in registry.METHODS:
        for name in flat_settings(registry.resolve("digits", method, "official")):
            assert f"--{name.replace('_', '-')}" in options
    for option in ("--dataset", "--method", "--preset", "--runs", "--json", "--accelerator"):
        assert option in text
    assert "published code" in text  # where the values come from
    assert max(map(len, text.splitlines())) <= 130


@pytest.mark.parametrize(
    "command", ["methods", "datasets", "bench", "study", "grid", "tables", "notebooks"]
)
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main(command, "--help")
    assert stop.value.code == 0
    assert f"python -m gcl_core {command}" in capsys.readouterr().out


SLOW = {"torchvision", "sklearn", "scipy", "lightning_fabric", "dask", "matplotlib", "pandas"}


QUICK = ["--help", "grid run --help", "traing", "train --threads none"]
QUICK_WITH_TORCH = [
    *("train --help", "methods", "datasets", "compare --imbalance-ratio 0", "train --resume"),
    *("train --method nothing", "train --lr 0", "train --dataset mnist"),
    "train --dataset folder:nowhere",
]


@pytest.mark.parametrize(
    ("commands", "slow"), [(QUICK, {*SLOW, "torch"}), (QUICK_WITH_TORCH, SLOW)]
)
def test_help_and_refusals_wait_for_nothing_that_they_do_not_need(commands, slow):
    code = f"""
import contextlib, sys
from gcl_core.cli import main
for words in {commands}:
    with contextlib.suppress(SystemExit):
        main(words.split())
    print(words, "loaded:", *({slow} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert [line for line in said if " loaded: " in line or line.endswith(" loaded:")] == [
        f"{words} loaded:" for words in commands
    ]


@pytest.mark.parametrize(
    ("program", "called"),
    [("/bin/gcl", "gcl"), ("C:/gcl.exe", "gcl"), ("gcl_core/__main__.py", "python -m gcl_core")],
)
def test_usage_names_what_was_called(monkeypatch, capsys, program, called):
    monkeypatch.setattr(sys, "argv", [program, "train", "--threads", "0"])
    assert cli.main() == 1
    assert capsys.readouterr().err.endswith(f"; see {called} train --help\n")


def test_a_missing_package_is_named_with_what_brings_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "yaml", None)
    for name in ("cells", "commands"):
        monkeypatch.delitem(sys.modules, f"gcl_core.grid.{name}", raising=False)
    assert main("grid", "plan", "x.yaml") == 1
    assert capsys.readouterr() == ("", "gcl: grid needs yaml: pip install 'gcl-core[grid]'\n")


def test_a_missing_package_that_no_extra_brings_is_no_matter_of_the_user(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcl_core.methods.registry", None)
    with pytest.raises(ModuleNotFoundError, match="registry"):
        main("methods")


def test_a_folder_is_split(tmp_path, capsys):
    images = image_folder(tmp_path / "images", train=8) / "train"
    assert (
        main("split", images, tmp_path / "out", "--share", 0.25, "--validation", 0.125, "--seed", 3)
        == 0
    )
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'out' / 'test'}: 6 images of 3 classes",
        f"{tmp_path / 'out' / 'train'}: 15 images of 3 classes",
        f"{tmp_path / 'out' / 'val'}: 3 images of 3 classes",
    ]
    split_image_folder(images, tmp_path / "same", share=0.25, validation=0.125, seed=3)
    out, same = (
        {p.relative_to(f) for p in f.rglob("*")} for f in map(tmp_path.joinpath, ("out", "same"))
    )
    assert out == same
    assert main("split", images, tmp_path / "out") == 1
    assert f"{tmp_path / 'out'} has files in it" in capsys.readouterr().err


def test_settings_are_taken_in_both_spellings():
    changes = cli.overrides(["--stage2-lr=0.5", "--epochs", "3", "--margin", "-0.1", "--flip=a=b"])
    assert changes == {"stage2_lr": "0.5", "epochs": "3", "margin": "-0.1", "flip": "a=b"}
    assert cli.overrides(["--n-max", "--seed", "3", "--lr"]) == {"n_max": "", "seed": "3", "lr": ""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["epochs"], "unexpected argument 'epochs'; settings are given as --name value"),
        (["-e", "3"], "unexpected argument '-e'"),
        (["--epochs", "3", "--epochs=4"], "--epochs=4 is given twice"),
    ],
)
def test_words_that_are_no_settings_are_refused(words, message):
    with pytest.raises(GCLError, match=re.escape(message)):
        cli.overrides(words)


def test_options_reach_the_settings(tmp_path, monkeypatch):
    seen = []

    def stop(settings, runs, **options):
        seen.append((settings, runs, options["accelerator"], options["progress"]))
        raise GCLError("far enough")

    monkeypatch.setattr(two_stages, "run", stop)
    status = main(
        *("train", "--method", "ce_mixup_crt", "--preset", "paper", "--imbalance_ratio", 20),
        *("--epochs=7", "--stage2-sampler", "cben", "--stage2-sampler-a", 0.5, "--seed", 4),
        *("--runs", tmp_path, "--accelerator", "cpu", "--progress", "none"),
    )
    assert status == 1
    ((settings, *rest),) = seen
    expected = registry.resolve(
        *("digits", "ce_mixup_crt", "paper"),
        epochs=7,
        stage2_sampler="cben",
        stage2_sampler_a=0.5,
        seed=4,
        imbalance_ratio=20,
    )
    assert settings == expected
    assert rest == [tmp_path, "cpu", "none"]


# What is wrong


def ruin(images, case):
    """Make a folder of images unfit; returns what the message must name."""
    victim = images / "train" / "bee" / "2.png"
    if case == "missing":
        return images / "elsewhere"
    if case == "empty":
        (images / "elsewhere").mkdir()
    elif case == "class without an image":
        for file in victim.parent.iterdir():
            file.unlink()
        return victim.parent
    elif case == "unreadable image":
        victim.write_bytes(victim.read_bytes()[:50])
    elif case == "one class":
        for split in ("train", "test"):
            for name in ("bee", "cow"):
                for file in (images / split / name).iterdir():
                    file.unlink()
                (images / split / name).rmdir()
        return "one class only"
    return images / "elsewhere" if case == "empty" else victim


@pytest.mark.parametrize(
    "case", ["missing", "empty", "class without an image", "unreadable image", "one class"]
)
def test_a_bad_folder_is_one_line_and_leaves_nothing(tmp_path, cache, case):
    images = image_folder(tmp_path / "images")
    named = ruin(images, case)
    source = named if case in ("missing", "empty") else images
    options = ("--dataset", f"folder:{source}", "--method", "ce", "--imbalance-ratio", "none")
    outcome = forked("train", *options, "--runs", tmp_path / "runs")
    assert str(named) in outcome.refusal
    assert [x for x in outcome.err.splitlines() if not x.startswith("decoding")] == [
        outcome.refusal
    ]
    assert not (tmp_path / "runs").exists()
    assert not cache.exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--imbalance-ratio", 0.5], "imbalance_ratio must be >= 1, got 0.5"),
        (["--imbalance-ratio", 500], "leaves the last class without an image: .* at most 124"),
        (["--class-counts", "5,0,3"], "class_counts must be >= 1, got 0"),
        (["--class-counts", "5,4,3"], "class_counts names 3 classes, digits has 10"),
        (
            ["--class-counts", "999,1,1,1,1,1,1,1,1,1"],
            "class '0' has 128 .*images, 999 are asked for",
        ),
        (["--method", "gcl_ctr"], r"'gcl_ctr' is unknown .did you mean gcl_crt\?.; allowed: ce,"),
        (["--method", "GCL-CRT"], r"method 'GCL-CRT' is unknown .did you mean gcl_crt\?"),
        (["--dataset", "Folder:x/y"], r"dataset 'Folder:x/y' is unknown .did you mean folder\?"),
        (["--dataset", "x/y"], "dataset 'x/y' is unknown; .*; a folder of images is folder:x/y"),
        (["--dataset", "folder:a  b"], "no such folder: 'a  b'"),
        (["--record="], "argument --record: must be a path, got ''"),
        (
            ["--preset", "long"],
            "preset 'long' is unknown; allowed: official, paper, short, digits, smoke",
        ),
        (["--dataset", "mnist"], "dataset 'mnist' is unknown; allowed: digits"),
        (["--epohcs", 3], "unknown setting 'epohcs' .did you mean epochs"),
        (["--epochs", "three"], "epochs must be a whole number, got 'three'"),
        (["--epochs"], "epochs must be a whole number, got ''"),
        (["--sampler", "--epochs", 3], "sampler '' is unknown; allowed: instance"),
        (["--resume"], "unknown setting 'resume'.*; allowed: "),
        (["--batch-size", 2**64], "batch_size must be <= 1048576, got 18446744073709551616"),
        (["extra"], "unexpected argument 'extra'"),
        (["--threads", 0], "--threads: must be a whole number from 1 to 1024, got '0'"),
        (["--threads", "9" * 5000], "--threads: must be a whole number from 1 to 1024, got '999"),
        (["--accelerator", "tpu"], "--accelerator: invalid choice: 'tpu'"),
    ],
)
def test_a_bad_setting_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, named):
    assert main("train", *arguments, "--runs", tmp_path / "runs") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gcl: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert re.search(named, err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "required: COMMAND"),
        (["traing"], "invalid choice: 'traing'"),
        (["methods", "extra"], "unrecognized arguments: extra"),
        (["grid"], "required: ACTION"),
        (["grid", "run"], "required: FILE"),
        (["grid", "plan", "x.yaml", "extra"], "unrecognized arguments: extra"),
        (["bench", "--rounds", 0], "--rounds: must be a whole number from 1 to 1024, got '0'"),
    ],
)
def test_a_bad_command_is_one_line(capsys, arguments, named):
    assert main(*arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gcl: ")
    assert err.count("\n") == 1
    assert named in err
    assert "--help" in err


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_runs_that_cannot_be_written_are_one_line(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    outcome = forked("train", *SMALL, "--runs", tmp_path / place)
    assert f"cannot use run folder {tmp_path / place}" in outcome.refusal
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_without_write_permission_is_one_line(tmp_path):
    (tmp_path / "runs").mkdir(mode=0o500)
    try:
        (tmp_path / "runs" / "probe").mkdir()
    except PermissionError:
        outcome = forked("train", *SMALL, "--runs", tmp_path / "runs")
        assert "Permission denied" in outcome.refusal
    else:
        pytest.skip("this user may write everywhere")


@pytest.mark.parametrize(
    ("method", "named"), [("ce", "the training loss is"), ("gcl", "is not finite")]
)
def test_a_loss_that_explodes_is_one_line_and_leaves_no_result(tmp_path, method, named):
    wild = ("--epochs", 2, "--lr", 1000, "--weight-decay", 1000)
    outcome = forked("train", "--method", method, *wild, "--runs", tmp_path)
    assert named in outcome.refusal
    (folder,) = tmp_path.iterdir()
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "settings.json"]


def test_errors_of_several_lines_become_one(monkeypatch, capsys, tmp_path):
    def fail(*arguments, **options):
        raise GCLError("one\n  two\nthree")

    monkeypatch.setattr(two_stages, "run", fail)
    assert main("train", *SMALL, "--runs", tmp_path) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "gcl: one two three"


def test_the_real_command_refuses_in_one_line(tmp_path):
    outcome = python("train", "--method", "nothing", "--runs", tmp_path / "runs")
    assert outcome.refusal == outcome.err.strip()
    assert "method 'nothing' is unknown" in outcome.refusal


def test_several_processes_speak_with_one_voice(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main("train", "--method", "nothing") == 1
    assert capsys.readouterr() == ("", "")


def test_two_processes_train_one_network(tmp_path):
    """Started by the command itself, both stages; the last batch has one image."""
    options = ("--devices", 2, "--accelerator", "cpu", "--threads", 1, "--json")
    done = python("train", *SMALL, *options, "--batch-size", 33, "--runs", tmp_path)
    assert done.status == 0, done.err
    assert len(done.out.splitlines()) == 1
    result = json.loads(done.out)
    assert 0 < result["top1"] <= 100
    assert len(re.findall("stage 1: epoch 2/2", done.err)) == 1
    assert "Traceback" not in done.err
    assert "Warning" not in done.err  # DDP has one for every process
    assert not list(tmp_path.rglob("*.tmp"))
    assert len(list(tmp_path.rglob("result.json"))) == 2
