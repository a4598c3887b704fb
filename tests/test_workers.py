"""Image files decoded by processes: the same bits, what breaks in the middle, and little memory."""

import gc
import os
import shutil
import signal
from types import SimpleNamespace
from unittest.mock import Mock

import joblib
import pytest
import torch

from gcl_core.data import file_images, workers
from gcl_core.data.augment import ResizedCrop
from gcl_core.data.file_images import FileImages, Reading
from gcl_core.data.load import DataSettings, decoded_by, load_dataset
from gcl_core.data.workers import Processes, Task, Threads
from gcl_core.errors import GCLError, MachineError
from processes import SERVER, wait_until
from toys import image_folder, listed_images, seeded

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def two():
    """Two processes, started once for all tests that do them no harm."""
    return Processes(2, pinned=False)


@pytest.fixture
def files(tmp_path):
    root = image_folder(tmp_path / "photos", train=5, test=0, size=(20, 14))
    return sorted(map(str, root.glob("train/*/*")))


def labelled(files, allowed, decoder=None):
    """Five images of each of three classes."""
    reading = Reading(allowed) if decoder is None else Reading(allowed, decoder=decoder)
    return FileImages(files, (8, 8), labels=torch.arange(3).repeat_interleave(5), reading=reading)


def epoch(images, augment=True, seed=0):
    steps = torch.randperm(len(images), generator=seeded(seed)).split(4)
    if not augment:
        return torch.cat(list(images.batches(steps)))
    drawn = ResizedCrop().draw(len(images), seeded(seed))
    draws = list(zip(*(each.split(4) for each in drawn), strict=True))
    return torch.cat(list(images.batches(steps, ResizedCrop(), draws)))


def test_processes_and_threads_and_what_is_kept_give_the_same_bits(files, two):
    state = torch.get_rng_state()
    by_threads = labelled(files, 0)
    for decoder in (two, Threads(keep=True)):
        images = labelled(files, 0, decoder)
        for seed in range(2):
            assert torch.equal(epoch(images, seed=seed), epoch(by_threads, seed=seed))
            assert torch.equal(epoch(images, augment=False), epoch(by_threads, augment=False))
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_in_pieces_are_the_same(files, two, monkeypatch):
    """Whoever decodes, and where an image of a later piece is missing."""
    os.truncate(files[6], 0)
    whole = epoch(labelled(files, 1))
    monkeypatch.setattr(file_images, "TOGETHER", 3)
    for decoder in (Threads(), two):
        reading = Reading(1, decoder=decoder)
        images = FileImages(files, (8, 8), labels=labelled(files, 1).labels, reading=reading)
        for _ in range(2):
            assert torch.equal(epoch(images), whole)


def test_passes_at_once_and_passes_that_end_early_do_not_mix(files, two):
    steps = torch.arange(15).split(4)
    images, expected = labelled(files, 0, two), list(labelled(files, 0).batches(steps))
    next(images.batches(steps))
    for ours, theirs, right in zip(
        images.batches(steps), images.batches(steps[::-1]), expected, strict=True
    ):
        assert torch.equal(ours, right)
        assert any(torch.equal(theirs, other) for other in expected)


def test_the_same_processes_serve_one_pass_after_another(files):
    decoder = Processes(1, pinned=False)
    images = labelled(files, 0, decoder)
    seen = set()
    for _ in range(2):
        epoch(images)
        (loader,) = decoder._idle
        seen |= {process.pid for process in loader._iterator._workers}
    assert len(seen) == 1
    (pid,) = seen
    del images, decoder, loader
    gc.collect()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


@pytest.mark.parametrize("processes", [False, True])
def test_the_next_of_its_class_stands_in_for_an_image_that_breaks(files, two, processes, caplog):
    whole = labelled(files, 0).pixels
    for broken in (1, 2, 14):
        with open(files[broken], "r+b") as stream:
            stream.truncate(60)
    images = labelled(files, 3, two if processes else Threads())
    for _ in range(2):  # the second time nothing is said
        pixels = images.pixels
    assert torch.equal(pixels[[1, 2, 14]], whole[[3, 3, 10]])
    rest = [i for i in range(15) if i not in (1, 2, 14)]
    assert torch.equal(pixels[rest], whole[rest])
    assert images.reading.refused == {files[i] for i in (1, 2, 14)}
    assert [message.split(": ")[0] for message in caplog.messages] == [
        f"cannot read image {files[i]}" for i in (1, 2, 14)
    ]
    assert caplog.messages[-1].endswith(
        "; the next image of its class stands in for it (3 of 3 such files allowed)"
    )
    # It is cut where the missing one would have been.
    other = labelled(files, 3, two if processes else Threads())
    drawn = ResizedCrop().draw(2, seeded(4))
    (cut,) = other.batches([torch.tensor([0, 1])], ResizedCrop(), [drawn])
    (expected,) = labelled(files, 0).batches([torch.tensor([0, 3])], ResizedCrop(), [drawn])
    assert torch.equal(cut, expected)
    for allowed, end in (
        (0, "; skip_unreadable N leaves out up to N such files"),
        (2, "; skip_unreadable allows 2 such files"),
    ):
        with pytest.raises(GCLError, match=rf"^cannot read image .*{end}$") as caught:
            labelled(files, allowed).pixels  # noqa: B018
        assert str(caught.value).endswith(end) and files[14 if allowed else 1] in str(caught.value)


