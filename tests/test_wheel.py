"""The package as others install it: a wheel, without the repository and without any extra."""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from test_environment import BASE, EXTRAS
from test_readme import README, ROOT

TEN_LINES = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
YOURS = """
import torch
from torch.utils.data import TensorDataset
labels = torch.repeat_interleave(torch.arange(10), torch.arange(50, 0, -5))
dataset = TensorDataset(torch.randn(len(labels), 64), labels)
backbone = torch.nn.Linear(64, 64)
"""


def needed(requirements):
    """Installed distributions that these requirements bring, with all that those need."""
    found, left = {}, list(requirements)
    while left:
        name = canonicalize_name(left.pop().name)
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # of another system
            continue
        wanted = map(Requirement, found[name].requires or ())
        left += [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what a wheel is made of."""
    project, out = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gcl_core", project / "gcl_core", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--wheel-dir", out, project], check=True)
    (file,) = out.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment that has the wheel and links to what it requires, and nothing else."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    for each in needed(BASE.values()).values():
        for top in {file.parts[0] for file in each.files if file.parts[0] != ".."}:
            source = Path(str(each.locate_file(top)))
            if top != "__pycache__" and not (packages / top).exists() and source.exists():
                (packages / top).symlink_to(source)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", wheel], check=True)
    return environment / "bin"


def run(*command, cwd):
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env={}, capture_output=True, text=True, check=False)


def test_a_wheel_has_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"gcl_core", "gcl_core-0.1.0.dist-info"}
    there = {f.relative_to(ROOT).as_posix() for f in (ROOT / "gcl_core").rglob("*.py")}
    beside = ("clothes.npz", "long_tails.json", "README.md", "LICENSE")
    embedded = {f"gcl_core/data/embedded/{name}" for name in beside}
    assert there | {"gcl_core/py.typed", "gcl_core/report/page.html"} | embedded <= set(names)


def test_the_ten_lines_need_no_extra(installed, tmp_path):
    code = YOURS + TEN_LINES + "import gcl_core\nprint(gcl_core.__file__)"
    done = run(installed / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed.parent))


def test_training_needs_no_extra(installed, tmp_path):
    words = ("train", "--preset", "smoke", "--runs", tmp_path, "--accelerator", "cpu", "--json")
    done = run(installed / "gcl", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"epochs": [3, 1]' in done.stdout


@pytest.mark.parametrize(
    ("words", "extra"), [("grid plan x.yaml", "grid"), ("study", "study"), ("tables", "study")]
)
def test_a_command_names_the_extra_that_it_needs(installed, tmp_path, words, extra):
    done = run(installed / "gcl", *words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    said = re.fullmatch(r"gcl: (\w+) needs (\w+): pip install 'gcl-core\[(\w+)\]'\n", done.stderr)
    assert said is not None, done.stderr
    assert (said[1], said[3]) == (words.split()[0], extra)


def test_no_extra_brings_what_all_need():
    assert [name for extra in ("grid", "study") for name in EXTRAS[extra] if name in BASE] == []
