"""The folder for a bare GPU machine: what is in it, what it leaves, and what it refuses."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement

from bits import checkpoints, equal, tree
from gcl_core.data import sources
from gcl_core.data.load import load_dataset
from gcl_core.errors import GCLError
from gcl_core.grid.cells import cells_of
from gcl_core.grid.parquet import records_of
from gcl_core.grid.steps import jobs_of, state_of
from gcl_core.results.records import load_records
from gcl_core.training.two_stages import run
from test_environment import GRID, ROOT
from test_sources import write_class_folders
from test_wheel import needed


def script(name):
    """A program of the bundle, as a module."""
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", ROOT / "gpu" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bundle, carry, check, ready = map(script, ("bundle", "carry", "check", "ready"))
CELLS = """dataset: cifar10
preset: smoke
settings: {n_max: 6}
cells:
  - {method: ce, imbalance_ratio: [2, 3], data_seed: [0, 1]}
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes a bundle of a small CIFAR-10, two of whose images are equal; without packages."""
    monkeypatch.setattr(sources, "CIFAR_TEST_IMAGES", 10)
    monkeypatch.setattr(bundle, "_packages", lambda folder: folder.mkdir())
    pixels = np.random.default_rng(0).integers(0, 256, (150, 3072), dtype=np.uint8)
    pixels[10] = pixels[0]
    images = {"train": (pixels, [i % 10 for i in range(150)]), "test": (pixels[:10], range(10))}
    write_class_folders(tmp_path / "cifar", "cifar10", images)

    def make(cells=CELLS, dataset=f"cifar10:{tmp_path / 'cifar'}"):
        (tmp_path / "grid.yaml").write_text(cells)
        bundle.bundle(tmp_path / "bundle", dataset, tmp_path / "grid.yaml")
        return tmp_path / "bundle"

    return make


# Making it


def test_its_cells_train_on_the_very_images_of_the_project(tmp_path, made):
    folder = made()
    names = {"grid.yaml", "content.tar.xz", *bundle.CARRIED}
    assert {each.name for each in folder.iterdir()} == names
    shutil.unpack_archive(folder / "content.tar.xz", folder / "content", filter="data")
    theirs = cells_of(folder / "grid.yaml")
    ours = cells_of(tmp_path / "grid.yaml", dataset=f"cifar10:{tmp_path / 'cifar'}")
    assert [cell.name for cell in theirs] == [cell.name for cell in ours]
    data = [[load_dataset(cell.settings.data) for cell in cells] for cells in (theirs, ours)]
    assert [each.described for each in data[0]] == [each.described for each in data[1]]
    assert len({each.fingerprint for each in data[1]}) == 4
    # No image is there that no cell trains on.
    train = list((folder / "content" / "images" / "train").rglob("*.webp"))
    assert max(len(each.train) for each in data[1]) < len(train) < 150


def test_it_has_the_packages_that_a_machine_with_torch_and_lightning_lacks():
    base = ("torch", "torchvision", "pandas", "pyarrow", "scikit-learn", "lightning-utilities")
    there = needed(map(Requirement, (*base, "tqdm", "pyyaml", "fsspec", "packaging")))
    older = needed([Requirement("importlib-metadata")])  # Dask's, up to Python 3.11
    ours = needed(GRID.values()).keys()
    assert ours - there.keys() - older.keys() <= set(bundle.LACKING) <= ours


def test_its_packages_are_ours_without_the_photographs(tmp_path, monkeypatch):
    called = []

    def pip(*words):
        called.append(words)
        built = {each.relative_to(source).as_posix() for each in source.rglob("*")}
        assert {"pyproject.toml", "gcl_core/report/page.html"} <= built
        assert not [each for each in built if "embedded" in each or "__pycache__" in each]
        (source / "gcl_core-0.1.0-py3-none-any.whl").touch()

    source = tmp_path / "source"
    monkeypatch.setattr(bundle, "_pip", pip)
    bundle._packages(tmp_path / "site")
    assert [words[0] for words in called] == ["wheel", "install"]
    assert str(source / "gcl_core-0.1.0-py3-none-any.whl") in called[1]
    pinned = [word.partition("==")[0] for word in called[1] if not word.startswith(("-", "/"))]
    assert pinned == ["install", *bundle.LACKING]
    assert not source.exists()


@pytest.mark.parametrize(
    ("cells", "dataset", "refusal"),
    [
        (CELLS, "digits", r"images of cifar10 or cifar100 \(.*\), got digits"),
        ("cells: [{method: ce}]\n", None, "must name its dataset in one line"),
        (CELLS.replace("n_max: 6", "n_max: 16"), None, "has 15 training images, 16 are asked for"),
    ],
)
def test_what_no_bundle_can_be_made_of_is_refused(tmp_path, made, cells, dataset, refusal):
    with pytest.raises(GCLError, match=refusal):
        made(cells, *filter(None, [dataset]))
    assert not list(tmp_path.glob("*bundle*"))


def no_space(*arguments, **options):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("name", "value", "refusal"),
    [
        ("LARGEST", 2**10, "the bundle has 0.2 MiB, more than 0; a grid of greater ratios has"),
        ("_packages", no_space, "[Errno 28] No space left on device"),
    ],
)
def test_one_that_finds_no_room_is_not_there(
    tmp_path, monkeypatch, capsys, made, name, value, refusal
):
    monkeypatch.setattr(bundle, name, value)
    words = ["--grid", tmp_path / "grid.yaml", "--out", tmp_path / "bundle"]
    words += ["--dataset", f"cifar10:{tmp_path / 'cifar'}"]
    (tmp_path / "grid.yaml").write_text(CELLS)
    monkeypatch.setattr(sys, "argv", ["bundle.py", *map(str, words)])
    assert bundle.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gpu-bundle: {refusal}")
    assert not list(tmp_path.glob("*bundle*"))


# On the machine


@pytest.fixture
def there(tmp_path):
    """Runs run.sh on another machine, where Python only says what it was to run."""
    machine = tmp_path / "machine"
    (tmp_path / "content" / "site").mkdir(parents=True)
    machine.mkdir()
    with tarfile.open(machine / "content.tar.xz", "w:xz") as archive:
        (tmp_path / "content" / "site" / "large").write_bytes(b"x" * 2**12)
        archive.add(tmp_path / "content", ".")
    shutil.copy(ROOT / "gpu" / "run.sh", machine)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then exec {sys.executable} "$@"; fi\necho "$@"\n'
        '[ "$1" != "$FAILING" ]\n'
    )
    python.chmod(0o755)

    def start(*words, before="", **variables):
        settings = {"PATH": os.environ["PATH"], "PYTHON": python, "FAILING": "none"}
        return subprocess.run(
            ["sh", "-c", f'{before} exec ./run.sh "$@"', "sh", *words],
            cwd=machine,
            env={**settings, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return SimpleNamespace(folder=machine, start=start)


RUN = "-m gcl_core grid run grid.yaml --retry-failed --runs runs --accelerator"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "gpu --minutes 8 --per-gpu 3"),
        ({"PER_GPU": "5"}, "gpu --minutes 8 --per-gpu 5"),
        ({"ACCELERATOR": "cpu", "PER_GPU": "1"}, "cpu --minutes 8 --workers 1"),
    ],
)
def test_train_runs_the_grid_and_gathers_what_it_made(there, variables, words):
    done = there.start("train", "8", FAILING="-m", **variables)
    device = words.split()[0]
    carried = f"carry.py grid.yaml runs out {device}"
    assert done.stdout.splitlines() == [f"ready.py {device}", f"{RUN} {words}", carried]
    assert (done.returncode, done.stderr) == (1, "")  # the grid's own: something is left
    assert (there.folder / "content" / "site" / "large").exists()


def test_train_goes_on_with_what_an_earlier_session_left(tmp_path, there):
    (there.folder / "out" / "runs").mkdir(parents=True)
    whole = (there.folder / "content.tar.xz").read_bytes()
    for name, part in (("00", whole[:100]), ("01", whole[100:])):
        (there.folder / "out" / "runs" / name).write_bytes(part)
    assert there.start("train", "1", OUT=str(tmp_path / "other")).returncode == 0
    (there.folder / "runs" / "site" / "new").touch()
    assert there.start("train", "1").returncode == 0  # what is there already stays
    names = {each.name for each in (there.folder / "runs" / "site").iterdir()}
    assert names == {"large", "new"}


def test_check_ends_in_time(there):
    done = there.start("check")
    assert (done.returncode, done.stdout.splitlines()[1]) == (
        0,
        "check.py grid.yaml out/check.json gpu",
    )
    shutil.copy("/bin/true", there.folder / "timeout")  # that says that the time is over
    (there.folder / "timeout").write_text('#!/bin/sh\necho "$1"; exit 124\n')
    path = f"{there.folder}:{os.environ['PATH']}"
    for words, seconds in ((("check",), "240"), (("check", "20"), "1200")):
        done = there.start(*words, PATH=path)
        assert done.stdout.splitlines()[-1] == seconds
        assert done.stderr == (
            "run.sh: the time is over; what was known by then is in out/check.json\n"
        )
        assert done.returncode == 1


@pytest.mark.parametrize(
    ("words", "variables", "refusal"),
    [
        ((), {}, "say check, or train MINUTES, not ''"),
        (("bench",), {}, "say check, or train MINUTES, not 'bench'"),
        (("train",), {}, "MINUTES must be a whole number > 0, got ''"),
        (("train", "0"), {}, "MINUTES must be a whole number > 0, got '0'"),
        (("train", "1.5"), {}, "MINUTES must be a whole number > 0, got '1.5'"),
        (("train", "1"), {"PER_GPU": "0"}, "PER_GPU must be a whole number > 0, got '0'"),
        (("check",), {"ACCELERATOR": "tpu"}, "ACCELERATOR must be cpu or gpu, got 'tpu'"),
        (("check",), {"PYTHON": "no-python"}, "there is no no-python; PYTHON names another one"),
    ],
)
def test_other_words_are_refused(there, words, variables, refusal):
    before = set(there.folder.iterdir())
    done = there.start(*words, **variables)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"run.sh: {refusal}\n")
    assert set(there.folder.iterdir()) == before


def halved(folder):
    whole = (folder / "content.tar.xz").read_bytes()
    (folder / "content.tar.xz").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("change", "before", "reason"),
    [
        (halved, "", "ReadError: truncated header"),
        (lambda folder: None, "ulimit -f 2;", "File too large"),  # as a full disk refuses
    ],
)
def test_what_cannot_be_unpacked_leaves_nothing(there, change, before, reason):
    change(there.folder)
    done = there.start("check", before=before)
    (line,) = done.stderr.splitlines()
    assert line.startswith("run.sh: content cannot be unpacked here: ")
    assert reason in line
    assert (done.returncode, done.stdout) == (1, "")
    assert {each.name for each in there.folder.iterdir()} == {"run.sh", "content.tar.xz"}


def test_a_machine_that_is_not_fit_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    wanted = ["torch<2.13,>=2.11", "dask>=1; extra == 'grid'", "sphinx>=99; extra == 'docs'"]
    monkeypatch.setattr(ready, "requires", lambda name: wanted)
    found = {"torch": "2.11.0+cu130", "dask": "2"}
    monkeypatch.setattr(ready, "version", lambda name: found[name])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ready.main("cpu") is None
    assert "sees no GPU here; ACCELERATOR=cpu works without one" in ready.main("gpu")
    found["dask"] = "0.9"
    assert ready.main("cpu") is None
    unfit = 'this bundle is for dask>=1; extra == "grid", and here is 0.9'
    assert capsys.readouterr().err == f"run.sh: {unfit}; trying all the same\n"
    found["torch"] = "2.10.0"
    assert ready.main("cpu") == (
        "this bundle is for torch<2.13,>=2.11, and here is 2.10.0; make another one"
    )
    monkeypatch.undo()
    monkeypatch.setattr(ready, "requires", lambda name: ["no-such-package>=1"])
    assert ready.main("cpu") == (
        "this bundle needs no-such-package>=1, which is not installed here"
    )


SMALL = """dataset: digits
preset: smoke
settings: {n_max: 60, imbalance_ratio: 10}
cells:
  - {method: gcl_crt, stage2_sampler: [class, instance]}
