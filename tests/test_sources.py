"""Sources: the digits, and CIFAR from archives in its format."""

import hashlib
import io
import pickle
import re
import shutil
import tarfile
import textwrap
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from gcl_core import GCLError
from gcl_core.data import sources
from gcl_core.data.augment import PadCrop
from gcl_core.data.dataset import Split
from gcl_core.data.images import MemoryImages
from gcl_core.data.sources import by_content
from gcl_core.methods import registry
from toys import load_source, seeded


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

        for k, (name, _) in enumerate((*dataset_class.train_list, *dataset_class.test_list)):
            number = 10 if name in ("test", "test_batch") else 20 if name == "train" else 4
            pixels = random.integers(0, 256, (number, 3072), dtype=np.uint8)
            made[name] = (pixels, [(4 * k + i) % 10 for i in range(number)])
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


@pytest.fixture
def ten(monkeypatch):
    """CIFAR sets whose test part has ten images."""
    monkeypatch.setattr(sources, "CIFAR_TEST_IMAGES", 10)


def labelled(part):
    """Every image's bytes with its label, in any order."""
    pixels = (image.tobytes() for image in part.images.pixels.numpy())
    return sorted(zip(pixels, part.labels.tolist(), strict=True))


@pytest.mark.parametrize(("name", "dataset_class", "keys"), CIFARS)
def test_cifar_from_its_archive(tmp_path, monkeypatch, offline, ten, name, dataset_class, keys):
    made = write_cifar(tmp_path, dataset_class, monkeypatch, keys)
    for _ in range(2):  # from the archive, then from the unpacked files
        source = load_source(f"{name}:{tmp_path}")
        for part, is_test in ((source.train, False), (source.test, True)):
            files = [v for k, v in made.items() if k.startswith("test") == is_test]
            rows = (pair for pixels, labels in files for pair in zip(pixels, labels, strict=True))
            assert labelled(part) == sorted((row.tobytes(), y) for row, y in rows)
            assert part.images.pixels.dtype == torch.uint8
            assert part.images.shape == (3, 32, 32)
        assert source.augment == PadCrop(4, flip=True)
        assert source.mean == (0.4914, 0.4822, 0.4465)
        assert source.std == (0.2023, 0.1994, 0.2010)


def write_class_folders(root, name, made, suffix=".png"):
    """The images of `write_cifar` as class folders, under names that sort in another order."""
    classes = KNOWN[name][0].split()
    for file, (pixels, labels) in made.items():
        part = root / ("test" if file.startswith("test") else "train")
        for number, (row, label) in enumerate(zip(pixels, labels, strict=True)):
            folder = part / classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(row.reshape(3, 32, 32).transpose(1, 2, 0))
            image.save(folder / f"{file}-{99 - number}{suffix}", lossless=True)
    return root


KNOWN = {"cifar10": sources.CIFAR10, "cifar100": sources.CIFAR100}


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_class_folders_are_the_archive_bit_by_bit(tmp_path, monkeypatch, offline, ten, suffix):
    (tmp_path / "archive").mkdir()
    made = write_cifar(tmp_path / "archive", *CIFARS[0][1:2], monkeypatch, CIFARS[0][2])
    write_class_folders(tmp_path / "folders", "cifar10", made, suffix)
    archive, folders = (load_source(f"cifar10:{tmp_path / n}") for n in ("archive", "folders"))
    assert archive.described == folders.described
    assert archive.class_names == folders.class_names == tuple(sources.CIFAR10[0].split())
    assert archive.name == folders.name


