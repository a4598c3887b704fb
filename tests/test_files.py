"""Files are whole or absent, and what is not ours is refused by name and left alone."""

import errno
import multiprocessing
import os
import pickle
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import gcl_core
from gcl_core import GCLError
from gcl_core.errors import shown
from gcl_core.files import (
    atomic_folder,
    atomic_json,
    atomic_save,
    atomic_write,
    load_json,
    load_tensors,
    project_root,
)


def test_writing_replaces_the_whole_file(tmp_path):
    file = tmp_path / "a.bin"
    for data in (b"long content", b"short"):
        atomic_write(file, data)
        assert file.read_bytes() == data
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_and_folders_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "a.bin", b"x")
        with atomic_folder(tmp_path / "folder") as place:
            (place / "a.bin").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


def test_many_threads_write_one_file_whole(tmp_path):
    contents = [bytes([i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: atomic_write(tmp_path / "a.bin", data), contents * 4))
    assert (tmp_path / "a.bin").read_bytes() in contents
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_folder_is_whole_or_absent(tmp_path, error, exists):
    folder = tmp_path / "new" / "folder"
    folder.parent.mkdir()
    if exists:
        folder.mkdir()

    def half():
        with atomic_folder(folder) as place:
            (place / "half").touch()
            raise error

    with pytest.raises(type(error)):
        half()
    assert os.listdir(folder.parent) == ["folder"] * exists
    with atomic_folder(folder) as place:
        assert place.parent == folder.parent
        (place / "whole").touch()
        assert not (folder / "whole").exists()
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == [
        *("new", "new/folder", "new/folder/whole")
    ]
    with pytest.raises(GCLError, match="folder has files in it"), atomic_folder(folder):
        pass


@pytest.mark.parametrize("write", [atomic_write, atomic_folder])
def test_what_a_killed_process_left_is_removed_and_what_another_is_at_stays(tmp_path, write):
    out, go = tmp_path / "a[1] b", tmp_path / "go"

    def half():
        with atomic_folder(out):
            go.touch()
            time.sleep(1000)

    process = multiprocessing.get_context("fork").Process(target=half)
    process.start()
    while not go.exists():
        time.sleep(0.01)
    for left in (1, 0):
        if write is atomic_write:
            atomic_write(out, b"")
            out.unlink()
        else:
            with atomic_folder(out):
                pass
        assert len(list(tmp_path.glob(".*.tmp"))) == left
        process.kill()
        process.join()


@given(st.text())
@example("\x1b[2J\n\u2028\u202e\udcf6\x9b")
def test_what_is_shown_is_one_line_that_moves_no_cursor(text):
    line = shown(text)
    assert line == shown(line)
    message = str(GCLError(text))
    assert message == shown(message)
    assert message == line or "\n" in text
    assert len(line.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in line} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {"RLO", "LRO", "RLE", "LRE", "RLI", "LRI", "FSI"} & {
        unicodedata.bidirectional(c) for c in line
    }
    line.encode()
    assert shown("Köln | <b> $x$ 葉\u3000") == "Köln | <b> $x$ 葉\u3000"
    if text.isprintable():
        assert line == text


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, step, error):
    file = tmp_path / "a.bin"
    atomic_write(file, b"old")

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)) as raised:
        atomic_write(file, b"new")
    assert getattr(raised.value, "filename", str(file)) == str(file)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_content_is_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=real: (order.append(n), f(*a))[1])
    atomic_write(tmp_path / "a.bin", b"x")
    assert order == ["fsync", "replace"]


def test_json_there_and_back(tmp_path):
    value = {"a": [1, 2.5, None], "b": "ρ"}
    atomic_json(tmp_path / "a.json", value)
    assert load_json(tmp_path / "a.json") == value
    assert "ρ" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00"])
def test_damaged_json_is_refused(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(GCLError, match="cannot read .*a.json: .*move it away and run again"):
        load_json(file)
    assert file.read_bytes() == content


def test_tensors_there_and_back(tmp_path):
    value = {
        "weights": torch.randn(3, 4),
        "low": torch.randn(3).bfloat16(),
        "state": torch.Generator().get_state(),
        "history": [{"epoch": 1, "loss": 0.5, "none": None}],
    }
    atomic_save(tmp_path / "a.pt", value)
    loaded = load_tensors(tmp_path / "a.pt")
    for name in ("weights", "low", "state"):
        assert torch.equal(loaded[name], value[name])
        assert loaded[name].dtype == value[name].dtype
    assert loaded["history"] == value["history"]


@given(st.binary(max_size=60))
@example(b"")
@example(b".")
@example(b"PK\x03\x04")
@example(pickle.dumps({"a": 1}))
def test_foreign_bytes_are_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("foreign") / "a.pt"
    file.write_bytes(content)
    with pytest.raises(GCLError, match="a.pt is .*not a file of this program") as refusal:
        load_tensors(file)
    assert "\n" not in str(refusal.value)
    assert file.read_bytes() == content


def test_truncated_tensors_are_refused(tmp_path):
    file = tmp_path / "a.pt"
    atomic_save(file, {"weights": torch.randn(50)})
    whole = file.read_bytes()
    for length in range(0, len(whole), 37):
        file.write_bytes(whole[:length])
        with pytest.raises(GCLError, match="a.pt is damaged"):
            load_tensors(file)


class Intruder:
    """An object whose unpickling would run code."""

    def __reduce__(self):
        return os.mkdir, ("intruder",)


@pytest.mark.parametrize("value", [{"x": Intruder()}, [1, 2], torch.zeros(2)])
def test_code_and_other_values_are_refused(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(GCLError, match="not a file of this program"):
        load_tensors(tmp_path / "a.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]  # nothing was run


def test_a_missing_file_is_named(tmp_path):
    for load in (load_json, load_tensors):
        with pytest.raises(GCLError, match="absent"):
            load(tmp_path / "absent")


def test_the_project_is_found_from_its_notebooks(monkeypatch, tmp_path):
    root = Path(gcl_core.__file__).parents[1]
    monkeypatch.chdir(root / "notebooks")
    assert project_root() == Path("..")
    monkeypatch.chdir(tmp_path)
    assert project_root() == Path()
