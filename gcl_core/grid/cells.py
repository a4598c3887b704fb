"""A grid: many runs described by one YAML file.

    dataset: digits                      # or folder:PLACE
    preset: digits                       # optional; else the data set's own
    max_cells: 10000                     # optional; a grid of more is taken for a mistake
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
settings have their flat names (`python -m gcl_core train --help`). Relative paths are taken from
the folder of the file; a notebook that is not there is looked for in the project's folder.
"""

import itertools
import math
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gcl_core.data.sources import absolute
from gcl_core.errors import GCLError, shown
from gcl_core.files import project_root
from gcl_core.methods.registry import default_preset, resolve
from gcl_core.methods.settings import Settings

KEYS = ("dataset", "preset", "settings", "max_cells", "cells")
MAX_CELLS = 10_000
# What a file may grow to by its aliases and merge keys: 100 for each of as many cells.
MAX_VALUES = 1_000_000
MAX_DEPTH = 20  # a list in a list of an entry has 6
MAX_DIGITS = 100  # Python's own limit, of thousands, would be met when the number is shown
PLAIN = (str, int, float, type(None))  # YAML has dates, bytes and sets too


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
    with _named(str(file)):  # absolute: a worker may be in another folder
        source = absolute(source, Path() if dataset else file.parent)
    number = 0
    for count, entry in enumerate(content["cells"], 1):
        with _named(f"{file}, entry {count}"):
            number += math.prod(len(axis) for axis in _axes(_with_shared(entry, content)))
    limit = content.get("max_cells", MAX_CELLS)
    if number > limit:  # counted before one is made: a product can be larger than the memory
        raise GCLError(f"{file} has {number} cells, more than {limit}; `max_cells:` allows more")
    cells: list[Cell | NotebookCell] = []
    for count, entry in enumerate(content["cells"], 1):
        with _named(f"{file}, entry {count}"):
            if "notebook" in entry:
                cells += _notebooks(entry, content, source, file.parent)
            else:
                cells += _training(entry, content, source, accelerator)
    with _named(str(file)):
        what = [c.settings if isinstance(c, Cell) else (c.notebook, c.parameters) for c in cells]
        refuse_twins([(cell.name, each) for cell, each in zip(cells, what, strict=True)])
    return cells


def points(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of an entry's values, the last key running fastest.

    Raises:
        GCLError: a setting that is named twice, or a value that is empty or a mapping.
    """
    for combination in itertools.product(*_axes(entry)):
        yield {name: each for part in combination for name, each in part.items()}


def _axes(entry: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """By key of an entry, the values of what it names."""
    names = [name for key in entry for name in _names(key)]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise GCLError(f"{twice[0]} is given twice")
    axes = []
    for key, given in entry.items():
        values = given if isinstance(given, list) else [given]
        inner = [v for each in values for v in (each if isinstance(each, list) else [each])]
        if not values or not all(isinstance(each, PLAIN) for each in inner):
            raise GCLError(f"{key} must be a value or a list of values, got {reprlib.repr(given)}")
        values = [tuple(each) if isinstance(each, list) else each for each in values]
        axes.append([dict.fromkeys(_names(key), each) for each in values])
    return axes


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


def _title(first: str, named: Mapping[str, Any]) -> str:
    values = {k: f"{v:g}" if isinstance(v, float) else v for k, v in named.items()}
    return shown(", ".join([first, *(f"{k} {v}" for k, v in values.items() if k != "method")]))


def _with_shared(entry: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with the settings of the file that it does not give itself."""
    if not isinstance(entry, dict) or not {"method", "notebook"} & entry.keys():
        raise GCLError("neither a method nor a notebook")
    if "notebook" in entry:
        return entry
    own = {name for key in entry for name in _names(key)}
    shared = content.get("settings") or {}
    return {key: v for key, v in shared.items() if not own & set(_names(key))} | entry


def _training(
    entry: Mapping[str, Any], content: Mapping[str, Any], source: str, accelerator: str
) -> Iterator[Cell]:
    whole = _with_shared(entry, content)
    # What all cells have in common is left out of their names.
    common = [key for key in whole.keys() - entry.keys() if not isinstance(whole[key], list)]
    single = {name for key in common for name in _names(key)}
    for point in points(whole):
        name = _title(str(point["method"]), {k: v for k, v in point.items() if k not in single})
        method, preset = point.pop("method"), point.pop("preset", content.get("preset"))
        preset = preset or default_preset(source, point)
        if odd := {"dataset", "accelerator"} & point.keys():
            raise GCLError(f"{odd.pop()} is one for the whole grid")
        settings = resolve(source, method, preset, accelerator=accelerator, **point)
        if settings.devices != 1:
            raise GCLError("devices must be 1: a grid gives each process a run of its own")
        yield Cell(name, method, preset, settings)


def _notebooks(
    entry: Mapping[str, Any], content: Mapping[str, Any], source: str, folder: Path
) -> Iterator[NotebookCell]:
    from gcl_core.course.execution import accepted, refuse_unknown

    for point in points(entry):
        given = str(point.pop("notebook"))
        places = (folder / given, project_root() / given)
        file = next((each for each in places if each.is_file()), None)
        if file is None:
            raise GCLError(f"there is no notebook {places[0]}, nor {places[1]}")
        refuse_unknown(file, point)
        general = {"dataset": source, "preset": content.get("preset")}
        parameters = accepted(file, {k: v for k, v in general.items() if v}) | point
        name = _title(file.name, point)
        yield NotebookCell(name, file.absolute(), tuple(parameters.items()))


def _content(file: Path) -> dict[str, Any]:
    try:
        loader = _Loader(file.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        _refuse_growth(root)
        content = loader.construct_document(root) if root else None
    except RecursionError:
        raise GCLError(f"cannot read {file}: nested deeper than {MAX_DEPTH}") from None
    except Exception as error:  # of almost any kind where a value is not what its tag says
        raise GCLError(f"cannot read {file}: {error!s:.200}") from error
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
    limit = content.get("max_cells", MAX_CELLS)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise GCLError(f"{file}: max_cells must be a whole number > 0, got {limit!r}")
    return content


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, which would take the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        made = super().construct_mapping(node, deep)  # refuses keys that are no plain values
        keys: set[Any] = set()
        for each in own:
            key = self.construct_object(each)
            if key in keys:
                line = each.start_mark.line + 1
                raise yaml.YAMLError(f"{key} is given twice, again in line {line}")
            keys.add(key)
        return made


def _refuse_growth(root: yaml.Node | None) -> None:
    """Refuse a document that is nested too deeply, or too large with its aliases written out."""
    measured: dict[int, tuple[float, int]] = {}

    def measure(node: yaml.Node) -> tuple[float, int]:
        if node.tag.endswith(":int") and len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"a number of more than {MAX_DIGITS} digits")
        if id(node) not in measured:
            measured[id(node)] = math.inf, 0  # what it is if it holds itself
            parts = [] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                parts = itertools.chain.from_iterable(parts)
            sizes, depths = zip((0, 0), *map(measure, parts), strict=True)
            measured[id(node)] = 1 + sum(sizes), 1 + max(depths)
        return measured[id(node)]

    size, depth = (0, 0) if root is None else measure(root)
    if size > MAX_VALUES:
        raise yaml.YAMLError(f"aliases make more than {MAX_VALUES} values of it")
    if depth > MAX_DEPTH:
        raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH}")


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Have an error say where it is."""
    try:
        yield
    except GCLError as error:
        raise GCLError(f"{place}: {error}") from None