def test_class_folders_of_cifar100(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CIFAR_TEST_IMAGES", 100)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 3072), dtype=np.uint8)
    made = {part: (pixels, list(range(100))) for part in ("train", "test")}
    read = load_source(f"cifar100:{write_class_folders(tmp_path, 'cifar100', made)}")
    assert read.class_names == tuple(sources.CIFAR100[0].split())
    assert list(read.class_names) == sorted(read.class_names)
    assert labelled(read.test) == sorted((row.tobytes(), y) for y, row in enumerate(pixels))


def test_original_images_are_told_from_others(tmp_path, monkeypatch, offline, ten):
    made = write_cifar(tmp_path, *CIFARS[0][1:2], monkeypatch, CIFARS[0][2])
    read = load_source(f"cifar10:{tmp_path}")
    assert (read.name, read.about) == ("cifar10 (other images)", {"original_images": False})
    pixels = made["test_batch"][0].reshape(10, 3, 1024).transpose(1, 0, 2).reshape(3, -1) / 255
    known = (sources.CIFAR10[0], tuple(pixels.mean(1)), tuple(pixels.std(1)))
    monkeypatch.setattr(sources, "CIFAR10", known)
    read = load_source(f"cifar10:{tmp_path}")
    assert (read.name, read.about) == ("cifar10", {"original_images": True})
    assert read.described.about == {"dataset": "cifar10", "original_images": True}
    off = (known[0], (known[1][0] + 3e-9, *known[1][1:]), known[2])  # one pixel, by one level
    monkeypatch.setattr(sources, "CIFAR10", off)
    assert load_source(f"cifar10:{tmp_path}").name == "cifar10 (other images)"


@given(st.integers(1, 8), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_part_of_the_images_gives_the_same_subset(wanted, seed, random):
    """The order in which images lie, and others beside those that are drawn, do not matter."""
    pixels = torch.randint(256, (40, 1, 2, 2), dtype=torch.uint8, generator=seeded(5))
    whole = Split(MemoryImages(pixels), torch.arange(40) % 4)

    def drawn(part):
        part = part.subset(by_content(part, seed))
        return part.subset(sources.first_of_each(part.labels, [wanted] * 4, seed))

    subset = drawn(whole)
    order = list(range(40))
    random.shuffle(order)
    assert torch.equal(drawn(whole.subset(torch.tensor(order))).images.pixels, subset.images.pixels)
    assert torch.equal(drawn(subset).images.pixels, subset.images.pixels)
    assert subset.labels.tolist() == [j for j in range(4) for _ in range(wanted)]
    if wanted < 8:  # of 10: another seed is another draw
        other = whole.subset(by_content(whole, seed + 1))
        assert not torch.equal(
            other.images.pixels, whole.subset(by_content(whole, seed)).images.pixels
        )


def add_image(root):
    Image.new("RGB", (32, 32)).save(root / "test" / "cat" / "another.png")


def add_class(root):
    for part in ("train", "test"):
        (root / part / "zebra").mkdir()
        Image.new("RGB", (32, 32)).save(root / part / "zebra" / "1.png")


def enlarge(root):
    for file in root.rglob("*.png"):
        Image.new("RGB", (40, 36)).save(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_image, "cifar10 has 10 test images, .* has 11: half a copy?"),
        (lambda root: shutil.rmtree(root / "test"), "no such folder: .*test"),
        (add_class, "has not the classes of cifar10: zebra"),
        (enlarge, "images of cifar10 are 32x32, those in .* are 40x36"),
    ],
)
def test_class_folders_that_are_not_whole_are_refused(tmp_path, ten, change, message):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)
    made = {part: (pixels, list(range(10))) for part in ("train", "test")}
    change(write_class_folders(tmp_path, "cifar10", made))
    with pytest.raises(GCLError, match=message):
        load_source(f"cifar10:{tmp_path}")


def test_cifar_is_downloaded_by_one_process_at_a_time(tmp_path, monkeypatch, offline, ten):
    write_cifar(tmp_path, *CIFARS[0][1:2], monkeypatch, CIFARS[0][2])
    lock = filelock.FileLock(tmp_path / ".cifar10.lock")
    with ThreadPoolExecutor(1) as pool:
        with lock:
            source = pool.submit(load_source, f"cifar10:{tmp_path}")
            with pytest.raises(TimeoutError):
                source.result(0.5)
        assert len(source.result(60).train) == 20
    with lock:  # what is there already is read by any number
        assert len(load_source(f"cifar10:{tmp_path}").train) == 20


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
        (
            "mnist",
            {},
            "dataset 'mnist' is unknown; allowed: digits, clothes, cifar10,",
        ),
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


# What CONTRIBUTING.md tells who adds a data set or a method


def example(beginning):
    """The lines of an example in CONTRIBUTING.md, from its first one to the text below."""
    page = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    (found,) = re.findall(rf"^ {{7,}}{re.escape(beginning)}.*?(?=^ {{0,4}}\S)", page, re.M | re.S)
    return textwrap.dedent(found)


def test_the_example_of_a_data_set_reads_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = example('python -c "import numpy')
    exec(command.split('"')[1])
    spaces = dict(vars(sources))
    exec(example("def read_npz"), spaces)
    entry = eval("{" + example('"npz": DatasetKind') + "}", spaces)
    monkeypatch.setattr(sources, "DATASETS", sources.DATASETS | entry)
    source = load_source("npz:small.npz")
    assert (source.name, source.class_names) == ("npz:small", ("0", "1", "2"))
    assert source.train.images.pixels.shape == (60, 1, 28, 28)
    assert torch.bincount(source.train.labels).tolist() == [40, 15, 5]
    with pytest.raises(GCLError, match="leave image_size out"):
        load_source("npz:small.npz", image_size=32)


def test_the_example_of_a_method_is_a_loss_and_a_declaration():
    spaces = dict(vars(registry))
    exec(example('"""The multi-class hinge loss."""'), spaces)
    logits, target = torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([0])
    assert spaces["HingeLoss"]()(logits, target).item() == pytest.approx(0.5 / 3)
    spaces["Hinge"] = registry.CrossEntropy  # a class of settings would stay for all tests
    entry = eval("{" + example('"hinge": Method(') + "}", spaces)
    assert entry["hinge"].head == "linear"