"""


def test_what_is_carried_goes_on_elsewhere_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(carry, "PIECE", 2**14)
    (tmp_path / "grid.yaml").write_text(SMALL)
    cells = cells_of(tmp_path / "grid.yaml")
    here, out, elsewhere = tmp_path / "here", tmp_path / "out", tmp_path / "elsewhere"
    first, second = jobs_of(cells, here)

    def carried():
        carry.main(tmp_path / "grid.yaml", here, out, "auto")
        whole = b"".join(each.read_bytes() for each in sorted((out / "runs").iterdir()))
        (tmp_path / "whole.tar.gz").write_bytes(whole)
        shutil.rmtree(elsewhere, ignore_errors=True)
        shutil.unpack_archive(tmp_path / "whole.tar.gz", elsewhere, filter="data")
        assert load_records(out / "records.json") == records_of(jobs_of(cells, elsewhere))
        return {each.parent.name for each in elsewhere.rglob("checkpoint.pt")}

    run(first.cell.settings, here, progress="none")
    (second.folders[0].path / "half.tmp").touch()
    assert carried() == {second.folders[0].path.name}  # which a second stage is to start from
    assert len(list((out / "runs").iterdir())) > 1
    kinds = [state_of(job).kind for job in jobs_of(cells, elsewhere)]
    assert kinds == ["done", "left"]
    for place in (elsewhere, here):
        run(second.cell.settings, place, progress="none")
    assert tree(elsewhere) == tree(here)
    ended = second.folders[1].path.name
    assert equal(checkpoints(elsewhere)[ended], checkpoints(here)[ended])
    (second.folders[1].path / "result.json").unlink()  # as if it were interrupted
    assert carried() == {folder.path.name for folder in second.folders}
    run(second.cell.settings, here, progress="none")
    assert carried() == set()
    assert not list(elsewhere.rglob("model.pt"))


def test_check_writes_what_is_known_by_then(tmp_path, monkeypatch, capsys):
    (tmp_path / "grid.yaml").write_text(SMALL)
    out = tmp_path / "check.json"
    monkeypatch.setattr(check.joblib, "cpu_count", lambda: 1)
    monkeypatch.setattr(check, "METHODS", {m: check.METHODS[m] for m in ("ce", "gcl_crt", "bbn")})
    whole = check.run

    def some_fail(settings, *arguments, **words):
        if settings.stage1.objective.name == "bbn":
            raise RuntimeError("no such kernel\nand more")
        return whole(settings, *arguments, **words)

    monkeypatch.setattr(check, "run", some_fail)
    assert check.main(str(tmp_path / "grid.yaml"), str(out), "cpu") == 1
    found = json.loads(out.read_text())
    answers = {"ce": "equal", "gcl_crt": "equal", "bbn": "RuntimeError: no such kernel"}
    assert found["methods"] == answers
    assert all(rate > 0 for rate in found["steps_per_second"].values())
    assert found["versions"]["torch"] == version("torch")
    assert "gcl_crt: equal\n" in capsys.readouterr().out

    def cut_off(settings, *arguments, **words):
        if settings.stage2 is not None:
            raise KeyboardInterrupt
        return whole(settings, *arguments, **words)

    monkeypatch.setattr(check, "run", cut_off)
    with pytest.raises(KeyboardInterrupt):
        check.main(str(tmp_path / "grid.yaml"), str(out), "cpu")
    found = json.loads(out.read_text())
    assert found["methods"] == {"ce": "equal", "gcl_crt": "not reached", "bbn": "not reached"}
    assert set(found["steps_per_second"].values()) == {"not reached"}
