"""Files are whole or absent, and what is not ours is refused by name and left alone."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import gcl_core
from gcl_core import GCLError
from gcl_core.files import (
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
    assert file.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
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
