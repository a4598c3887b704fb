"""Kill, fill the disk and cut the network at moments of every command that writes; count the ends.

    python tests/faults.py [COMMAND ...] [--trials 12] [--seed 0]      # or: make faults

Each trial breaks a command once, runs the same command again, and compares every file with those of
a run that nothing disturbed. Moments are the changes of files (each that is opened to be written,
synchronised, renamed, removed, each folder made), or times where other processes do the work.
"""

import argparse
import dataclasses
import functools
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "GCL_CHECKPOINT_SECONDS": "0",
    "TQDM_DISABLE": "1",
    "GCL_CACHE": "",
}
os.environ["PYTHONPATH"] = os.pathsep.join(
    map(str, [Path(__file__).parents[1], Path(__file__).parent])
)

import psutil

import sabotage
from bits import equal
from gcl_core.files import load_tensors
from processes import SERVER, Forked, Outcome
from toys import image_folder

PATIENCE = 300.0  # seconds until a command counts as hanging
# What may differ, or is no result: times, locks, what Python compiles.
APART = {"timing.csv", "__pycache__"}
SMALL = "--preset smoke --epochs 2 --threads 1 --progress none"


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that writes, in a folder beside `given`, which holds what it reads.

    Attributes:
        words: its arguments.
        entry: what to call with them, "module:function".
        before: makes the folder's first files.
        others: whether other processes do its work.
    """

    words: str
    entry: str = "gcl_core.cli:main"
    before: Callable[[Path], None] = lambda folder: None
    others: bool = False


def grid(folder: Path) -> None:
    """A grid of four cells."""
    cells = "[{method: [ce, gcl_crt], seed: [0, 1]}]"
    text = f"{{dataset: digits, preset: smoke, settings: {{epochs: 2}}, cells: {cells}}}"
    (folder / "grid.yaml").write_text(text)


def project(folder: Path) -> None:
    """A project with two notebooks, a grid of four cells, and the real one's pages and records."""
    root = Path(__file__).parents[1]
    for name in ("notebooks", "grids"):
        (folder / name).mkdir()
    (folder / "gcl_core").symlink_to(root / "gcl_core")
    for name in ("results", "docs"):
        shutil.copytree(root / name, folder / name)
    shutil.copy(root / "README.md", folder)
    grid(folder)
    (folder / "grid.yaml").rename(folder / "grids" / "digits.yaml")
    code = ['figures: str = ""  # folder', "print(6 * 7)"]
    cells = [
        {"cell_type": "code", "source": each, "outputs": [], "execution_count": None}
        for each in code
    ]
    for each, tags in zip(cells, (["parameters"], []), strict=True):
        each["metadata"] = {"tags": tags}
    for number in (0, 1):
        own = [each | {"id": f"{number}{i}"} for i, each in enumerate(cells)]
        book = {"cells": own, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        book["metadata"] = {
            "kernelspec": {"name": "python3", "display_name": "", "language": "python"}
        }
        (folder / "notebooks" / f"0{number}_x.ipynb").write_text(__import__("json").dumps(book))


PHOTOS = f"train --dataset folder:../given/images --method ce --runs runs --augment resized_crop --image-size 16 --network resnet32 {SMALL}"
COMMANDS = {
    "train": Command(f"train --runs runs --record records.json {SMALL}"),
    "train, image files": Command(f"{PHOTOS} --skip-unreadable 1 --workers 0"),
    "train, decoding processes": Command(f"{PHOTOS} --workers 2", others=True),
    "train, two processes": Command(
        f"train --runs runs --devices 2 --accelerator cpu {SMALL}", others=True
    ),
    "grid run": Command("grid run grid.yaml --runs runs --workers 2", before=grid, others=True),
    "grid collect": Command(
        "grid collect ../given/grid.yaml --runs ../given/runs --out out/a.parquet --records out/a.json"
    ),
    "study": Command("study --out study --runs runs --workers 2", before=project, others=True),
    "tables": Command("tables", before=project),
    "students": Command("students --out copies", before=project),
    "split": Command("split ../given/images/train out --validation 0.2"),
    "predict --csv": Command("predict ../given/run ../given/images --csv out/classes.csv"),
    "report --out": Command("report ../given/run --out out/page.html"),
    "export": Command("export ../given/run --format torchscript --out model.pt"),
    "make gpu-bundle": Command("", entry="faults:make_bundle"),
}


def make_bundle(words: list[str]) -> int:
    """`make gpu-bundle` of a small CIFAR-10; packages are not installed but stand-ins written."""
    import importlib.util

    from gcl_core.data import sources

    place = Path(__file__).parents[1] / "gpu" / "bundle.py"
    spec = importlib.util.spec_from_file_location("gpu_bundle", place)
    assert spec is not None and spec.loader is not None
    bundle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bundle)
    sources.CIFAR_TEST_IMAGES = 10
    bundle._packages = lambda folder: (folder.mkdir(), (folder / "a.py").write_text("1"))
    sys.argv = ["bundle.py", "--dataset", "cifar10:../given/cifar", "--out", "bundle"]
    sys.argv += ["--grid", "../given/cifar.yaml"]
    return bundle.main()


