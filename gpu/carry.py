"""Gather in a few files what is taken along: python carry.py GRID RUNS OUT ACCELERATOR.

OUT/records.json has the records of finished cells. OUT/runs/00, 01, ... are the pieces of a tar.gz
of the runs, with all that `grid collect` and a later session need: without the weights of finished
runs, unless a second stage is to start from them.
"""

import io
import shutil
import sys
import tarfile
from collections.abc import Collection
from pathlib import Path

import filelock

from gcl_core.errors import GCLError
from gcl_core.files import atomic_folder
from gcl_core.grid.cells import cells_of
from gcl_core.grid.parquet import records_of
from gcl_core.grid.steps import jobs_of
from gcl_core.results.records import save_records

PIECE = 15 * 2**20  # bytes


def main(grid: Path, runs: Path, out: Path, accelerator: str) -> None:
    """Write the folder OUT anew.

    Raises:
        GCLError: a damaged file of a run.
        OSError: it cannot be written.
    """
    runs.mkdir(exist_ok=True)
    with filelock.FileLock(runs / ".gathering"):  # one at a time
        jobs = jobs_of(cells_of(grid, accelerator=accelerator), runs, accelerator)
        save_records(out / "records.json", records_of(jobs))
        left = [step for job in jobs for step in job.steps if not step.folder.is_finished]
        starts = {step.after.folder.path.name for step in left if step.after}
        whole = packed(runs, starts)
        shutil.rmtree(out / "runs", ignore_errors=True)
        with atomic_folder(out / "runs") as folder:
            for number, start in enumerate(range(0, len(whole), PIECE)):
                (folder / f"{number:02d}").write_bytes(whole[start : start + PIECE])


def packed(runs: Path, starts: Collection[str]) -> bytes:
    """A tar.gz of what is needed of the runs; `starts` are folders whose weights are."""

    def is_taken(file: Path) -> bool:
        if file.name == "checkpoint.pt":
            run = file.parent
            return run.name in starts or not (run / "result.json").exists()
        return file.is_file() and file.name != "model.pt" and not file.name.startswith(".")

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for file in sorted(filter(is_taken, runs.rglob("*"))):
            archive.add(file, file.relative_to(runs))
    return buffer.getvalue()


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:4]), sys.argv[4])
    except (GCLError, OSError) as error:
        sys.exit(f"carry.py: {' '.join(str(error).split())}; what is done is in the folder of runs")
