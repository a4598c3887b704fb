"""Kill, fill the disk and cut the network at moments of every command that writes; count the ends.

    make faults ARGS="train split --trials 12 --seed 0"     # as root: it mounts small disks

Each trial breaks a command once, runs the same command again, and compares every file with those of
a run that nothing disturbed. The moments are the changes of files: each that is opened to be
written, synchronised, renamed or removed, and each folder that is made. Where other processes do
the work, everything, or one of them alone, is killed at some time instead.
"""

import argparse
import atexit
import contextlib
import functools
import hashlib
import importlib.util
import os
import random
import re
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
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.util import Finalize
from pathlib import Path

import nbformat
import psutil
import safetensors.torch
import timm
from nbformat.v4 import new_code_cell, new_notebook

import sabotage
from bits import equal
from gcl_core.files import load_tensors
from processes import SERVER, Forked, Outcome
from toys import image_folder

ROOT = Path(__file__).parents[1]
PATIENCE = 600.0  # seconds until a command counts as hanging
APART = {"timing.csv", "__pycache__"}  # of no two runs the same
KEPT = (".lock", ".incomplete")  # the latter by the hub, of each file that it had begun to fetch
SECONDS = re.compile(rb'"core_seconds": \d+')  # of a notebook; nor are these
SMALL = "--preset smoke --epochs 2 --threads 1 --progress none"
FOLDER = "--dataset folder:../given/images --network resnet32 --image-size 16"
FETCHED = FOLDER.replace("resnet32 --image-size 16", "timm:test_resnet --image-size 32")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GCL_CHECKPOINT_SECONDS": "0", "TQDM_DISABLE": "1"}
ENVIRONMENT |= {"GCL_CACHE": "", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
PRELOADED = ["study", "grid.cluster", "grid.parquet", "report.page", "inference.export"]
PRELOADED += ["networks.pretrained", "results.chosen", "results.page", "training.two_stages", "cli"]


@dataclass(frozen=True)
class Command:
    """A command that writes, in a folder beside `given`, where what it reads is.

    Attributes:
        words: its arguments.
        before: makes what is in the folder before.
        others: whether other processes do its work.
        main: what to call instead of the command line.
        fetches: whether it fetches a file.
    """

    words: str
    before: Callable[[Path], None] = lambda folder: None
    others: bool = False
    main: Callable[[], int] | None = None
    fetches: bool = False


def grid(folder: Path) -> None:
    """A grid of eight short runs."""
    (folder / "grids").mkdir()
    (folder / "grids" / "digits.yaml").write_text(
        "{dataset: digits, preset: smoke, settings: {epochs: 2}, cells: [{method: [ce, gcl_crt], "
        "imbalance_ratio: [50, 100], 'seed, data_seed': [0, 1]}]}"
    )


def project(folder: Path) -> None:
    """A project of two small notebooks and that grid, with the real one's pages and records."""
    grid(folder)
    (folder / "gcl_core").symlink_to(ROOT / "gcl_core")
    for name in ("results", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "README.md", folder)
    (folder / "notebooks").mkdir()
    for number in range(2):
        cells = [new_code_cell("figures: str = ''  # folder", metadata={"tags": ["parameters"]})]
        cells.append(new_code_cell(f"print({number})"))
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        for place, cell in enumerate(cells):
            cell["id"] = f"cell{place}"
        book = new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(book, folder / "notebooks" / f"0{number}_x.ipynb")


def make_bundle() -> int:
    """`make gpu-bundle` of a small CIFAR-10, with a file in place of the packages."""
    from gcl_core.data import sources

    spec = importlib.util.spec_from_file_location("gpu_bundle", ROOT / "gpu" / "bundle.py")
    assert spec is not None and spec.loader is not None
    bundle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bundle)
    sources.CIFAR_TEST_IMAGES = 10
    bundle._packages = lambda folder: (folder.mkdir(), (folder / "a.py").write_text("1"))
    words = "--dataset cifar10:../given/cifar --grid ../given/cifar.yaml --out bundle"
    sys.argv = ["bundle.py", *words.split()]
    return bundle.main()


