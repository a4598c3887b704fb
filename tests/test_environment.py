"""pyproject.toml, requirements.lock and environment.yml agree, and no file is tied to a machine."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import gcl_core

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK_LINES = (ROOT / "requirements.lock").read_text().splitlines()
CONDA_LINES = (ROOT / "environment.yml").read_text().splitlines()
CONDA = yaml.safe_load("\n".join(CONDA_LINES))
# Those that differ from the package's own.
CONDA_NAMES = {
    "jupyter_client": "jupyter-client",
    "huggingface_hub": "huggingface-hub",
    "pytorch": "torch",
}


def by_name(lines: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in requirements}


BASE = by_name(PROJECT["dependencies"])
EXTRAS = {extra: by_name(lines) for extra, lines in PROJECT["optional-dependencies"].items()}
GRID = BASE | EXTRAS["grid"]
STUDY = GRID | EXTRAS["study"]
PHOTOS = BASE | EXTRAS["photos"]
DIRECT = STUDY | PHOTOS | EXTRAS["export"] | EXTRAS["dev"] | EXTRAS["docs"]
DIRECT = {name: each for name, each in DIRECT.items() if name != "gcl-core"}  # an extra of its own
# Parts of the package that an extra is for; the others need the dependencies alone.
NEEDS = {"grid": GRID, "course": STUDY, "figures": STUDY, "inference": BASE | EXTRAS["export"]}
NEEDS |= {"networks": PHOTOS, "data": PHOTOS}  # data/embedded/make_clothes.py
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^\s;*]+)( ; (?P<marker>.+))?")
PINS = [pin for line in LOCK_LINES if (pin := PIN.fullmatch(line))]
LOCKED = {pin["name"]: Version(pin["version"]) for pin in PINS}


def conda_pins() -> dict[str, str]:
    """What environment.yml asks of each package, conda's and pip's, by the package's own name."""
    pins = {}
    for entry in CONDA["dependencies"]:
        if isinstance(entry, str):
            name, _, pin = entry.partition(" ")
            pins[CONDA_NAMES.get(name, name)] = pin
        else:
            requirements = by_name([line for line in entry["pip"] if not line.startswith("-")])
            pins |= {name: str(r.specifier) for name, r in requirements.items()}
    return pins


def test_the_lock_has_exact_versions_only_and_each_package_once() -> None:
    rest = [line for line in LOCK_LINES if not line.lstrip().startswith("#")]
    assert [line for line in rest if not PIN.fullmatch(line)] == []
    assert len(PINS) == len(LOCKED)


def test_the_lock_is_in_the_ranges_of_pyproject() -> None:
    outside = {
        name: str(LOCKED.get(name, "missing"))
        for name, requirement in DIRECT.items()
        if name not in LOCKED or not requirement.specifier.contains(LOCKED[name])
    }
    assert outside == {}, "run `make lock`"


def test_the_lock_is_for_every_system_and_python() -> None:
    markers = {pin["name"]: pin["marker"] for pin in PINS if pin["marker"]}
    assert "sys_platform" in " ".join(markers.values()), "not resolved with --universal"
    assert markers.keys() & DIRECT.keys() == set()


def test_conda_has_the_direct_dependencies_and_no_others() -> None:
    assert conda_pins().keys() - {"python", "pip"} == DIRECT.keys()


def test_conda_has_the_locked_versions() -> None:
    pins = conda_pins()
    drifted = {
        name: (pins[name], str(version))
        for name, version in LOCKED.items()
        if name in pins and pins[name] not in (f"={version.major}.{version.minor}", f"=={version}")
    }
    assert drifted == {}


def test_conda_has_the_same_python() -> None:
    assert SpecifierSet(conda_pins()["python"]) == SpecifierSet(PROJECT["requires-python"])


def test_conda_installs_this_package() -> None:
    (pip,) = (entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))
    assert "--editable ." in pip
    assert CONDA["channels"] == ["conda-forge"]


def test_every_conda_package_says_what_it_is_for() -> None:
    entries = [line for line in CONDA_LINES if re.match(r" +- (?!pip:)", line)]
    silent = [line for line in entries if " # " not in line and "- conda-forge" not in line]
    assert [line.split()[1] for line in silent] == ["python"]


def third_party_imports(folder: str) -> dict[str, set[str]]:
    """Files of a folder by the package that they import."""
    found: dict[str, set[str]] = {}
    pages = {f.stem for f in (ROOT / "docs").rglob("*.py")} | {"moving"}  # what the site is made by
    for file in sorted((ROOT / folder).rglob("*.py")):
        local = {"gcl_core", "tests", "conftest"} | {f.stem for f in file.parent.glob("*.py")}
        local |= pages
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for module in {m.split(".")[0] for m in modules} - sys.stdlib_module_names - local:
                found.setdefault(module, set()).add(file.relative_to(ROOT).as_posix())
    return found


PARTS = sorted(folder.parent.name for folder in (ROOT / "gcl_core").glob("*/__init__.py"))


@pytest.mark.parametrize(
    ("folder", "declared"),
    [
        *((f"gcl_core/{part}", NEEDS.get(part, BASE)) for part in PARTS),
        *(
            ("gcl_core", STUDY | PHOTOS | EXTRAS["export"]),
            ("notebooks", STUDY),
            # Extensions of Sphinx are written with docutils.
            ("docs", DIRECT | {"docutils": Requirement("docutils")}),
            ("tests", DIRECT),
        ),
    ],
)
def test_every_import_is_declared(folder: str, declared: dict[str, Requirement]) -> None:
    distributions = packages_distributions()
    undeclared = {
        module: sorted(files)
        for module, files in third_party_imports(folder).items()
        if not {canonicalize_name(d) for d in distributions.get(module, [])} & declared.keys()
    }
    assert undeclared == {}


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert gcl_core.__version__ == PROJECT["version"] == citation["version"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_no_file_names_a_place_on_this_machine() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    places = [str(p) for p in {ROOT, Path.home()} if len(p.parts) > 1]
    pattern = re.compile(rf"(?<![\w.~-])({'|'.join(map(re.escape, places))})(?![\w.-])".encode())
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    naming = [
        f"{file.relative_to(ROOT)}: {match[0].decode()}"
        for file in files
        if file.is_file()
        and b"\0" not in (content := file.read_bytes())
        and (match := pattern.search(content))
    ]
    assert naming == []
