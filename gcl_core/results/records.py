"""Run records: what is kept of a run when its folder is gone. Small, readable, committed."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from gcl_core.errors import GCLError
from gcl_core.files import atomic_json, load_json, prepare
from gcl_core.methods.registry import resolve
from gcl_core.methods.settings import Settings, flat_settings, get_setting
from gcl_core.training.evaluation import macro_f1
from gcl_core.training.runs import RunFolder

FORMAT = 2
ACCURACIES = ("top1", "many", "medium", "few")
# What is no variant of a method: it has fields of its own in a record, or follows the machine.
PROTOCOL = ("dataset", "imbalance_ratio", "data_seed", "seed", "precision")


def record(
    settings: Settings,
    folders: Sequence[RunFolder],
    method: str,
    preset: str,
    *,
    history: bool = False,
) -> dict[str, Any]:
    """Result, protocol and versions of a finished run as plain values.

    Args:
        folders: of its stages.
        method, preset: the names the settings were made from.
        history: whether the rows of all epochs are kept.

    Raises:
        GCLError: a damaged file.
    """
    last = folders[-1]
    result = last.result
    assert result is not None
    kept = {
        "method": method,
        "preset": preset,
        "dataset": last.about["dataset"],
        # None: the counts are given, or are those of the data as they are.
        "imbalance_ratio": None if settings.data.class_counts else settings.data.imbalance_ratio,
        "seed": settings.seed,
        "data_seed": settings.data.data_seed,
        "changes": changes_of(settings, method, preset),
        "epochs": [trained_epochs(folder) for folder in folders],
        "run": last.path.name,
        **{key: result[key] for key in (*ACCURACIES, "per_class")},
        **_where_there(result),
        "best_on_test": result.get("best_on_test"),
        **load_json(last.path / "settings.json"),
    }
    if history:
        kept["history"] = [folder.metrics for folder in folders]
    return kept


def _where_there(result: dict[str, Any]) -> dict[str, Any]:
    """Class names that say more than the number of the class; accuracies on the validation part.

    With such a part, macro F1 on the test part, too.
    """
    kept, names = {}, result.get("class_names", [])
    if names != [str(j) for j in range(len(names))]:
        kept["class_names"] = names
    if "validation" in result:
        kept["validation"] = result["validation"]
        if "confusion" in result:
            cells = np.array(result["confusion"])
            counts = zip(cells.diagonal(), cells.sum(1), cells.sum(0), strict=True)
            kept["macro_f1"] = round(100 * float(macro_f1(counts)), 4)
    return kept


def trained_epochs(folder: RunFolder) -> int:
    """Epochs that the finished stage in a folder trained; 0 where it had no weights to train."""
    assert folder.result is not None
    return int(folder.result["epochs"])


def epochs_text(epochs: Iterable[int]) -> str:
    """`200 + 30`: the epochs of the stages, without those that trained nothing."""
    return " + ".join(str(number) for number in epochs if number)


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Every setting by its flat name as a plain value; a part that comes in kinds is its name."""
    values = {name: get_setting(settings, path) for name, path in flat_settings(settings).items()}
    return {name: getattr(each, "name", each) for name, each in values.items()}


def changes_of(settings: Settings, method: str, preset: str) -> dict[str, Any]:
    """Settings, by flat name, that are not those of the method and preset; without `PROTOCOL`."""
    usual, own = _usual(settings.data.dataset, method, preset), plain_settings(settings)
    return {
        name: list(each) if isinstance(each, tuple) else each
        for name, each in own.items()
        if name not in PROTOCOL and (name not in usual or usual[name] != each)
    }


@functools.cache  # a grid asks for each of its thousands of cells
def _usual(dataset: str, method: str, preset: str) -> dict[str, Any]:
    return plain_settings(resolve(dataset, method, preset))


def save_records(file: Path, records: list[dict[str, Any]]) -> None:
    """Write records as one JSON file. The epochs of a stage that several share stand in it once."""
    stages: list[Any] = []
    kept = []
    for each in records:
        if "history" in each:
            stages += [stage for stage in each["history"] if stage not in stages]
            each = {**each, "history": [stages.index(stage) for stage in each["history"]]}
        kept.append(each)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_json(file, {"format": FORMAT, "records": kept, "stages": stages})


def load_records(file: Path) -> list[dict[str, Any]]:
    """Records of a file that `save_records` wrote.

    Raises:
        GCLError: the file is missing, damaged or of another version.
    """
    content = load_json(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise GCLError(f"{file} is not a record file of format {FORMAT}; make it again")
    for each in content["records"]:
        if "history" in each:
            each["history"] = [content["stages"][number] for number in each["history"]]
    return content["records"]


def add_records(file: Path, new: Sequence[dict[str, Any]]) -> int:
    """Add records to the end of a file, made if it is not there, without their own earlier ones.

    Several processes may do so at once. Its own is one of the same run under the same names: two
    methods that are the same computation share their run. Returns how many are in the file.

    Raises:
        GCLError: as `load_records`; the file is left as it is.
    """

    def own(each: dict[str, Any]) -> tuple[str, ...]:
        return each["run"], each["method"], each["preset"]

    renewed = {own(each) for each in new}
    prepare(file)  # a lock that cannot be made would be waited for without end
    with filelock.FileLock(file.parent / f".{file.name}.lock"):
        known = load_records(file) if file.exists() else []
        records = [*(each for each in known if own(each) not in renewed), *new]
        save_records(file, records)
    return len(records)
