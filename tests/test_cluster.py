"""Grids on Dask: every step once, whatever fails, dies or goes away, and the same bits."""

import errno
import functools
import gc
import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import nbformat
import pytest
from distributed import Client, LocalCluster
from nbformat.v4 import new_code_cell, new_notebook

from bits import checkpoints, equal, tree
from gcl_core import cli
from gcl_core.grid import cluster, commands
from gcl_core.grid.cells import cells_of
from gcl_core.grid.cluster import do
from gcl_core.grid.failures import failure_of, keep_failure
from gcl_core.grid.steps import Step, jobs_of, state_of, steps_left
from gcl_core.training.runs import RESULTS_VERSION, RunFolder
from gcl_core.training.two_stages import run
from processes import wait_until

TOP = "dataset: digits\npreset: smoke\nsettings: {n_max: 60, imbalance_ratio: 10}\ncells:\n"
PAIR = "  - {method: gcl_crt, stage2_sampler: [class, instance]}\n"
LONG = "  - {method: gcl_crt, epochs: 60, stage2_epochs: 2, stage2_sampler: [class, instance]}\n"
EXPLODING = "lr: 1000, weight_decay: 1000, warmup: 0, batch_size: 2"
FAILING = f"  - {{method: ce_crt, {EXPLODING}, seed: [0, 1]}}\n"


def grid(folder, entries):
    (folder / "grid.yaml").write_text(TOP + entries)
    return folder / "grid.yaml"


def main(*words):
    return cli.main(["grid", *map(str, words)])


def jobs(file, runs):
    return jobs_of(cells_of(file), runs)


def timed_epochs(runs):
    """Epochs that were trained, in any process, by folder."""
    return {
        file.parent.name: [line.split(",")[0] for line in file.read_text().splitlines()[1:]]
        for file in runs.glob("*/timing.csv")
    }


def assert_same_as_alone(file, runs, tmp_path):
    """The folders are those of the same runs trained here, one after another, bit by bit."""
    alone = tmp_path / "alone"
    for job in jobs(file, alone):
        run(job.cell.settings, alone, progress="none")
    assert tree(runs) == tree(alone)
    assert equal(checkpoints(runs), checkpoints(alone))
    names = [{p.relative_to(place) for p in place.rglob("*")} for place in (runs, alone)]
    # A grid trains a first stage as a run of its own, which leaves its network for predictions.
    assert {name for name in names[0] ^ names[1] if name.name != "model.pt"} == set()


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary files of this test go, of its processes too."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_grid_runs_each_step_once_and_a_failure_stops_no_other(tmp_path, capsys, caplog, scratch):
    caplog.set_level(logging.INFO)
    file, runs = grid(tmp_path, FAILING + PAIR), tmp_path / "runs"
    assert main("run", file, "--runs", runs, "--workers", 2) == 1
    out, _ = capsys.readouterr()
    assert (
        out.count("failed: stage 1 failed: GCLError: stage 1, epoch 1: the training loss is") == 2
    )
    assert "4 cells: 2 done, 2 failed" in out
    lines = [record.getMessage() for record in caplog.records]
    assert sorted(line[:3] for line in lines if "/4 " in line) == ["1/4", "2/4", "3/4", "4/4"]
    assert {record.name.split(".")[0] for record in caplog.records} == {"gcl_core"}
    # Three stages 1, of which one is shared and two have failed, and two stages 2.
    assert sorted(map(len, timed_epochs(runs).values())) == [1, 1, 3]
    failed = jobs(file, runs)[0].steps[0].folder.path
    error = json.loads((failed / "error.json").read_text())
    assert error["type"] == "GCLError"
    assert "in train_stage" in error["traceback"]
    assert list(scratch.iterdir()) == []

    # Again: what is done is done, what failed is left out, and no cluster is started.
    stamps = {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.is_file()}
    caplog.clear()
    assert main("run", file, "--runs", runs) == 1
    assert "2 failed before and are left out; --retry-failed tries them again" in caplog.text
    assert {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.is_file()} == stamps

    # Only when it is asked for is it tried again; without failures the status is 0.
    assert main("run", file, "--runs", runs, "--workers", 1, "--retry-failed") == 1
    assert (failed / "error.json").stat().st_mtime_ns > stamps[failed / "error.json"]
    good, alone = grid(tmp_path, PAIR), tmp_path / "good"
    for job in jobs(good, runs):
        for folder in job.folders:
            alone.mkdir(exist_ok=True)
            if not (alone / folder.path.name).exists():
                folder.path.rename(alone / folder.path.name)
    assert main("run", good, "--runs", alone) == 0
    assert_same_as_alone(good, alone, tmp_path)


