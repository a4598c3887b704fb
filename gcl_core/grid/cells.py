"""A grid: many runs described by one YAML file.

    dataset: digits
    preset: digits                       # optional; else the data set's own
    settings: {imbalance_ratio: 100}     # optional: what all cells of training share
    cells:
      - method: [ce, gcl_crt]
        seed, data_seed: [0, 1, 2]       # these two move together
      - method: gcl_crt
        stage2_sampler: [instance, class, effective]
      - notebook: notebooks/06_ablations.ipynb
        seeds: [1, 2]                    # the other keys are its parameters

An entry is a product: each value may be a list, and there is a cell for every combination. A
setting that is itself several numbers is given as text, "0.8,0.9", or as a list in the list. All
settings have their flat names (`python -m gcl_core train --help`).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gcl_core.errors import GCLError
from gcl_core.files import project_root
from gcl_core.methods.registry import default_preset, resolve
from gcl_core.methods.settings import Settings

KEYS = ("dataset", "preset", "settings", "cells")


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        name: the method and what its entry of the file says of it.
        method, preset: the names that the settings were made from.
    """

    name: str
    method: str
    preset: str
    settings: Settings


@dataclass(frozen=True)
class NotebookCell:
    """One execution of a notebook; parameters are pairs of name and value."""

    name: str
    notebook: Path
    parameters: tuple[tuple[str, Any], ...]


def cells_of(
    file: Path, *, dataset: str | None = None, accelerator: str = "auto"
) -> list[Cell | NotebookCell]:
    """Every cell of a grid, in the order of the file.

    Args:
        dataset: instead of the file's own.
        accelerator: see `gcl_core.methods.registry.resolve`.

    Raises:
        GCLError: the file cannot be read, has an unknown key, a value that is refused, or two cells
            that are the same; the message names the entry.
    """
    content = _content(file)
    source = dataset or content.get("dataset")
    if not isinstance(source, str):
        raise GCLError(f"{file} names no dataset, such as `dataset: digits`")
    kind, colon, place = source.partition(":")
    if colon:  # a worker may be in another folder
        source = f"{kind}:{Path(place).absolute()}"
    cells: list[Cell | NotebookCell] = []
    for number, entry in enumerate(content["cells"], 1):
        try:
            if not isinstance(entry, dict) or not {"method", "notebook"} & entry.keys():
                raise GCLError("neither a method nor a notebook")
            make = _notebooks if "notebook" in entry else _training
            cells += make(entry, content, source, accelerator)
        except GCLError as error:
            raise GCLError(f"{file}, entry {number}: {error}") from None
    try:
        refuse_twins([(cell.name, _what(cell)) for cell in cells])
    except GCLError as error:
        raise GCLError(f"{file}: {error}") from None
    return cells


def points(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of an entry's values, the last key running fastest.

    Raises:
        GCLError: a setting that is named twice, or a value that is empty or a mapping.
    """
    names = [name for key in entry for name in _names(key)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise GCLError(f"{twice[0]} is given twice")
    axes = []
    for key, given in entry.items():
        values = given if isinstance(given, list) else [given]
        if not values or any(isinstance(each, dict) for each in values):
            raise GCLError(f"{key} must be a value or a list of values, got {given!r}")
        values = [tuple(each) if isinstance(each, list) else each for each in values]
        axes.append([dict.fromkeys(_names(key), each) for each in values])
    for combination in itertools.product(*axes):
        yield {name: each for part in combination for name, each in part.items()}


def refuse_twins(named: Sequence[tuple[str, Any]]) -> None:
    """Refuse two cells, (name, what it is), that are the same.

    Raises:
        GCLError: it names both.
    """
    seen: dict[Any, str] = {}
    for name, what in named:
        if what in seen:
            raise GCLError(f"two cells have the same settings: {seen[what]!r} and {name!r}")
        seen[what] = name


def _names(key: Any) -> list[str]:
    """Settings that a key names: `seed, data_seed` are two."""
    return [name.strip() for name in str(key).split(",")]


def _what(cell: Cell | NotebookCell) -> Any:
    return cell.settings if isinstance(cell, Cell) else (cell.notebook, cell.parameters)


def _title(first: str, named: Mapping[str, Any]) -> str:
    values = {k: f"{v:g}" if isinstance(v, float) else v for k, v in named.items()}
    return ", ".join([first, *(f"{k} {v}" for k, v in values.items() if k != "method")])


def _training(
    entry: dict[str, Any], content: dict[str, Any], source: str, accelerator: str
) -> Iterator[Cell]:
    own = {name for key in entry for name in _names(key)}
    shared = content.get("settings") or {}
    rest = {key: given for key, given in shared.items() if not own & set(_names(key))}
    # What all cells have in common is left out of their names.
    single = {n for key, v in rest.items() if not isinstance(v, list) for n in _names(key)}
    for point in points(rest | entry):
        name = _title(str(point["method"]), {k: v for k, v in point.items() if k not in single})
        method, preset = point.pop("method"), point.pop("preset", content.get("preset"))
        preset = preset or default_preset(source)
        if odd := {"dataset", "accelerator"} & point.keys():
            raise GCLError(f"{odd.pop()} is one for the whole grid")
        settings = resolve(source, method, preset, accelerator=accelerator, **point)
        if settings.devices != 1:
            raise GCLError("devices must be 1: a grid gives each process a run of its own")
        yield Cell(name, method, preset, settings)


def _notebooks(
    entry: dict[str, Any], content: dict[str, Any], source: str, accelerator: str
) -> Iterator[NotebookCell]:
    from gcl_core.course.execution import accepted, refuse_unknown

    for point in points(entry):
        file = project_root() / str(point.pop("notebook"))
        if not file.is_file():
            raise GCLError(f"there is no notebook {file}")
        refuse_unknown(file, point)
        general = {"dataset": source, "preset": content.get("preset")}
        parameters = accepted(file, {k: v for k, v in general.items() if v}) | point
        name = _title(file.name, point)
        yield NotebookCell(name, file.absolute(), tuple(parameters.items()))


def _content(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GCLError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise GCLError(f"{file} is not a grid: it needs the keys dataset and cells")
    if unknown := [key for key in content if key not in KEYS]:
        raise GCLError(f"{file}: unknown key {unknown[0]!r}; allowed: {', '.join(KEYS)}")
    if not isinstance(content.get("preset") or "", str):
        raise GCLError(f"{file}: preset must be one name; in an entry it may be a list")
    if not isinstance(content.get("cells"), list) or not content["cells"]:
        raise GCLError(f"{file}: cells must be a list of entries")
    if not isinstance(content.get("settings") or {}, dict):
        raise GCLError(f"{file}: settings must be names with values")
    return content


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, which would take the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        nodes = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key) for key in nodes]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                line = nodes[place].start_mark.line + 1
                raise yaml.YAMLError(f"{key} is given twice, again in line {line}")
        return super().construct_mapping(node, deep)
