"""Executing notebooks: once for what they are made of, with known parameters."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from jupytext.combine import combine_inputs_with_outputs
from traitlets.config import Config

from gcl_core.course.launch import is_launch, repository, with_launch
from gcl_core.errors import GCLError, MachineError
from gcl_core.files import atomic_write
from gcl_core.results.agreement import RECORD_FILES

PACKAGE = Path(__file__).parents[1]
# For a kernel to answer, where papermill has 60: a machine with more to do than cores takes longer.
START_SECONDS = 600


def notebooks_in(folder: Path) -> list[Path]:
    """The notebooks of a course in their order: those of its lab first."""
    return [*sorted(folder.glob("lab/[0-9]*.ipynb")), *sorted(folder.glob("[0-9]*.ipynb"))]


def synchronise(folder: Path) -> None:
    """Bring each notebook of a course in step with its py:percent text, the one to edit.

    Those of the lab get a link to Colab, if the project around the folder says its address.

    Raises:
        GCLError: a notebook that differs from its text and is newer, so that an edit would be lost,
            or an address that Colab cannot open; no notebook is changed then.
    """
    name, made = repository(folder.resolve().parent), {}
    for text in (*folder.glob("lab/[0-9]*.py"), *folder.glob("[0-9]*.py")):
        notebook, target = jupytext.read(text), text.with_suffix(".ipynb")
        if target.exists():
            present = nbformat.read(target, 4)
            # Alone neither says enough: a checkout gives files any times, and an edit of the text
            # makes it differ too.
            newer = target.stat().st_mtime_ns > text.stat().st_mtime_ns
            if newer and _cells(present) != _cells(notebook):
                raise GCLError(
                    f"{target} is newer than {text.name} and differs from it; to keep the edit run "
                    f"`jupytext --to py:percent {target}`, to drop it `touch {text}`"
                )
            tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
            notebook = combine_inputs_with_outputs(notebook, present)
            for cell, own in zip(notebook.cells, tags, strict=True):  # not those of the present one
                cell.metadata.pop("tags", None)
                cell.metadata |= {"tags": own} if own else {}
        for cell in notebook.cells:
            if "hide-input" in cell.metadata.get("tags", []):  # folded on the pages, and in Jupyter
                cell.metadata["jupyter"] = {"source_hidden": True}
        if name and text.parent != folder:
            path = target.resolve().relative_to(folder.resolve().parent)
            notebook = with_launch(notebook, name, path.as_posix())
        made[target] = notebook
    for target, notebook in made.items():
        atomic_write(target, nbformat.writes(notebook).encode())


def _cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str, list[str]]]:
    """What of a notebook its text has, too."""
    cells = [cell for cell in notebook.cells if not is_launch(cell)]
    return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in cells]


class _KernelManager(AsyncKernelManager):
    """Starts kernels without progress bars, which would fill the saved notebook, and ends them.

    Jupyter's own interrupts every kernel before it asks it to end; one that is still busy with its
    last message then says "ERROR | KeyboardInterrupt caught in kernel".
    """

    async def _async_pre_start_kernel(self, **more: Any) -> Any:
        environment = {**os.environ, "TQDM_DISABLE": "1"}  # the variable is tqdm's own
        return await super()._async_pre_start_kernel(**{"env": environment, **more})

    async def _async_interrupt_kernel(self) -> None:
        if not self.shutting_down:
            await super()._async_interrupt_kernel()


def execution_of(notebook: Path) -> dict[str, Any]:
    """What an executed notebook says of its execution; empty if it is not there or says nothing.

    `made_of` is the `fingerprint` of what it was made of, `core_seconds` the processor time that it
    took: about its duration on one core. It is the one place that has its duration.
    """
    if not notebook.exists():
        return {}
    return dict(nbformat.read(notebook, 4).metadata.get("gcl", {}))


def execute_notebook(source: Path, target: Path, parameters: dict[str, Any]) -> bool:
    """Execute a notebook with papermill unless `target` is what it would become.

    Returns:
        Whether it was executed.

    Raises:
        GCLError: an unknown parameter, a cell that failed, or (a MachineError) a kernel that died;
            how far it got is kept in the folder `failed` beside `target` until it is executed
            without a failure.
    """
    refuse_unknown(source, parameters)
    stamp = fingerprint(source, parameters)
    if execution_of(target).get("made_of") == stamp:
        return False
    failed, before = target.parent / "failed" / target.name, _seconds_of_children()
    # Sockets in a folder of its own: no open port, and none that another kernel may take.
    with tempfile.TemporaryDirectory(prefix="gcl-") as folder:
        unfinished = Path(folder, target.name)
        try:
            # It says where files lie; who runs notebooks says what matters of it.
            logging.getLogger("papermill").setLevel(logging.WARNING)
            papermill.execute_notebook(
                source,
                unfinished,
                parameters,
                kernel_name="python3",
                progress_bar=False,
                start_timeout=START_SECONDS,
                kernel_manager_class=_KernelManager,
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}}),
            )
        except (papermill.PapermillExecutionError, RuntimeError) as error:
            failed.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(failed, unfinished.read_bytes())
            kind, reason = _kind_and_reason(error)
            raise kind(f"{source.name} failed {reason}; see {failed}") from error
        notebook = nbformat.read(unfinished, 4)
    for cell in [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]:
        if target.resolve() == source.resolve():  # the committed copy shows the default parameters
            notebook.cells.remove(cell)
        elif "id" in cell:
            cell["id"] = "parameters"  # papermill draws one
    for part in (notebook, *notebook.cells):  # times and paths of this machine
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
    took = max(1, round(_seconds_of_children() - before))
    notebook.metadata["gcl"] = {"made_of": stamp, "core_seconds": took}
    target.parent.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)  # before it is done: what is done is not looked at again
    atomic_write(target, nbformat.writes(notebook).encode())
    return True


def _seconds_of_children() -> float:
    """Processor time of all child processes that have ended, and of theirs: kernels, workers."""
    times = os.times()
    return times.children_user + times.children_system


def _kind_and_reason(error: Exception) -> tuple[type[GCLError], str]:
    if isinstance(error, papermill.PapermillExecutionError):
        told = f"in cell {error.exec_count}: {error.ename}: {error.evalue}"
        of_machine = error.ename in (OSError.__name__, MachineError.__name__)  # such as no space
        return MachineError if of_machine else GCLError, told.splitlines()[0]
    # nbclient's errors about a kernel that dies, or does not start, are all RuntimeErrors.
    return MachineError, f"({error}), perhaps for want of memory; start again"


def accepted(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the parameters that a notebook has; one that trains nothing has no `runs`."""
    known = _parameters(notebook)
    return {name: value for name, value in parameters.items() if name in known}