def give(place: Path) -> None:
    """What the commands read: images, finished runs, a small CIFAR-10."""
    import numpy as np
    from PIL import Image

    from gcl_core.data.sources import CIFAR10

    given = place / "given"
    given.mkdir()
    image_folder(given / "images", train=20, test=4, size=(24, 24))
    images = image_folder(given / "more", train=9, test=4, size=(24, 24))
    shutil.copytree(images / "test", images / "val")
    grid(given)
    random = np.random.default_rng(0)
    for part, number in (("train", 6), ("test", 1)):
        for name in CIFAR10[0].split():
            folder = given / "cifar" / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (given / "cifar.yaml").write_text(
        "dataset: cifar10\npreset: smoke\nsettings: {n_max: 6}\ncells:\n"
        "  - {method: ce, imbalance_ratio: [2, 3], data_seed: [0, 1]}\n"
    )
    for words in (
        f"train --dataset folder:more --method ce --runs run_of --network resnet32 {SMALL}",
        "grid run grid.yaml --runs runs --workers 1",
    ):
        done = Trial(given, Command(words)).finish()
        assert done.status == 0, done.err
    (given / "run").symlink_to(next((given / "run_of").iterdir()))


# A trial


class Trial:
    """A command in a folder, with something done to it first."""

    def __init__(
        self, folder: Path, command: Command, fault: Callable[[], None] | None = None
    ) -> None:
        self.counted = folder.parent / "counted"
        begin = functools.partial(
            begin_trial, folder, self.counted, command.words.split(), command.entry, fault
        )
        self.forked = Forked(*command.words.split(), sabotage=begin)
        self.began = time.monotonic()

    @property
    def family(self) -> list[psutil.Process]:
        """Its process, and those that it has started."""
        try:
            first = psutil.Process(self.forked.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, *, others_only: bool, choose: random.Random) -> bool:
        """Kill it and all that it has started, or one of these alone; whether there was one."""
        family = self.family
        chosen = choose.sample(family[1:], 1) if others_only and family[1:] else family
        if others_only and not family[1:]:
            return False
        for each in chosen:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                pass
        return bool(chosen)

    def finish(self) -> Outcome:
        """Its end; a status of 999 is a process that did not end, and was killed."""
        try:
            outcome = self.forked.finish(PATIENCE)
        except AssertionError:
            err = self.forked.err
            self.kill(others_only=False, choose=random.Random())
            return Outcome(999, "", err)
        self.seconds = time.monotonic() - self.began
        return outcome


def begin_trial(
    folder: Path, counted: Path, words: list[str], entry: str, fault: Callable[[], None] | None
) -> None:
    """In the process of a trial: its folder, its fault, and how often it changes files."""
    os.chdir(folder)
    os.environ["GCL_CACHE"] = str(folder / "cache")
    # What it starts is started as from a shell.
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.orig_argv = [sys.executable, "-m", "gcl_core", *words]
    sabotage.count_changes(counted)
    if fault is not None:
        fault()
    if entry != "gcl_core.cli:main":
        module, _, name = entry.partition(":")
        sys.exit(getattr(__import__(module), name)([]))


