"""Executing notebooks: once, with known parameters, keeping what failed."""

import os
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelClient
from nbformat.v4 import new_code_cell, new_notebook, new_output

import gcl_core
from gcl_core.course import execution
from gcl_core.course.execution import (
    accepted,
    execute_notebook,
    execution_of,
    fingerprint,
    synchronise,
)
from gcl_core.errors import GCLError, MachineError
from gcl_core.files import atomic_write

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
    source = notebook("import os; print(runs, figures, os.environ['TQDM_DISABLE'])")
    assert execute_notebook(source, target, {"runs": "here"})
    assert nbformat.read(target, 4).cells[-1].outputs[0].text == "here  1\n"
    assert 1 <= execution_of(target)["core_seconds"] < 60
    assert not execute_notebook(source, target, {"runs": "here"})
    assert execute_notebook(source, target, {"runs": "there"})
    given = {"runs": "there"}
    assert fingerprint(notebook("print(1)"), given) != execution_of(target)["made_of"]
    assert not (target.parent / "failed").exists()
    assert "papermill" not in target.read_text()
    assert "TQDM_DISABLE" not in os.environ  # only while a notebook is executed


@pytest.mark.parametrize("reads", [True, False])
def test_new_run_records_are_a_reason_to_execute_what_reads_them_again(
    notebook, tmp_path, monkeypatch, reads
):
    own = PARAMETERS + ("\nrecords: str = 'results'  # folder of records" if reads else "")
    monkeypatch.setattr(f"{__name__}.PARAMETERS", own)
    source = notebook("print(1)")
    before = fingerprint(source, {})
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bench.json").write_text("{}")
    assert fingerprint(source, {}) == before
    (tmp_path / "results" / "cifar10-jpeg.json").write_text("{}")
    assert (fingerprint(source, {}) != before) == reads


def test_executed_in_place_the_parameters_are_not_left_behind(notebook):
    source = notebook("print(runs)")
    assert execute_notebook(source, source, {"runs": "elsewhere"})
    cells = nbformat.read(source, 4).cells
    assert [cell.source for cell in cells] == [PARAMETERS, "print(runs)"]
    assert cells[1].outputs[0].text == "elsewhere\n"
    assert not execute_notebook(source, source, {"runs": "elsewhere"})


def test_a_change_anywhere_in_the_package_is_a_reason_to_execute_again(
    notebook, tmp_path, monkeypatch
):
    assert Path(gcl_core.__file__).parent == execution.PACKAGE
    file = tmp_path / "package" / "part" / "a.py"
    file.parent.mkdir(parents=True)
    file.write_text("x = 1")
    monkeypatch.setattr(execution, "PACKAGE", tmp_path / "package")
    source = notebook("print(1)")
    before = fingerprint(source, {})
    assert fingerprint(source, {}) == before
    file.write_text("x = 2")
    assert fingerprint(source, {}) != before


def test_the_text_of_a_notebook_keeps_the_outputs_of_what_did_not_change(tmp_path):
    text = "# %%\nfirst = 1\n\n# %%\nsecond = 2\n"
    (tmp_path / "01_test.py").write_text(text)
    synchronise(tmp_path)
    file = tmp_path / "01_test.ipynb"
    made = nbformat.read(file, 4)
    for cell in made.cells:
        cell.outputs = [new_output("stream", text=cell.source)]
        cell.metadata["tags"] = []  # as papermill leaves it
    nbformat.write(made, file)
    folded = text.replace("# %%\nfirst", '# %% tags=["hide-input"]\nfirst')
    (tmp_path / "01_test.py").write_text(folded.replace("second = 2", "second = 3"))
    synchronise(tmp_path)
    first, second = nbformat.read(file, 4).cells
    assert first.metadata.tags == ["hide-input"]
    assert first.metadata.jupyter.source_hidden
    assert (first.source, first.outputs[0].text) == ("first = 1", "first = 1")
    assert second.source == "second = 3"