def refuse_unknown(notebook: Path, names: Iterable[str]) -> None:
    """Refuse names that are no parameters of a notebook.

    Raises:
        GCLError: it names the first of them, and those that there are; or the file is no notebook.
    """
    known = _parameters(notebook)
    if unknown := sorted(set(names) - known.keys()):
        allowed = ", ".join(known)
        raise GCLError(f"{notebook.name} has no parameter {unknown[0]!r}; allowed: {allowed}")


def _parameters(notebook: Path) -> dict[str, Any]:
    logging.getLogger("papermill").setLevel(logging.WARNING)  # else it names each that it reads
    try:
        if notebook.suffix == ".ipynb":
            return papermill.inspect_notebook(notebook)
    except (ValueError, nbformat.ValidationError) as error:
        raise GCLError(f"{notebook} cannot be read: {error}") from error
    raise GCLError(f"{notebook} is not a notebook (.ipynb)")


def fingerprint(source: Path, parameters: Mapping[str, Any]) -> str:
    """Hash of what the outputs depend on: cells, parameters, the package, and records it reads."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(source, 4).cells]
    digest = hashlib.sha256(json.dumps([cells, dict(parameters)], sort_keys=True).encode())
    results = source.parent.parent / "results"
    reads = "records" in _parameters(source)
    records = [file for each in RECORD_FILES for file in results.glob(each)] if reads else []
    for file in (*sorted(PACKAGE.rglob("*.py")), *sorted(records)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