def kill_worker_after(runs, rows, times=1):
    """A thread that kills the workers of this process once some run has so many epochs."""
    killed = []

    def epochs():
        return max(
            (len(file.read_text().splitlines()) for file in runs.glob("*/metrics.csv")), default=0
        )

    def kill():
        enough = rows
        for _ in range(times):
            wait_until(lambda: epochs() > enough)  # noqa: B023
            enough = epochs() + 8  # so that the next one is killed at work, and not at its start
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread, killed


def test_a_worker_killed_in_a_run_is_replaced_and_the_bits_are_the_same(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    file, runs = grid(tmp_path, LONG), tmp_path / "runs"
    thread, killed = kill_worker_after(runs, 5, times=2)
    assert main("run", file, "--runs", runs, "--workers", 1) == 0
    thread.join()
    assert len(killed) == 2
    assert caplog.text.count("workers that went away: 1; others go on") == 2
    epochs = max(timed_epochs(runs).values(), key=len)
    assert epochs[0] == "1" and epochs[-1] == "60"
    assert len(epochs) < 60 + 2 + 1  # it went on, and did not begin anew
    assert_same_as_alone(file, runs, tmp_path)


def test_a_step_that_kills_its_workers_is_given_up_in_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "DEATHS", 0)
    file, runs = grid(tmp_path, LONG + "  - {method: ce, seed: 1}\n"), tmp_path / "runs"
    thread, killed = kill_worker_after(runs, 2)
    assert main("run", file, "--runs", runs, "--workers", 1) == 1
    thread.join()
    assert len(killed) == 1
    out = capsys.readouterr().out
    assert out.count("interrupted: stage 1 failed: KilledWorker: 1 workers died at it") == 2
    assert "3 cells: 1 done, 2 interrupted" in out


def command(file, runs, *words):
    return [sys.executable, "-m", "gcl_core", "grid", "run", file, "--runs", runs, *words]


def start(file, runs, *words):
    # A shell has its background processes ignore Ctrl-C, and children inherit that.
    return subprocess.Popen(
        [str(word) for word in command(file, runs, "--workers", 1, *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def test_two_grids_at_once_never_write_one_run(tmp_path):
    file, runs = grid(tmp_path, LONG), tmp_path / "runs"
    both = [start(file, runs) for _ in range(2)]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    for epochs in timed_epochs(runs).values():
        assert epochs == [str(e + 1) for e in range(len(epochs))]
    assert sorted(map(len, timed_epochs(runs).values())) == [2, 2, 60]
    assert_same_as_alone(file, runs, tmp_path)


def alive(group):
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_stops_the_workers_and_says_how_to_continue(tmp_path, scratch):
    file, runs = grid(tmp_path, LONG), tmp_path / "runs"
    process = start(file, runs)
    wait_until(lambda: any(len(e) > 3 for e in timed_epochs(runs).values()))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines() == [
        "2 cells, 0 of them done",
        "gcl: interrupted; the same command continues after the last saved epoch",
    ]
    wait_until(lambda: not alive(process.pid), 10)
    assert list(scratch.iterdir()) == []
    # One of the two may not have come to its first epoch yet.
    assert "interrupted" in {state_of(job).kind for job in jobs(file, runs)}


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "nonsense", "nonsense://x:1", "tls://127.0.0.1:1"]
)
def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path, capsys, monkeypatch, address):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    file = grid(tmp_path, PAIR)
    assert main("run", file, "--runs", tmp_path / "runs", "--scheduler", address) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"gcl: no scheduler answers at {address} (")
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()
    # Dask's own leaves some open, and the thread that collects those may wait for itself.
    clients = [each for each in gc.get_objects() if issubclass(type(each), Client)]
    assert {client.status for client in clients} <= {"closed"}