def files_of(folder: Path) -> dict[str, object]:
    """Every file by its place, as what it is compared by."""
    found: dict[str, object] = {}
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if APART & set(inside.parts) or file.name.endswith(".lock") or not file.is_file():
            continue
        content = file.read_bytes()
        if file.name.endswith(".tar.xz"):
            with tarfile.open(file) as archive:
                found[str(inside)] = [
                    (each.name, archive.extractfile(each).read() if each.isfile() else b"")  # type: ignore[union-attr]
                    for each in sorted(archive.getmembers(), key=lambda each: each.name)
                ]
        elif file.name == "checkpoint.pt":  # that of a continued run has the same in other bytes
            found[str(inside)] = load_tensors(file)
        else:
            found[str(inside)] = hashlib.sha256(content).hexdigest()
    return found


def unlike(ours: dict[str, object], theirs: dict[str, object]) -> str:
    """The first file that differs between two results."""
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            return f"{name} is {'missing' if name in theirs else 'left over'}"
        if not equal(ours[name], theirs[name]):
            return f"{name} differs"
    return ""


def told(outcome: Outcome) -> bool:
    """Whether a command that failed said why in one line, the last one."""
    lines = outcome.err.splitlines()
    ours = [line for line in lines if line.startswith(("gcl: ", "gpu-bundle: "))]
    return outcome.status == 1 and ours == lines[-1:] and "Traceback" not in outcome.err


