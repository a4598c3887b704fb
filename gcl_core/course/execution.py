"""Executing notebooks: once for what they are made of, with known parameters."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from jupytext.combine import combine_inputs_with_outputs
from traitlets.config import Config

from gcl_core.errors import GCLError
from gcl_core.files import atomic_write
from gcl_core.results.agreement import RECORD_FILES

PACKAGE = Path(__file__).parents[1]


def synchronise(folder: Path) -> None:
    """Bring each notebook in step with its paired py:percent text, which is the one to edit."""
    for text in sorted(folder.glob("[0-9]*.py")):
        notebook = jupytext.read(text)
        target = text.with_suffix(".ipynb")
        if target.exists():
            notebook = combine_inputs_with_outputs(notebook, nbformat.read(target, 4))
        atomic_write(target, nbformat.writes(notebook).encode())


def execute_notebook(source: Path, target: Path, parameters: dict[str, Any]) -> bool:
    """Execute a notebook with papermill unless `target` is what it would become.

    Returns:
        Whether it was executed.

    Raises:
        GCLError: an unknown parameter, or a cell that failed; what it had got to is kept
            in the folder `failed` beside `target`.
    """
    refuse_unknown(source, parameters)
    stamp = fingerprint(source, parameters)
    if target.exists() and nbformat.read(target, 4).metadata.get("gcl", {}).get("made_of") == stamp:
        return False
    # Sockets in a folder of its own: no open port, and none that another kernel may take.
    with _no_bars(), tempfile.TemporaryDirectory(prefix="gcl-") as folder:
        unfinished = Path(folder, target.name)
        try:
            papermill.execute_notebook(
                source,
                unfinished,
                parameters,
                kernel_name="python3",
                progress_bar=False,
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}}),
            )
        except papermill.PapermillExecutionError as error:
            reason = f"{error.ename}: {error.evalue}".splitlines()[0]
            failed = target.parent / "failed" / target.name
            failed.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(failed, unfinished.read_bytes())
            raise GCLError(
                f"{source.name} failed in cell {error.exec_count}: {reason}; see {failed}"
            ) from error
        notebook = nbformat.read(unfinished, 4)
    if target.resolve() == source.resolve():  # the committed copy shows the default parameters
        notebook.cells = [
            c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])
        ]
    for part in (notebook, *notebook.cells):  # times and paths of this machine
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
    notebook.metadata["gcl"] = {"made_of": stamp}
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, nbformat.writes(notebook).encode())
    return True


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Progress bars would fill the saved notebook; the variable is tqdm's own."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        os.environ.pop("TQDM_DISABLE")
        if before is not None:
            os.environ["TQDM_DISABLE"] = before


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
    records = results.glob(RECORD_FILES) if reads else ()
    for file in (*sorted(PACKAGE.rglob("*.py")), *sorted(records)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