def test_what_accepts_and_never_answers_is_given_up(tmp_path, capsys, monkeypatch):
    """Such as the port of the dashboard, one number from that of the scheduler."""
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        file = grid(tmp_path, PAIR)
        assert main("run", file, "--runs", tmp_path / "runs", "--scheduler", address) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"gcl: no scheduler answers at {address} (")


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler in a process of its own, and what starts workers for it."""
    file, processes = tmp_path / "scheduler.json", []

    def start(*words):
        line = [sys.executable, "-m", "dask", *words, "--scheduler-file", str(file)]
        with (tmp_path / f"{words[0]}.log").open("w") as log:
            processes.append(subprocess.Popen(line, stdout=log, stderr=log, cwd=tmp_path))
        return processes[-1]

    first = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    wait_until(lambda: file.exists() and file.read_text().endswith("}"))
    yield json.loads(file.read_text())["address"], first, start
    for process in processes:
        process.kill()
        process.wait()


WORKER = ("worker", "--no-dashboard", "--host", "127.0.0.1", "--nthreads")


def test_a_running_cluster_is_used_checked_and_missed_when_it_goes(
    tmp_path, scheduler, monkeypatch, capsys
):
    address, process, start = scheduler
    file, runs = grid(tmp_path, LONG), tmp_path / "runs"
    words = ("run", file, "--runs", runs, "--scheduler", address)

    wide = start(*WORKER, "2")
    wait_until(lambda: "Registered" in (tmp_path / "worker.log").read_text())
    assert main(*words) == 1
    assert "has 2 threads; start it with --nthreads 1" in capsys.readouterr().err
    wide.terminate()
    wide.wait()

    start(*WORKER, "1")
    wait_until(lambda: "Registered" in (tmp_path / "worker.log").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "RESULTS_VERSION", -1)
        assert main(*words) == 1
    assert "not -1; install the same gcl_core there" in capsys.readouterr().err
    assert not runs.exists()

    def kill():
        wait_until(lambda: any(len(e) > 3 for e in timed_epochs(runs).values()))
        process.kill()

    thread = threading.Thread(target=kill)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "ANSWER_SECONDS", 2)
        thread.start()
        assert main(*words) == 1
        thread.join()
    err = capsys.readouterr().err
    assert f"gcl: the scheduler {address} went away" in err
    assert "Traceback" not in err
    assert main("run", file, "--runs", runs, "--workers", 1) == 0  # on this machine instead
    assert_same_as_alone(file, runs, tmp_path)


def test_a_late_worker_that_is_unfit_is_left_out(tmp_path, scheduler, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    address, _, start = scheduler
    file, runs = grid(tmp_path, PAIR), tmp_path / "runs"
    given = []

    submit = Client.submit

    def watched(client, *args, workers=None, **kwargs):
        given.append(workers)
        return submit(client, *args, workers=workers, **kwargs)

    monkeypatch.setattr(Client, "submit", watched)

    def come():
        wait_until(lambda: "waiting for them" in caplog.text)
        start(*WORKER, "2")
        wait_until(lambda: "has 2 threads" in caplog.text, 300)  # it imports torch first
        start(*WORKER, "1")

    thread = threading.Thread(target=come)
    thread.start()
    assert main("run", file, "--runs", runs, "--scheduler", address) == 0
    thread.join()
    (line,) = [message for message in caplog.messages if message.startswith("left out")]
    assert line.endswith("has 2 threads; start it with --nthreads 1")
    wide = line.split()[3]
    assert len(given) == 3  # one worker each, and never that one
    assert {len(each) for each in given} == {1}
    assert [wide] not in given


def test_a_late_worker_with_another_version_is_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    client = Workers({"tcp://a": (1, RESULTS_VERSION)})
    crew = cluster._Crew(client, "tcp://scheduler")
    client.there |= {
        "tcp://b": (1, RESULTS_VERSION - 1),
        "tcp://c": (1, ImportError("no gcl_core")),
        "tcp://d": (1, OSError("gone again")),
        "tcp://e": (1, RESULTS_VERSION),
    }
    for _ in range(2):
        assert list(crew.look()) == ["tcp://a", "tcp://e"]
    assert caplog.messages == [
        f"left out: worker tcp://b has results version {RESULTS_VERSION - 1}, not "
        f"{RESULTS_VERSION}; install the same gcl_core there",
        "left out: worker tcp://c cannot import gcl_core: no gcl_core",
    ]
    del client.there["tcp://b"]
    client.there["tcp://d"] = (1, RESULTS_VERSION)
    assert list(crew.look()) == ["tcp://a", "tcp://d", "tcp://e"]
    client.there["tcp://b"] = (1, RESULTS_VERSION)  # put right
    assert list(crew.look()) == ["tcp://a", "tcp://b", "tcp://d", "tcp://e"]


class Workers:
    """A client of a scheduler whose workers have so many threads and such an answer."""

    def __init__(self, there):
        self.there = there

    def processing(self):
        return dict.fromkeys(sorted(self.there), ())

    def nthreads(self):
        return {address: threads for address, (threads, _) in self.there.items()}

    def run(self, function, workers, on_error):
        assert (function, on_error) == (cluster.results_version, "return")
        return {address: self.there[address][1] for address in sorted(workers)}


def test_without_any_worker_left_it_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    clusters = []

    class Watched(LocalCluster):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            clusters.append(self)

    file, runs = grid(tmp_path, LONG), tmp_path / "runs"

    def end():
        """What is left when a worker dies while it is started: Dask does not try again."""
        wait_until(lambda: any(len(e) > 3 for e in timed_epochs(runs).values()))
        clusters[0].sync(clusters[0].workers[0].close)

    thread = threading.Thread(target=end)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "ALONE_SECONDS", 0.5)
        patch.setattr(cluster, "LocalCluster", Watched)
        thread.start()
        assert main("run", file, "--runs", runs, "--workers", 1) == 1
        thread.join()
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == (
        "gcl: no worker is left on this machine, and none is started again; "
        "the same command continues after the last saved epochs"
    )
    assert "Traceback" not in err
    assert main("run", file, "--runs", runs, "--workers", 1) == 0
    assert_same_as_alone(file, runs, tmp_path)


class Instant:
    """A client, and the future, of two workers that do every step the moment they get it."""

    status = "finished"

    def processing(self):
        return {"tcp://a": (), "tcp://b": ()}

    def submit(self, *args, **kwargs):
        return Instant()

    def add_done_callback(self, call):
        call(self)

    def exception(self, timeout):
        return None

    result = exception


def test_the_work_for_a_step_does_not_grow_with_the_grid(tmp_path, monkeypatch):
    looked = Counter()
    key = Step.key.fget
    counted = property(lambda step: looked.update([key(step)]) or key(step))
    entries = "  - {method: gcl_crt, seed: [SEEDS], stage2_sampler: [class, instance]}\n"
    file = grid(tmp_path, entries.replace("SEEDS", ",".join(map(str, range(60)))))
    left, told = steps_left(jobs(file, tmp_path / "runs")), []
    monkeypatch.setattr(cluster, "_client", lambda *_: nullcontext(Instant()))
    monkeypatch.setattr(Step, "key", counted)
    cluster.execute(left, lambda step, *_: told.append(step), workers=2)
    assert len(told) == len(set(map(id, told))) == 180
    assert all(step.after is None or told.index(step.after) < told.index(step) for step in told)
    assert max(looked.values()) < 20


@pytest.mark.parametrize("failures", [1, 3])
def test_workers_that_cannot_be_started_are_tried_again(tmp_path, capsys, monkeypatch, failures):
    """Such as one that is killed while it starts, or all of them on a full disk."""
    tried = []

    def broken(**kwargs):
        tried.append(kwargs)
        if len(tried) <= failures:
            raise RuntimeError("Nanny failed to start.\nAnd more")
        return LocalCluster(**kwargs)

    monkeypatch.setattr(cluster, "LocalCluster", broken)
    file = grid(tmp_path, "  - {method: ce, epochs: 1, n_max: 20}\n")
    status = main("run", file, "--runs", tmp_path / "runs", "--workers", 1)
    err = capsys.readouterr().err
    assert (status, len(tried)) == ((0, 2) if failures == 1 else (1, 3))
    assert "Traceback" not in err
    if failures == 3:
        assert err.splitlines()[-1].startswith(
            "gcl: workers cannot be started on this machine (Nanny failed to start.); is there mem"
        )


def test_a_grid_whose_time_is_over_ends_and_continues_with_the_same_bits(
    tmp_path, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    file, runs = grid(tmp_path, LONG), tmp_path / "runs"
    first = jobs(file, runs)[0].steps[0].folder
    words = ("run", file, "--runs", runs, "--workers", 1)
    with monkeypatch.context() as patched:  # an hour passes with the third epoch
        clock = SimpleNamespace(monotonic=lambda: 3600.0 * (first.epochs_done >= 3))
        patched.setattr(cluster, "time", clock)
        patched.setattr(cluster, "LOOK_SECONDS", 0.05)
        assert main(*words, "--minutes", 1) == 1
    assert "the time is over; the same command continues" in caplog.text
    assert state_of(jobs(file, runs)[0]).kind != "done"
    assert main(*words) == 0
    assert_same_as_alone(file, runs, tmp_path)


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--per-gpu", 0), "argument --per-gpu: must be a whole number from 1 to 1024, got '0'"),
        (("--per-gpu", 2), "--per-gpu is for runs on a GPU, and none is left here; take --workers"),
        (("--per-gpu", 2, "--workers", 2), "--workers: not allowed with argument --per-gpu"),
        (("--accelerator", "gpu"), "there is no GPU here; --accelerator cpu runs the grid without"),
        (("--minutes", 0), "argument --minutes: must be a whole number from 1 to 1024, got '0'"),
        (("--minutes", 1, "--scheduler", "x"), "--scheduler: not allowed with argument --minutes"),
    ],
)
def test_what_a_grid_cannot_share_or_end_is_refused(tmp_path, capsys, words, refusal):
    assert main("run", grid(tmp_path, PAIR), "--runs", tmp_path / "runs", *words) == 1
    err = capsys.readouterr().err.splitlines()
    assert refusal in err[-1]
    assert not list(tmp_path.rglob("settings.json"))


def test_each_gpu_has_as_many_workers(monkeypatch):
    monkeypatch.setattr("gcl_core.hardware.gpus", lambda: 2)
    steps = [Step(None, None, device="cpu"), Step(None, None, device="gpu")]

    def workers(workers=None, per_gpu=None):
        return commands._workers(SimpleNamespace(workers=workers, per_gpu=per_gpu), steps)

    assert (workers(), workers(per_gpu=3), workers(workers=5)) == (2, 6, 5)


def test_beside_a_gpu_all_cores_decode(monkeypatch):
    """A worker of Dask starts no processes, and one thread would leave the GPU waiting."""
    monkeypatch.setattr("gcl_core.hardware.usable_cores", lambda: 32)
    steps = {kind: [Step(None, None, device=kind)] for kind in ("cpu", "gpu")}

    def threads(kinds=("gpu",), given=None, scheduler=None):
        options = SimpleNamespace(threads=given, scheduler=scheduler)
        return commands._threads(options, [step for kind in kinds for step in steps[kind]], 2)

    assert (threads(), threads(given=3), threads(scheduler="tcp://x")) == (16, 3, 1)
    assert threads(("cpu",)) == threads(("cpu", "gpu")) == 1


# A step, without a cluster


def test_a_worker_with_other_images_writes_nothing_of_its_own(tmp_path, monkeypatch):
    (step, *_) = steps_left(jobs(grid(tmp_path, PAIR), tmp_path / "runs"))
    monkeypatch.setattr("gcl_core.data.sources.DIGITS_TEST_IMAGES", 49)
    assert do(step, 1).startswith("GCLError: images or version of gcl_core on the worker")
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [step.key]


def test_a_failure_that_cannot_be_kept_is_told_all_the_same(tmp_path):
    (step, *_) = steps_left(jobs(grid(tmp_path, PAIR), tmp_path / "runs"))
    (tmp_path / "runs").write_text("mine")
    assert "cannot use run folder" in do(step, 1)
    assert "not kept" in do(step, 1)


def test_a_step_that_found_no_space_is_tried_again_by_itself(tmp_path, monkeypatch):
    (job, _) = jobs(grid(tmp_path, PAIR), tmp_path / "runs")
    step, *_ = job.steps
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint.pt")
        patch.setattr(RunFolder, "save_checkpoint", Mock(side_effect=full))
        assert do(step, 1).startswith("OSError: [Errno 28] No space left on device")
    assert step in steps_left([job])
    assert do(step, 1) is None
    assert step.folder.is_finished


def test_a_result_that_another_process_has_written_is_no_failure(tmp_path):
    (step, *_) = steps_left(jobs(grid(tmp_path, PAIR), tmp_path / "runs"))
    with step.folder.opened():
        step.folder.finish({"top1": 1.0})
    keep_failure(step.folder, "ValueError", "late", "")
    assert failure_of(step.folder) is None
    assert not (step.folder.path / "error.json").exists()


def test_a_notebook_is_executed_by_a_worker(tmp_path, monkeypatch, capsys):
    (tmp_path / "gcl_core").mkdir()
    (tmp_path / "gcl_core" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    code = "n: int = 1  # of what it divides by\nruns: str = ''  # where"
    book = [
        new_code_cell(code, metadata={"tags": ["parameters"]}),
        new_code_cell("print(6 / n, runs)"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=book, metadata={"kernelspec": kernel}), "book.ipynb")
    file, runs = grid(tmp_path, "  - {notebook: book.ipynb, n: [2, 0]}\n"), tmp_path / "runs"
    assert main("run", file, "--runs", runs, "--workers", 1) == 1
    out = capsys.readouterr().out
    assert "book.ipynb, n 2  done" in out
    assert "failed: GCLError: book.ipynb failed in cell 3: ZeroDivisionError" in out
    (done, _) = jobs(file, runs)
    executed = nbformat.read(done.folders[0].path / "book.ipynb", 4)
    assert executed.cells[-1].outputs[0].text == f"3.0 {runs}\n"