class Campaign:
    """The trials of one command."""

    def __init__(self, name: str, place: Path, choose: random.Random) -> None:
        self.name, self.command, self.choose = name, COMMANDS[name], choose
        self.folder = place / "trial"
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []
        whole = self.trial()
        done = whole.finish()
        assert done.status == 0, done.err
        self.seconds, self.changes = whole.seconds, whole.counted.stat().st_size
        self.whole = files_of(self.folder)
        sizes = [each.stat().st_size for each in self.folder.rglob("*") if each.is_file()]
        self.largest, self.bytes = max(sizes), sum(sizes)
        again = self.trial()
        assert again.finish().status == 0
        assert not (apart := unlike(files_of(self.folder), self.whole)), f"{name} twice: {apart}"
        print(f"{name}: {self.seconds:.1f} s, {self.changes} changes of files", flush=True)

    def trial(self, fault: Callable[[], None] | None = None, fresh: bool = True) -> Trial:
        """A start of the command, in a fresh folder or in what there is."""
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            self.command.before(self.folder)
        return Trial(self.folder, self.command, fault)

    def judge(self, kind: str, fault: str, broken: Outcome) -> None:
        """Run the command again, and say what has come of it."""
        again = self.trial(fresh=False).finish()
        apart = unlike(files_of(self.folder), self.whole)
        problem = ""
        if broken.status == 999 or again.status == 999:
            problem = "hangs"
        elif broken.status not in (0, -signal.SIGKILL, -signal.SIGXFSZ) and not told(broken):
            problem = f"ends with {broken.status}: {broken.err.splitlines()[-1:]}"
        elif again.status and (not told(again) or apart):  # a refusal to write over what is whole
            problem = f"the second time ends with {again.status}: {again.err.splitlines()[-1:]}"
        elif apart:
            problem = apart
        self.counts[f"{kind} tried"] += 1
        self.counts[f"{kind} line"] += broken.status == 1 and told(broken)
        self.counts[f"{kind} whole"] += broken.status == 0
        if problem:
            self.lost.append(f"{self.name}, {fault}: {problem}")
            print("  LOST", self.lost[-1], flush=True)
            log = Path(
                f"/tmp/faults-{len(self.lost)}-{self.name.replace(' ', '-').replace(',', '')}.log"
            )
            log.write_text(f"{fault}\n{broken.err}\n-----\n{again.err}")

    def moments(self, number: int) -> list[int]:
        """Some of the changes of files, 1 for the first; the first and the last among them."""
        every = range(1, self.changes + 1)
        if len(every) <= number:
            return list(every)
        return sorted({1, len(every), *self.choose.sample(every, max(0, number - 2))})

    def run(self, number: int) -> None:
        """About `number` trials of each kind."""
        for moment in self.moments(number):
            fault = functools.partial(sabotage.die_at_change, moment)
            self.judge("killed", f"killed before change {moment}", self.trial(fault).finish())
        for size in sorted(self.choose.randrange(1, self.largest) for _ in range(number // 4)):
            fault = functools.partial(sabotage.small_files_only, size, die=True)
            self.judge("killed", f"killed in a file at byte {size}", self.trial(fault).finish())
        for moment in self.moments(number):
            fault = functools.partial(sabotage.no_space_from_change, moment)
            self.judge("full", f"no space from change {moment} on", self.trial(fault).finish())
        for size in sorted(self.choose.randrange(1, self.bytes) for _ in range(number // 4)):
            with self.small_disk(size):
                broken = self.trial(fresh=False).finish()
                subprocess.run(["mount", "-o", "remount,size=1g", self.folder], check=True)
                self.judge("full", f"a disk of {size} bytes", broken)
        self.judge("network", "no network", self.trial(sabotage.no_network).finish())
        if self.command.others:
            for only in (False, True):
                for _ in range(number // 2):
                    self.at_a_time(self.choose.uniform(0, self.seconds), others_only=only)

    def at_a_time(self, seconds: float, *, others_only: bool) -> None:
        """Kill all, or one of the processes that it has started, at some time."""
        trial = self.trial()
        trial.forked.process.join(seconds)
        while others_only and trial.forked.process.is_alive():
            if trial.kill(others_only=True, choose=self.choose):
                break
            time.sleep(0.05)
        if not others_only:
            trial.kill(others_only=False, choose=self.choose)
        what = "another process" if others_only else "all"
        kind = "others" if others_only else "killed"
        self.judge(kind, f"{what} killed after {seconds:.1f} s", trial.finish())

    def small_disk(self, size: int) -> "SmallDisk":
        """The trial's folder on a disk of its own, which has room for so many bytes."""
        return SmallDisk(self, size)


class SmallDisk:
    def __init__(self, campaign: Campaign, size: int) -> None:
        self.campaign, self.size = campaign, size

    def __enter__(self) -> None:
        folder = self.campaign.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder], check=True)
        self.campaign.command.before(folder)
        used = shutil.disk_usage(folder).used
        subprocess.run(["mount", "-o", f"remount,size={used + self.size}", folder], check=True)

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", "-l", self.campaign.folder], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", nargs="*", help="some of them (all)")
    parser.add_argument("--trials", type=int, default=12, help="of each kind, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", type=Path, default=Path("/tmp/gcl-faults"))
    given = parser.parse_args()
    shutil.rmtree(given.place, ignore_errors=True)
    given.place.mkdir(parents=True)
    give(given.place)
    rows, lost = [], []
    for name in given.command or COMMANDS:
        campaign = Campaign(name, given.place, random.Random(f"{given.seed} {name}"))
        campaign.run(given.trials)
        rows.append(f"| `{name}` | {dict(campaign.counts)} | {len(campaign.lost)} |")
        lost += campaign.lost
        print(rows[-1], flush=True)
    print("\n".join([*rows, *lost]))
    return bool(lost)


if __name__ == "__main__":
    SERVER.set_forkserver_preload(
        [
            "gcl_core.cli",
            "gcl_core.training.two_stages",
            "gcl_core.study",
            "gcl_core.grid.cluster",
            "gcl_core.grid.parquet",
            "gcl_core.report.page",
            "gcl_core.inference.export",
            "gcl_core.results.chosen",
            "gcl_core.results.page",
            "pytest",
            "faults",
        ]
    )
    sys.exit(main())
