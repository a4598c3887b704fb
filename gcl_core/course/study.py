"""The whole study on the embedded digits: comparison, notebooks, figures, table."""

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import joblib
import jupytext
import nbformat
import papermill
from jupytext.combine import combine_inputs_with_outputs
from traitlets.config import Config

from gcl_core.errors import GCLError
from gcl_core.files import atomic_write
from gcl_core.grid.cells import Cell, cells_of
from gcl_core.results.agreement import RECORD_FILES
from gcl_core.results.records import record, save_records
from gcl_core.results.tables import comparison, paired_gain
from gcl_core.training.side_by_side import run_many

log = logging.getLogger(__name__)
PACKAGE = Path(__file__).parents[1]


def study(root: Path, out: Path, runs: Path, *, workers: int | None = None) -> str:
    """Run everything on Digits-LT that is not there yet, and return the summary that is printed.

    Writes `results/digits.json`, `results.md`, `figures/` and the executed `notebooks/` into `out`.
    With `out` the project itself its committed copies are renewed.

    Args:
        root: the project's folder, which holds `notebooks/` and `grids/digits.yaml`.
        out, runs: folders for the output and for all runs.
        workers: processes at a time; None is one for each core.

    Raises:
        GCLError: a notebook that fails, or is given a parameter that it does not have.
    """
    plan = root / "grids" / "digits.yaml"
    table = compare_on_digits(plan, out / "results", runs, workers=workers)
    parameters = {"runs": str(runs), "figures": str(out / "figures")}
    sources = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    targets = [out / "notebooks" / source.name for source in sources]
    # Side by side, as much of a notebook (its kernel's start, t-SNE, drawing) keeps one core busy.
    tasks = [
        joblib.delayed(execute_notebook)(source, target, _accepted(source, parameters))
        for source, target in zip(sources, targets, strict=True)
    ]
    executed = []
    side_by_side = joblib.Parallel(n_jobs=workers or joblib.cpu_count(), return_as="generator")
    for target, renewed in zip(targets, side_by_side(tasks), strict=True):
        log.info("%s %s", target.name, "executed" if renewed else "is up to date")
        executed.append(f"  {target}")
    if out.resolve() != root.resolve():
        atomic_write(out / "results.md", (table + "\n").encode())
    lines = ["", "Notebooks:", *executed, f"Figures: {out / 'figures'}", ""]
    return "\n".join([*lines, "Digits-LT, last epoch, test accuracy in percent:", "", table])


def compare_on_digits(grid: Path, results: Path, runs: Path, *, workers: int | None = None) -> str:
    """Every cell of the study's grid; writes the records, returns the table.

    The seed of a run is also the seed of its split, so that the spread holds both. No cluster: the
    runs take seconds, and need no network.
    """
    cells = [cell for cell in cells_of(grid) if isinstance(cell, Cell)]
    log.info("%d runs on Digits-LT; finished ones are reused", len(cells))
    done = run_many([cell.settings for cell in cells], runs, workers=workers)
    records = [record(run, cell.method, cell.preset) for run, cell in zip(done, cells, strict=True)]
    save_records(results / "digits.json", records)
    return f"{comparison(records)}\n\n{paired_gain(records, 'gcl_crt', 'ce')}"


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
    known = papermill.inspect_notebook(source)
    if unknown := sorted(parameters.keys() - known.keys()):
        raise GCLError(
            f"{source.name} has no parameter {unknown[0]!r}; allowed: {', '.join(known)}"
        )
    stamp = _fingerprint(source, parameters, with_records="records" in known)
    if target.exists() and nbformat.read(target, 4).metadata.get("gcl", {}).get("made_of") == stamp:
        return False
    # Progress bars would fill the saved notebook; the variable is tqdm's own.
    os.environ["TQDM_DISABLE"] = "1"
    # Sockets in a folder of its own: no open port, and none that another kernel may take.
    with tempfile.TemporaryDirectory(prefix="gcl-") as folder:
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


def _accepted(source: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Those of the parameters that a notebook has; one that trains nothing has no `runs`."""
    known = papermill.inspect_notebook(source)
    return {name: value for name, value in parameters.items() if name in known}


def _fingerprint(source: Path, parameters: dict[str, Any], with_records: bool) -> str:
    """Hash of what the outputs depend on: cells, parameters, the package, and maybe run records."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(source, 4).cells]
    digest = hashlib.sha256(json.dumps([cells, parameters], sort_keys=True).encode())
    results = source.parent.parent / "results"
    records = results.glob(RECORD_FILES) if with_records else ()
    for file in (*sorted(PACKAGE.rglob("*.py")), *sorted(records)):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