COMMANDS = {
    "train": Command(f"train --runs runs --record records.json {SMALL}"),
    "train, image files": Command(
        f"train {FOLDER} --method ce --runs runs --augment resized_crop --workers 0 {SMALL}"
    ),
    "train, decoding processes": Command(
        f"train {FOLDER} --method ce --runs runs --augment resized_crop --workers 2 {SMALL}",
        others=True,
    ),
    "train, weights fetched": Command(
        f"train {FETCHED} --weights default --method ce --runs runs {SMALL}", fetches=True
    ),
    "train --devices 2": Command(
        f"train --runs runs --devices 2 --accelerator cpu {SMALL}", others=True
    ),
    "grid run": Command("grid run grids/digits.yaml --runs runs --workers 2", grid, others=True),
    "grid collect": Command(
        "grid collect ../given/grids/digits.yaml --runs ../given/runs --out a.parquet --records a"
    ),
    "study": Command("study --out study --runs runs --workers 2", project, others=True),
    "tables": Command("tables", project),
    "students": Command("students --out copies", project),
    "split": Command("split ../given/images/train out --validation 0.2"),
    "predict --csv": Command("predict ../given/run ../given/images --csv out/classes.csv"),
    "report --out": Command("report ../given/run --out out/page.html"),
    "export": Command("export ../given/run --format torchscript --out model.pt"),
    "make gpu-bundle": Command("", main=make_bundle),
}


def give(given: Path) -> None:
    """What the commands read: images, finished runs, a small CIFAR-10."""
    from gcl_core.data.sources import CIFAR10

    given.mkdir()
    image_folder(given / "images", train=20, test=4, size=(24, 24))
    image_folder(given / "cifar", CIFAR10[0].split(), train=6, test=1, size=(32, 32))
    grid(given)
    (given / "cifar.yaml").write_text(
        "dataset: cifar10\npreset: smoke\nsettings: {n_max: 6}\ncells:\n"
        "  - {method: ce, imbalance_ratio: [2, 3], data_seed: [0, 1]}\n"
    )
    one = FOLDER.replace("../given/", "")
    for words in (
        f"{one} --method ce --runs single",
        "--method ce --imbalance-ratio 50 --runs runs",
        "--method gcl_crt --imbalance-ratio 50 --runs runs",
    ):
        done = Trial(given, Command(f"train {words} {SMALL}")).finish()
        assert done.status == 0, done.err
    (given / "run").symlink_to(next((given / "single").iterdir()))


class Hub(BaseHTTPRequestHandler):
    """timm's hub with one file, of which it sends at most so many bytes before it hangs up."""

    content = b""
    most = sys.maxsize

    def do_HEAD(self) -> None:
        """What the file is."""
        self.send_response(200)
        self.send_header("ETag", hashlib.sha256(self.content).hexdigest())
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        """The file, or the rest of it."""
        begin = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(self.content) - begin))
        self.end_headers()
        self.wfile.write(self.content[begin:][: self.most])

    def log_message(self, *words: object) -> None:
        """Nothing."""


def start_hub(place: Path) -> None:
    """Have what is fetched come from here."""
    network = timm.create_model("test_resnet")
    Hub.content = safetensors.torch.save(network.state_dict())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    os.environ["HF_HOME"] = str(place / "trial" / "hub")


# A trial


class Trial:
    """A command in a folder, with something done to it first."""

    def __init__(
        self, folder: Path, command: Command, fault: Callable[[], None] | None = None
    ) -> None:
        self.counted = folder.parent / "counted"
        words = command.words.split()
        begin = functools.partial(begin_trial, folder, self.counted, words, command.main, fault)
        self.forked = Forked(*words, sabotage=begin)
        self.began = time.monotonic()

    def kill(self, *, others_only: bool, choose: random.Random) -> bool:
        """Kill it and all that it has started, or one of these alone; whether there was one."""
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.forked.process.pid)
            others = first.children(recursive=True)
            if others_only and not others:
                return False
            for each in [choose.choice(others)] if others_only else [*others, first]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        return True

    def finish(self) -> Outcome:
        """Its end; a status of 999 is a process that did not end, and was killed."""
        try:
            outcome = self.forked.finish(PATIENCE)
        except AssertionError:
            self.kill(others_only=False, choose=random.Random())
            outcome = Outcome(999, "", self.forked.err)
        self.seconds = time.monotonic() - self.began
        return outcome


