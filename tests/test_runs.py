"""A run's folder: its name, who may use it, and what it refuses and leaves alone."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import GCLError, files
from gcl_core.training import runs
from gcl_core.training.runs import RunFolder, identity_hash, versions

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


ABOUT = {"dataset": "toy"}


def folder_of(place, **identity):
    return RunFolder(place / "runs", identity, ABOUT)


def history(epochs):
    return [
        {"epoch": e + 1, "lr": 0.1, "train_loss": 1 / (e + 3), "few": None} for e in range(epochs)
    ]


@pytest.fixture
def folder(tmp_path):
    return folder_of(tmp_path, lr=0.1, counts=(3, 2))


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_the_name_is_a_hash_of_the_settings_alone(identity):
    name = identity_hash(identity)
    assert len(name) == 16
    assert int(name, 16) >= 0
    assert identity_hash(dict(reversed(identity.items()))) == name
    assert identity_hash(json.loads(json.dumps(identity))) == name
    assert identity_hash({**identity, "one more": 1}) != name


def test_the_name_depends_on_the_version_of_results(tmp_path, folder, monkeypatch):
    assert folder.path == folder_of(tmp_path, counts=[3, 2], lr=0.1).path
    assert folder.path != folder_of(tmp_path, counts=[3, 2], lr=0.2).path
    monkeypatch.setattr(runs, "RESULTS_VERSION", runs.RESULTS_VERSION + 1)
    assert folder.path != folder_of(tmp_path, lr=0.1, counts=(3, 2)).path


def test_settings_and_versions_are_written_once(folder):
    with folder.opened():
        pass
    file = folder.path / "settings.json"
    content = json.loads(file.read_text())
    assert (content["identity"], content["about"]) == (folder.identity, ABOUT)
    assert content["versions"]["torch"] == version("torch")
    assert content["versions"]["threads"] == 1
    stamp = file.stat().st_mtime_ns
    with folder.opened():
        assert file.stat().st_mtime_ns == stamp
    assert {"python", "gcl-core", "cpu", "gpu", "machine"} <= versions().keys()


def test_checkpoint_metrics_and_result(folder):
    with folder.opened():
        assert folder.load_checkpoint() is None
        assert folder.result is None
        for epochs in (1, 2):
            state = {"module": {"w": torch.ones(3) * epochs}, "history": history(epochs)}
            folder.save_checkpoint(state, [{"epoch": epochs, "train_seconds": 0.5}])
        loaded = folder.load_checkpoint()
        assert loaded["history"] == history(2)
        assert torch.equal(loaded["module"]["w"], torch.ones(3) * 2)
        assert folder.metrics == [
            {k: "" if v is None else str(v) for k, v in row.items()} for row in history(2)
        ]
        text = (folder.path / "metrics.csv").read_text()
        assert text == f"epoch,lr,train_loss,few\n1,0.1,{1 / 3},\n2,0.1,0.25,\n"
        assert (folder.path / "timing.csv").read_text() == "epoch,train_seconds\n1,0.5\n2,0.5\n"
        folder.finish({"top1": 50.0})
        assert folder.result == {"top1": 50.0}


def test_leftovers_of_a_killed_process_are_removed(folder):
    with folder.opened():
        pass
    leftover, at_work = (
        folder.path / f".{name}.tmp" for name in ("checkpoint.pt.abc", "model.pt.d")
    )
    for file in (leftover, at_work):
        file.write_bytes(b"half")
    with files._held(at_work), folder.opened():
        assert not leftover.exists()
        assert at_work.exists()


def test_a_folder_of_other_settings_is_refused(folder):
    with folder.opened():
        pass
    file = folder.path / "settings.json"
    changed = file.read_text().replace("0.1", "0.2")
    file.write_text(changed)
    with pytest.raises(GCLError, match="holds a run of other settings.*--runs"), folder.opened():
        pass
    assert file.read_text() == changed


@pytest.mark.parametrize("content", ["[]", "{}", "null"])
def test_foreign_settings_are_refused(folder, content):
    folder.path.mkdir(parents=True)
    (folder.path / "settings.json").write_text(content)
    with pytest.raises(GCLError, match="holds a run of other settings"), folder.opened():
        pass


def test_files_without_settings_are_refused(folder):
    folder.path.mkdir(parents=True)
    (folder.path / "thesis.txt").write_text("mine")
    with pytest.raises(GCLError, match="holds files but no settings.json"), folder.opened():
        pass
    assert (folder.path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["result.json", "settings.json"])
def test_a_damaged_file_is_refused_by_name(folder, name):
    with folder.opened():
        folder.finish({"top1": 1.0})
    (folder.path / name).write_text('{"top1": 1')
    with pytest.raises(GCLError, match=name), folder.opened():
        assert folder.result
    assert (folder.path / name).read_text() == '{"top1": 1'


def test_a_checkpoint_of_another_run_is_refused(tmp_path, folder):
    other = folder_of(tmp_path, lr=0.3)
    for one in (folder, other):
        with one.opened():
            one.save_checkpoint({"module": {}, "history": history(1)}, [])
    content = other.checkpoint_file.read_bytes()
    folder.checkpoint_file.write_bytes(content)
    with pytest.raises(GCLError, match="is not a checkpoint of this run; move it away"):
        folder.load_checkpoint()
    assert folder.checkpoint_file.read_bytes() == content


def test_a_place_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for runs_folder in (tmp_path / "file", tmp_path / "file" / "below"):
        folder = RunFolder(runs_folder, {}, ABOUT)
        with pytest.raises(GCLError, match="cannot use run folder"), folder.opened():
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_free_again_after_a_failure(folder):
    with pytest.raises(RuntimeError), folder.opened():
        raise RuntimeError
    with folder.opened():
        pass


def test_a_file_that_a_full_disk_left_empty_gets_its_first_line(folder):
    with folder.opened():
        (folder.path / "timing.csv").write_text("")
        folder.save_checkpoint({"history": []}, [{"epoch": 1, "train_seconds": 2.0}])
    assert (folder.path / "timing.csv").read_text() == "epoch,train_seconds\n1,2.0\n"


def test_a_finished_folder_can_be_one_that_is_only_read(folder, monkeypatch):
    with folder.opened():
        folder.finish({"top1": 1.0})

    def times():
        return {file: file.stat().st_mtime_ns for file in (folder.path, *folder.path.iterdir())}

    before = times()

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runs.filelock.FileLock, "acquire", refuse)
    with folder.opened():
        assert folder.result == {"top1": 1.0}
    assert not folder.in_use
    assert times() == before


def test_who_only_looks_is_not_taken_for_one_at_work(folder, monkeypatch):
    with folder.opened():
        assert RunFolder(folder.path.parent, {"lr": 0.1, "counts": (3, 2)}, ABOUT).in_use
    monkeypatch.setattr(runs, "LOOK_SECONDS", 60)  # however slow the machine is
    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(lambda _: folder.in_use, range(400)))


def test_one_process_at_a_time(folder):
    """A second process says that it waits, and goes on when the first is done."""
    code = (
        "import logging, sys; from pathlib import Path\n"
        "from gcl_core.training.runs import RunFolder\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "with RunFolder(Path(sys.argv[1]), {'lr': 0.1, 'counts': (3, 2)}, {}).opened():\n"
        "    print('mine')\n"
    )
    command = [sys.executable, "-c", code, str(folder.path.parent)]
    with folder.opened():
        other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert "another process is working on this run; waiting" in other.stderr.readline()
        assert other.poll() is None
    assert other.communicate(timeout=60) == ("mine\n", "")