def test_a_class_without_a_readable_image_ends_it(files):
    for file in files[:5]:
        os.truncate(file, 0)
    with pytest.raises(GCLError, match="no other image of its class can stand in for it"):
        labelled(files, 9).pixels  # noqa: B018


def test_a_process_that_dies_is_one_line(files, monkeypatch):
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    monkeypatch.setattr("torch.utils.data.dataloader._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    decoder = Processes(1, pinned=False)
    epoch(labelled(files, 0, decoder))
    (loader,) = decoder._idle
    (process,) = loader._iterator._workers
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not process.is_alive())
    with pytest.raises(GCLError) as caught:
        epoch(labelled(files, 0, decoder))
    text = str(caught.value)
    assert text.startswith("a process that decodes images has ended (DataLoader worker (pid")
    assert str(process.pid) in text and "--workers" in text and "\n" not in text
    assert not decoder._idle  # it is not asked again
    epoch(labelled(files, 0, decoder))


def decode_and_die(files, note):
    decoder = Processes(1, pinned=False)
    epoch(labelled(files, 0, decoder))
    (loader,) = decoder._idle
    (process,) = loader._iterator._workers
    note.write_text(str(process.pid))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError()])
def test_a_process_that_dies_while_it_starts_is_one_line(files, monkeypatch, error):
    start = Mock(side_effect=error)
    monkeypatch.setattr("multiprocessing.popen_forkserver.Popen._launch", start)
    with pytest.raises(MachineError, match=f"has ended .{type(error).__name__}., perhaps for"):
        epoch(labelled(files, 0, Processes(1, pinned=False)))


def test_they_end_with_the_process_that_is_killed(files, tmp_path):
    note = tmp_path / "pid"
    killed = SERVER.Process(target=decode_and_die, args=(files, note))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    wait_until(lambda: not os.path.exists(f"/proc/{note.read_text()}"), 20)


def test_too_little_shared_memory_is_said_before(files, two, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2000))
    task = Task(files[:4], (8, 8))
    assert task.bytes == 4 * 3 * 8 * 8
    with pytest.raises(GCLError) as caught:
        epoch(labelled(files, 0, two))
    assert str(caught.value).startswith("2 workers need 0 MB of shared memory, /dev/shm has 0 MB: ")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * task.bytes))
    epoch(labelled(files, 0, two))


@pytest.mark.parametrize(
    ("budget", "given", "device", "free", "decoder", "line"),
    [
        ("1", None, "cpu", 1e12, Threads, "kept in memory once read"),
        ("1", 3, "cpu", 1e12, Processes, "read from their files by 3 worker processes"),
        ("1", None, "cuda", 1e12, Threads, "kept in memory once read"),
        ("0", None, "cpu", 1e12, Threads, "read from their files by threads"),
        ("0", None, "cuda", 1e12, Processes, "read from their files by 8 worker processes"),
        ("0", 0, "cuda", 1e12, Threads, "read from their files by threads"),
        ("0", None, "cuda", 1e5, Threads, "read from their files by threads"),
    ],
)
def test_who_decodes_is_chosen_and_said(
    tmp_path, monkeypatch, caplog, budget, given, device, free, decoder, line
):
    data = load_dataset(
        DataSettings(f"imagenet_lt:{listed_images(tmp_path / 'data')}", image_size=8)
    )
    monkeypatch.setenv("GCL_MEMORY_GB", budget)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 16)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    caplog.clear()
    caplog.set_level("INFO")
    with decoded_by(data, given, torch.device(device), processes=2):
        chosen = data.test.images.reading.decoder
        assert type(chosen) is decoder
        assert data.train.images.on(CPU).reading.decoder is chosen
        if isinstance(chosen, Threads):
            assert (chosen.kept is not None) == ("kept in memory" in line)
    assert isinstance(data.train.images.reading.decoder, Threads)
    said = (
        f"images: about 1 MB decoded, {line} (GCL_MEMORY_GB: {1024 * int(budget):,} MB may be kept)"
    )
    assert caplog.messages[-1] == said
    assert ("threads decode: 8 workers need" in caplog.text) == (free < 1e9)


def test_what_is_kept_is_read_once(files, monkeypatch):
    read = []
    real = workers.read_rgb
    monkeypatch.setattr(
        workers, "read_rgb", lambda file, size: read.append(file) or real(file, size)
    )
    for keep, times in ((True, 1), (False, 2)):
        read.clear()
        images = labelled(files, 0, Threads(keep))
        epoch(images, seed=1)
        epoch(images, seed=2)
        assert len(read) == times * len(files)


@pytest.mark.parametrize("given", ["much", "-1", "1e308", ""])
def test_a_budget_that_is_no_number_is_refused(tmp_path, monkeypatch, given):
    monkeypatch.setenv("GCL_MEMORY_GB", given)
    data = load_dataset(
        DataSettings(f"imagenet_lt:{listed_images(tmp_path / 'data')}", image_size=8)
    )
    refused = pytest.raises(
        GCLError, match=rf"GCL_MEMORY_GB must be a number from 0 to 1e9, got '{given}'"
    )
    with refused, decoded_by(data, 0, CPU):
        pass