def begin_trial(
    folder: Path,
    counted: Path,
    words: list[str],
    main: Callable[[], int] | None,
    fault: Callable[[], None] | None,
) -> None:
    """In the process of a trial: its folder, its fault, and how often it changes files."""
    os.chdir(folder)
    os.environ["GCL_CACHE"] = str(folder / "cache")
    # What it starts is started as from a shell, and ended as at a process's own end.
    Finalize(None, lambda: (threading._shutdown(), atexit._run_exitfuncs()), exitpriority=100)
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.orig_argv = [sys.executable, "-m", "gcl_core", *words]
    sabotage.count_changes(counted)
    if fault is not None:
        fault()
    if main is not None:
        sys.exit(main())


def files_of(folder: Path) -> dict[str, object]:
    """Every file by its place, as what it is compared by."""
    found: dict[str, object] = {}
    for file in sorted(folder.rglob("*")):
        place = file.relative_to(folder)
        if APART & set(place.parts) or file.name.endswith(KEPT) or not file.is_file():
            continue
        if file.name.endswith(".tar.xz"):  # it has the times of its files
            with tarfile.open(file) as archive:
                parts = {each.name: archive.extractfile(each) for each in archive}
                found[str(place)] = {name: own and own.read() for name, own in parts.items()}
        elif file.name == "checkpoint.pt":  # that of a continued run has the same in other bytes
            found[str(place)] = load_tensors(file)
        else:
            found[str(place)] = hashlib.sha256(SECONDS.sub(b"", file.read_bytes())).hexdigest()
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
    """Whether a command that failed said why: in one line, the last one; a grid of each cell."""
    lines = outcome.err.splitlines()
    ours = [line for line in lines if line.startswith(("gcl: ", "gpu-bundle: "))]
    said = ours == lines[-1:] or re.search(r"^\d+ cells: ", outcome.out, re.MULTILINE)
    return outcome.status == 1 and bool(said) and "Traceback" not in outcome.err


