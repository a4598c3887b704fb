"""Run records: what is kept of a run when its folder is gone. Small, readable, committed."""

from pathlib import Path
from typing import Any

from gcl_core.errors import GCLError
from gcl_core.files import atomic_json, load_json
from gcl_core.training import Run

FORMAT = 1
ACCURACIES = ("top1", "many", "medium", "few")


def record(run: Run, method: str, preset: str, *, history: bool = False) -> dict[str, Any]:
    """Result, protocol and versions of a run as plain values.

    Args:
        method, preset: the names the settings were made from.
        history: whether the rows of all epochs are kept.
    """
    settings = run.settings
    stages = [stage for stage in (settings.stage1, settings.stage2) if stage is not None]
    kept = {
        "method": method,
        "preset": preset,
        "dataset": run.dataset.name,
        "imbalance_ratio": settings.data.imbalance_ratio,
        "seed": settings.seed,
        "data_seed": settings.data.data_seed,
        "epochs": [stage.epochs for stage in stages],
        "run": run.path.name,
        **{key: run.result[key] for key in (*ACCURACIES, "per_class")},
        "best_on_test": run.result.get("best_on_test"),
        **load_json(run.path / "settings.json"),
    }
    if history:
        kept["history"] = [folder.metrics for folder in run.folders]
    return kept


def save_records(file: Path, records: list[dict[str, Any]]) -> None:
    """Write records as one JSON file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_json(file, {"format": FORMAT, "records": records})


def load_records(file: Path) -> list[dict[str, Any]]:
    """Records of a file that `save_records` wrote.

    Raises:
        GCLError: the file is missing, damaged or of another version.
    """
    content = load_json(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise GCLError(f"{file} is not a record file of format {FORMAT}; make it again")
    return content["records"]


def add_record(file: Path, new: dict[str, Any]) -> None:
    """Add a record to a file, which is made if it is not there, in place of one of the same run.

    Raises:
        GCLError: as `load_records`; the file is left as it is.
    """
    records = load_records(file) if file.exists() else []
    others = [old for old in records if old["run"] != new["run"]]
    save_records(file, [*others, new])