def test_an_edited_notebook_that_is_newer_than_its_text_is_not_lost(tmp_path):
    for name in ("00_other", "01_test"):
        (tmp_path / f"{name}.py").write_text("# %%\nfirst = 1\n")
    synchronise(tmp_path)
    text, file = tmp_path / "01_test.py", tmp_path / "01_test.ipynb"
    before = file.stat().st_mtime_ns
    os.utime(text, ns=(before, before - 10**9))
    synchronise(tmp_path)  # newer alone is no edit: a checkout and an execution make it so
    edited = nbformat.read(file, 4)
    edited.cells[0].source = "first = 2"
    nbformat.write(edited, file)
    (tmp_path / "00_other.py").write_text("# %%\nfirst = 3\n")
    with pytest.raises(GCLError, match=r"01_test\.ipynb is newer than 01_test\.py and differs"):
        synchronise(tmp_path)
    assert nbformat.read(file, 4).cells[0].source == "first = 2"
    assert nbformat.read(tmp_path / "00_other.ipynb", 4).cells[0].source == "first = 1"
    text.touch()  # what the message says
    synchronise(tmp_path)
    assert nbformat.read(file, 4).cells[0].source == "first = 1"


def test_a_notebook_is_given_what_it_has(notebook):
    given = {"runs": "here", "seeds": 3}
    assert accepted(notebook("print(runs)"), given) == {"runs": "here"}


def test_an_unknown_parameter_is_refused_before_anything_runs(notebook, tmp_path):
    target = tmp_path / "out.ipynb"
    with pytest.raises(GCLError, match=r"no parameter 'run'; allowed: runs, figures"):
        execute_notebook(notebook("1 / 0"), target, {"run": "x"})
    assert not target.exists()


@pytest.mark.parametrize(
    ("code", "kind"), [("1 / 0", GCLError), ("raise OSError(28, 'No space')", MachineError)]
)
def test_a_failed_notebook_is_kept_and_named(notebook, tmp_path, code, kind):
    target = tmp_path / "out.ipynb"
    with pytest.raises(GCLError, match=r"(ZeroDivision|No space).*failed/out\.ipynb") as caught:
        execute_notebook(notebook(code), target, {})
    assert type(caught.value) is kind
    assert not target.exists()
    assert (tmp_path / "failed" / "out.ipynb").exists()


def test_a_kernel_that_does_not_answer_in_time_can_be_started_again(
    notebook, tmp_path, monkeypatch
):
    async def in_vain(client, timeout):
        raise RuntimeError(f"Kernel didn't respond in {timeout} seconds")  # as jupyter_client's

    monkeypatch.setattr(AsyncKernelClient, "wait_for_ready", in_vain)
    monkeypatch.setattr(execution, "START_SECONDS", 7)
    with pytest.raises(MachineError, match=r"respond in 7 seconds\), perhaps for want"):
        execute_notebook(notebook("1"), tmp_path / "out.ipynb", {})


KILLED = """\
import os, pathlib, signal
print("so far")
if not pathlib.Path(runs).exists():
    os.kill(os.getpid(), signal.SIGKILL)"""


def test_a_notebook_whose_kernel_is_killed_is_kept_and_can_be_started_again(
    notebook, tmp_path, monkeypatch
):
    source, target = notebook(KILLED), tmp_path / "out.ipynb"
    given = {"runs": str(tmp_path / "later")}
    with pytest.raises(MachineError, match=r"01_test.*Kernel died.*again; see .*failed/out\.ipynb"):
        execute_notebook(source, target, given)
    assert not target.exists()
    assert len(nbformat.read(tmp_path / "failed" / "out.ipynb", 4).cells) == 3
    (tmp_path / "later").mkdir()

    def write(path, data):  # killed after this, nothing would remove what failed before
        assert not (tmp_path / "failed" / "out.ipynb").exists()
        atomic_write(path, data)

    monkeypatch.setattr(execution, "atomic_write", write)
    assert execute_notebook(source, target, given)
    assert nbformat.read(target, 4).cells[1].id == "parameters"  # not a random one


BUSY = """\
import time
kernel = get_ipython().kernel
answer = kernel.shell_handlers["kernel_info_request"]
async def slowly(*given):
    await answer(*given)
    time.sleep(0.5)
kernel.shell_handlers["kernel_info_request"] = slowly"""


def test_a_kernel_that_ends_says_nothing(notebook, tmp_path, capfd):
    """One that is busy with its last message when it is asked to end."""
    assert execute_notebook(notebook(BUSY), tmp_path / "out.ipynb", {})
    assert capfd.readouterr().err == ""
