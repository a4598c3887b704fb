"""Sources: the digits, and CIFAR from archives in its format."""

import hashlib
import io
import pickle
import tarfile
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import filelock
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets

from gcl_core import GCLError
from gcl_core.data.sources import load_source


def load(path, **options):
    return load_source(f"folder:{path}", **options)


# The digits


def test_digits_are_all_there_once():
    source = load_source("digits")
    assert source.train.images.pixels.dtype == torch.uint8
    assert source.train.images.pixels.shape == (1297, 1, 8, 8)
    assert torch.bincount(source.test.labels).tolist() == [50] * 10
    everything = torch.cat([source.train.images.pixels, source.test.images.pixels]).flatten(1)
    expected = torch.from_numpy(load_digits().data * (255 / 16)).round().to(torch.uint8)
    assert sorted(everything.tolist()) == sorted(expected.tolist())


def test_digits_have_their_labels():
    source = load_source("digits")
    digits = load_digits()
    known = {
        tuple(np.rint(row * (255 / 16)).astype(int)): label
        for row, label in zip(digits.data, digits.target, strict=True)
    }
    for images, labels in (
        (source.train.images.pixels, source.train.labels),
        (source.test.images.pixels, source.test.labels),
    ):
        assert [known[tuple(image)] for image in images.flatten(1).tolist()] == labels.tolist()


def test_digits_are_split_by_seed():
    first, again, other = (load_source("digits", data_seed=s) for s in (0, 0, 1))
    assert torch.equal(first.test.images.pixels, again.test.images.pixels)
    assert not torch.equal(first.test.images.pixels, other.test.images.pixels)


# CIFAR


def write_cifar(root, dataset_class, monkeypatch, keys):
    """An archive in CIFAR's format with 20 + 10 images, whose checksums torchvision is told."""
    random = np.random.default_rng(0)
    made, sums = {}, {}
    with tarfile.open(root / dataset_class.filename, "w:gz") as archive:

        def add(name, content):
            data = pickle.dumps(content)
            sums[name] = hashlib.md5(data).hexdigest()
            entry = tarfile.TarInfo(f"{dataset_class.base_folder}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        for name, _ in (*dataset_class.train_list, *dataset_class.test_list):
            number = 10 if name in ("test", "test_batch") else 20 if name == "train" else 4
            pixels = random.integers(0, 256, (number, 3072), dtype=np.uint8)
            made[name] = (pixels, [i % 10 for i in range(number)])
            add(name, {"data": pixels, keys[0]: made[name][1]})
        meta = dataset_class.meta
        add(meta["filename"], {keys[1]: [f"class {j}" for j in range(10)]})
    for attribute in ("train_list", "test_list"):
        listed = [[name, sums[name]] for name, _ in getattr(dataset_class, attribute)]
        monkeypatch.setattr(dataset_class, attribute, listed)
    monkeypatch.setattr(dataset_class, "meta", {**meta, "md5": sums[meta["filename"]]})
    checksum = hashlib.md5((root / dataset_class.filename).read_bytes()).hexdigest()
    monkeypatch.setattr(dataset_class, "tgz_md5", checksum)
    return made


CIFARS = [
    ("cifar10", datasets.CIFAR10, ("labels", "label_names")),
    ("cifar100", datasets.CIFAR100, ("fine_labels", "fine_label_names")),
]


@pytest.fixture
def offline(monkeypatch):
    """No network: a download fails as it does without one."""

    def refuse(*arguments, **options):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize(("name", "dataset_class", "keys"), CIFARS)
def test_cifar_from_its_archive(tmp_path, monkeypatch, offline, name, dataset_class, keys):
    made = write_cifar(tmp_path, dataset_class, monkeypatch, keys)
    for _ in range(2):  # from the archive, then from the unpacked files
        source = load_source(f"{name}:{tmp_path}")
        assert source.name == name
        assert source.class_names == tuple(f"class {j}" for j in range(10))
        pixels = np.concatenate([v[0] for k, v in made.items() if not k.startswith("test")])
        assert source.train.images.pixels.dtype == torch.uint8
        assert source.train.images.pixels.is_contiguous()
        assert np.array_equal(source.train.images.pixels.numpy(), pixels.reshape(20, 3, 32, 32))
        assert source.train.labels.tolist() == [
            y for k, v in made.items() if "test" not in k for y in v[1]
        ]
        assert source.test.labels.tolist() == list(range(10))
        assert (source.crop_padding, source.flip) == (4, True)
        assert source.mean == (0.4914, 0.4822, 0.4465)
        assert source.std == (0.2023, 0.1994, 0.2010)


def test_cifar_is_downloaded_by_one_process_at_a_time(tmp_path, monkeypatch, offline):
    write_cifar(tmp_path, *CIFARS[0][1:2], monkeypatch, CIFARS[0][2])
    lock = filelock.FileLock(tmp_path / ".cifar10.lock")
    with ThreadPoolExecutor(1) as pool:
        with lock:
            source = pool.submit(load_source, f"cifar10:{tmp_path}")
            with pytest.raises(TimeoutError):
                source.result(0.5)
        assert source.result(60).train_images.shape == (20, 3, 32, 32)
    with lock:  # what is there already is read by any number
        assert load_source(f"cifar10:{tmp_path}").train_images.shape == (20, 3, 32, 32)


def test_a_folder_of_cifar_that_is_not_there_is_not_made(tmp_path, offline):
    with pytest.raises(GCLError, match="no such folder: '.*typo'; write --dataset cifar10:PATH"):
        load_source(f"cifar10:{tmp_path / 'typo'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "dataset_class", "keys"), CIFARS)
def test_cifar_that_is_missing_or_damaged_is_refused(
    tmp_path, monkeypatch, offline, name, dataset_class, keys
):
    expected = (
        f"{name} is not in .* and could not be downloaded .*no network.*--dataset {name}:PATH"
    )
    with pytest.raises(GCLError, match=expected):
        load_source(f"{name}:{tmp_path}")
    write_cifar(tmp_path, dataset_class, monkeypatch, keys)
    archive = tmp_path / dataset_class.filename
    damaged = archive.read_bytes()[:-100]
    archive.write_bytes(damaged)
    with pytest.raises(GCLError, match=expected):
        load_source(f"{name}:{tmp_path}")
    assert archive.read_bytes() == damaged  # left as it is


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("mnist", {}, "dataset 'mnist' is unknown; allowed: digits, cifar10, cifar100, folder"),
        ("digits:/tmp", {}, "takes no path"),
        ("digits", {"image_size": 8}, "takes no path and no image_size"),
        ("cifar10", {"image_size": 16}, "dataset 'cifar10' has one size, 32"),
        ("cifar100", {"image_size": 16}, "dataset 'cifar100' has one size, 32"),
        ("folder", {}, "no such folder: ''"),
        ("folder:", {}, "no such folder: ''"),
    ],
)
def test_sources_refuse(dataset, options, message):
    with pytest.raises(GCLError, match=message):
        load_source(dataset, **options)