class Campaign:
    """The trials of one command, and what came of them."""

    def __init__(self, name: str, place: Path, choose: random.Random) -> None:
        self.name, self.command, self.choose = name, COMMANDS[name], choose
        self.folder = place / "trial"
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []
        first = self.trial()
        done = first.finish()
        assert done.status == 0, done.err
        self.seconds, self.changes = first.seconds, first.counted.stat().st_size
        self.whole = files_of(self.folder)
        sizes = [each.stat().st_size for each in self.folder.rglob("*") if each.is_file()]
        self.largest, self.bytes = max(sizes), sum(sizes)
        assert self.trial().finish().status == 0
        assert not (apart := unlike(files_of(self.folder), self.whole)), f"{name} twice: {apart}"
        print(f"{name}: {self.seconds:.1f} s, {self.changes} changes of files", flush=True)

    def trial(self, fault: Callable[[], None] | None = None, *, fresh: bool = True) -> Trial:
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
        killed = (0, -signal.SIGKILL, -signal.SIGXFSZ)
        problem = apart
        if 999 in (broken.status, again.status):
            problem = "hangs"
        elif broken.status not in killed and not told(broken):
            problem = f"ends with {broken.status}: {broken.err.splitlines()[-1:]}"
        elif again.status and (apart or not told(again)):  # it may refuse to replace what is whole
            problem = f"the second time ends with {again.status}: {again.err.splitlines()[-1:]}"
        end = "lost" if problem else "line" if broken.status == 1 else "same"
        self.counts.update([f"{kind} tried", f"{kind} {end}"])
        if problem:
            self.lost.append(f"{self.name}, {fault}: {problem}")
            print(f"LOST: {self.lost[-1]}\n{broken.err}\n{again.err}", flush=True)

    def moments(self, number: int) -> list[int]:
        """Some of the changes of files, 1 for the first; the first and the last among them."""
        every = range(1, self.changes + 1)
        chosen = self.choose.sample(every, min(len(every), max(0, number - 2)))
        return sorted({1, len(every), *chosen})

    def run(self, number: int) -> None:
        """About `number` trials of each kind."""
        half = number // 2 if self.command.others else 0
        for moment in self.moments(half or number):
            fault = functools.partial(sabotage.die_at_change, moment)
            self.judge("killed", f"killed at change {moment}", self.trial(fault).finish())
        for size in sorted(self.choose.randrange(1, self.largest) for _ in range(number // 4)):
            fault = functools.partial(sabotage.small_files_only, size, die=True)
            self.judge("killed", f"killed in a file at byte {size}", self.trial(fault).finish())
        for moment in self.moments(half or number):
            fault = functools.partial(sabotage.no_space_from_change, moment)
            self.judge("full", f"no space from change {moment} on", self.trial(fault).finish())
        for size in sorted(self.choose.randrange(1, self.bytes) for _ in range(number // 4)):
            with self.small_disk(size):
                broken = self.trial(fresh=False).finish()
                subprocess.run(["mount", "-o", "remount,size=1g", self.folder], check=True)
                self.judge("full", f"a disk of {size} bytes", broken)
        self.judge("cut", "no network", self.trial(sabotage.no_network).finish())
        for _ in range(number // 2 if self.command.fetches else 0):
            Hub.most = self.choose.randrange(len(Hub.content) // 6)  # it is asked six times
            broken = self.trial().finish()
            Hub.most = sys.maxsize
            self.judge("cut", "the hub hangs up", broken)
        for only in half * (False, True):
            self.at_a_time(self.choose.uniform(0, self.seconds), others_only=only)

    def at_a_time(self, seconds: float, *, others_only: bool) -> None:
        """Kill all, or one of the processes that it has started, at some time."""
        trial = self.trial()
        trial.forked.process.join(seconds)
        while trial.forked.process.is_alive():
            if trial.kill(others_only=others_only, choose=self.choose):
                break
            time.sleep(0.05)
        kind, what = ("other", "another process") if others_only else ("killed", "all")
        self.judge(kind, f"{what} killed after {seconds:.1f} s", trial.finish())

    @contextlib.contextmanager
    def small_disk(self, size: int) -> Iterator[None]:
        """The trial's folder on a disk of its own, which has room for so many bytes more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", self.folder], check=True)
        try:
            self.command.before(self.folder)
            room = shutil.disk_usage(self.folder).used + size
            subprocess.run(["mount", "-o", f"remount,size={room}", self.folder], check=True)
            yield
        finally:
            subprocess.run(["umount", "-l", self.folder], check=True)

    @property
    def row(self) -> str:
        """A line of the table."""
        cells = [f"`{self.name}`", str(self.changes)]
        for kind in ("killed", "other", "full", "cut"):
            tried, line, lost = (self.counts[f"{kind} {end}"] for end in ("tried", "line", "lost"))
            same = tried - line - lost
            ends = f"{tried}: {same} / {line} / {lost}"
            cells.append(ends if tried else "-")
        return f"| {' | '.join(cells)} |"


def main() -> int:
    """Read the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", nargs="*", help=f"some of: {', '.join(COMMANDS)} (all)")
    parser.add_argument("--trials", type=int, default=12, help="of each kind, about (12)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--place", type=Path, default=Path("/tmp/gcl-faults"))
    given = parser.parse_args()
    os.environ |= ENVIRONMENT
    start_hub(given.place)
    SERVER.set_forkserver_preload([*(f"gcl_core.{name}" for name in PRELOADED), "timm", "pytest"])
    shutil.rmtree(given.place, ignore_errors=True)
    given.place.mkdir(parents=True)
    give(given.place / "given")
    lost: list[str] = []
    for name in given.command or COMMANDS:
        campaign = Campaign(name, given.place, random.Random(f"{given.seed} {name}"))
        campaign.run(given.trials)
        lost += campaign.lost
        print(campaign.row, flush=True)
    print(*lost, sep="\n")
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
