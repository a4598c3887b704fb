"""Photographs that stay in their files: parts of them, threads, a validation part, damaged ones."""

import hashlib
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import f1_score

from gcl_core.cli import main
from gcl_core.data.augment import ResizedCrop
from gcl_core.data.file_images import FileImages
from gcl_core.data.image_files import decode, median_side
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.errors import GCLError
from gcl_core.methods.registry import resolve
from gcl_core.results.records import record
from gcl_core.training.two_stages import run
from toys import image_folder, seeded


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("GCL_CACHE", str(tmp_path / "cache"))
    return image_folder(tmp_path / "photos", train=6, test=3, size=(48, 32), suffix=".png")


def files_of(root):
    return sorted(map(str, root.glob("train/*/*")))


def wanted(root, **changes):
    return DataSettings(f"folder:{root}", augment="resized_crop", image_size=24, **changes)


unit = st.floats(0, 1, exclude_max=True)


@given(st.lists(unit, min_size=8, max_size=8), st.integers(5, 90), st.integers(5, 90))
def test_a_part_lies_inside_and_has_its_share_of_the_image(draws, width, height):
    """A picture whose colour is the position shows which box was cut."""
    x = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    image = Image.fromarray(np.stack([x, y, x], 2).astype(np.uint8))
    crop = ResizedCrop(area=0.3, flip=True, jitter=0.0)
    cut = np.asarray(crop.cut(image, (16, 16), draws)).astype(float)
    assert cut.shape == (16, 16, 3)
    across, down = cut[:, :, 0].mean(0), cut[:, :, 1].mean(1)
    mirrored = draws[4] < 0.5
    steps = np.diff(across[::-1] if mirrored else across)
    assert (steps >= -1).all() and (np.diff(down) >= -1).all()
    share = 0.3 + draws[0] * 0.7
    ratio = math.exp((2 * draws[1] - 1) * math.log(4 / 3))
    w = min(width, math.sqrt(share * width * height * ratio))
    h = min(height, math.sqrt(share * width * height / ratio))
    # The shown range of positions is that of the box, but for half an output pixel at each end.
    for shown, side, whole in ((across, w, width), (down, h, height)):
        expected = side / whole * 15 / 16
        assert abs((shown.max() - shown.min()) / 255 - expected) < 0.06 + 1.5 / whole


def test_the_whole_image_comes_back_and_colour_varies_as_drawn():
    pixels = np.random.default_rng(0).integers(60, 190, (20, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    whole = [1 - 1e-12, 0.5, 0.3, 0.3, 0.9, 0.5, 0.5, 0.5]
    plain = ResizedCrop(area=1.0, jitter=0.4)
    assert np.array_equal(plain.cut(image, (20, 20), whole), pixels)
    assert np.array_equal(
        plain.cut(image, (20, 20), [*whole[:4], 0.1, *whole[5:]]), pixels[:, ::-1]
    )
    bright = np.asarray(plain.cut(image, (20, 20), [*whole[:5], 1.0, 0.5, 0.5])).astype(float)
    assert abs(bright.mean() / pixels.mean() - 1.4) < 0.02
    grey = np.asarray(ResizedCrop(1.0, jitter=0.99).cut(image, (20, 20), [*whole[:7], 0.0]))
    assert np.ptp(grey.astype(int), axis=2).max() <= 3


def test_pixels_do_not_depend_on_threads_and_come_in_order(root):
    images = FileImages(files_of(root), (24, 24))
    steps = torch.randperm(len(images), generator=seeded()).split(5)
    drawn = ResizedCrop().draw(len(images), seeded(3))
    draws = list(zip(*(each.split(5) for each in drawn), strict=True))

    def batches(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return list(images.batches(steps, ResizedCrop(), draws)), list(images.batches(steps))
        finally:
            torch.set_num_threads(before)

    one, many = batches(1), batches(4)
    for a, b in zip(one[0] + one[1], many[0] + many[1], strict=True):
        assert torch.equal(a, b)
    files = files_of(root)
    for indices, clean in zip(steps, one[1], strict=True):
        for i, pixels in zip(indices.tolist(), clean, strict=True):
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), decode(files[i], (24, 24)))


def test_nothing_is_squashed(root):
    """The middle of a wide image, with equal scales across and down."""
    wide = Image.new("RGB", (96, 32), "black")
    wide.paste("white", (32, 0, 64, 32))
    wide.save(root / "wide.png")
    (pixels,) = FileImages([str(root / "wide.png")], (24, 24)).pixels
    assert pixels[:, 2:-2, 2:-2].min() == 255


def test_large_jpegs_are_decoded_smaller_but_never_below_what_is_needed(tmp_path):
    smooth = np.linspace(0, 255, 640)[None, :, None].repeat(640, 0).repeat(3, 2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    jpeg, png = (decode(str(tmp_path / f"a.{kind}"), (32, 32)) for kind in ("jpg", "png"))
    assert np.abs(jpeg.astype(int) - png.astype(int)).max() <= 4


def test_a_photograph_folder_is_itself_wherever_it_lies(root, tmp_path):
    first = load_dataset(wanted(root))
    assert isinstance(first.train.images, FileImages) and first.train.images.shape == (3, 24, 24)
    assert first.described.identity["resized_crop"]["area"] == 0.08
    moved = tmp_path / "moved"
    root.rename(moved)
    assert load_dataset(wanted(moved)).fingerprint == first.fingerprint
    digest = hashlib.sha256(b"(24, 24)")
    for file in first.train.images.subset(torch.tensor([1, 0])).files:
        digest.update(hashlib.sha256((moved / file[len(str(root)) + 1 :]).read_bytes()).digest())
    found = hashlib.sha256()
    load_dataset(wanted(moved)).train.images.subset(torch.tensor([1, 0])).hash_into(found)
    assert found.digest() == digest.digest()


def test_measured_statistics_are_those_of_the_pixels(root):
    dataset = load_dataset(wanted(root))
    pixels = dataset.train.images.pixels.double() / 255
    expected = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0)
    for found, known in zip((dataset.mean, dataset.std), expected, strict=True):
        assert found == pytest.approx(known.tolist(), abs=6e-5)
    given = load_dataset(wanted(root, mean=(0.5, 0.5, 0.5), std="0.1,0.2,0.3"))
    assert (given.mean, given.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    with pytest.raises(GCLError, match="mean has 1 numbers, the images have 3 channels"):
        load_dataset(wanted(root, mean=(0.5,)))


def test_a_validation_part_is_evaluated_and_chosen_on(root, tmp_path):
    whole = load_dataset(wanted(root))
    for name in ("ant", "cow"):
        (root / "val" / name).mkdir(parents=True)
        (root / "train" / name / "0.png").rename(root / "val" / name / "0.png")
    dataset = load_dataset(wanted(root))
    assert dataset.validation is not None and dataset.validation.labels.tolist() == [0, 2]
    assert len(dataset.train) == len(whole.train) - 2
    settings = resolve(f"folder:{root}", "ce", "smoke", network="resnet32", epochs=3, batch_size=8)
    done = run(settings, tmp_path / "runs", accelerator="cpu", progress="none")
    rows = done.folders[0].metrics
    means = [float(row["validation_class_mean"]) for row in rows]
    best = done.result["best_on_validation"]
    assert best["epoch"] == means.index(max(means)) + 1
    assert best["top1"] == float(rows[best["epoch"] - 1]["top1"])
    (root / "val" / "dog").mkdir()
    (root / "val" / "ant" / "0.png").rename(root / "val" / "dog" / "0.png")
    (root / "val" / "ant").rmdir()
    with pytest.raises(GCLError, match="val/ has classes that train/ has not: dog"):
        load_dataset(wanted(root))


def test_class_folders_alone_are_divided_by_the_data_seed(tmp_path, monkeypatch, capsys, caplog):
    """And a class with one picture, which has none in the test, is trained and has no accuracy."""
    monkeypatch.setenv("GCL_CACHE", str(tmp_path / "cache"))
    root, random = tmp_path / "photos", np.random.default_rng(0)
    for name, number in (("ant", 20), ("bee", 10), ("cow", 3), ("dog", 2), ("elk", 1)):
        (root / name).mkdir(parents=True)
        for i in range(number):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")

    def counts(part):
        return torch.bincount(part.labels, minlength=5).tolist()

    seeds = [load_dataset(wanted(root, data_seed=seed)) for seed in (0, 1)]
    for dataset in seeds:
        parts = dataset.train, dataset.test, dataset.validation
        assert [counts(part) for part in parts] == [
            [14, 7, 1, 1, 1],
            [4, 2, 1, 1, 0],
            [2, 1, 1, 0, 0],
        ]
        files = sorted(file for part in parts for file in part.images.files)
        assert files == sorted(map(str, root.glob("*/*")))
    assert seeds[0].fingerprint != seeds[1].fingerprint
    assert "1 of 5 classes have no test images, and so no accuracy: elk" in caplog.text

    runs, page = str(tmp_path / "runs"), tmp_path / "page.html"
    small = ("--network", "resnet32", "--epochs", "1", "--batch-size", "8", "--progress", "none")
    told = ("--dataset", f"folder:{root}", "--preset", "smoke", *small, "--runs", runs, "--json")
    assert main(["train", "--method", "ce", *told]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["per_class"][4] is None and None not in result["per_class"][:4]
    assert main(["predict", result["run"], str(root / "elk"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 1
    assert main(["report", result["run"], "--out", str(page)]) == 0
    assert "no test images: not known" in page.read_text("utf-8")
    settings = resolve(f"folder:{root}", "ce", "smoke", network="resnet32", epochs=1, batch_size=8)
    done = run(settings, tmp_path / "runs", accelerator="cpu", progress="none")
    kept = record(done.settings, done.folders, "ce", "smoke")
    cells = np.array(done.result["confusion"])
    labels = [(t, g) for t in range(5) for g in range(5) for _ in range(cells[t, g])]
    truth, said = zip(*labels, strict=True)
    expected = f1_score(truth, said, labels=range(4), average="macro", zero_division=0)
    assert kept["macro_f1"] == pytest.approx(100 * expected, abs=1e-3)


@pytest.mark.parametrize("augment", ["resized_crop", "pad_crop"])
def test_unreadable_pictures_are_named_and_some_may_be_left_out(root, augment, caplog, monkeypatch):
    (root / "train" / "ant" / "2.png").write_bytes(b"no picture")
    (root / "test" / "bee" / "1.png").write_bytes(b"")
    settings = {"dataset": f"folder:{root}", "augment": augment, "image_size": 24}
    with pytest.raises(GCLError, match=r"cannot read image .*[21]\.png"):
        load_dataset(DataSettings(**settings)).train.images.pixels  # noqa: B018
    with pytest.raises(GCLError, match=r"2 image files of .* are unreadable, such as .* allows 1$"):
        load_dataset(DataSettings(**settings, skip_unreadable=1))
    monkeypatch.chdir(root.parent)
    for path in (root, root.name):  # the second time from the cache
        caplog.clear()
        settings["dataset"] = f"folder:{path}"
        dataset = load_dataset(DataSettings(**settings, skip_unreadable=2))
        assert caplog.text.count("left out: cannot read image") == 2
    assert dataset.class_counts == (5, 6, 6) and len(dataset.test) == 8
    assert dataset.described.about["unreadable"] == 2


@pytest.mark.parametrize("augment", ["resized_crop", "pad_crop"])
def test_copies_of_training_images_in_the_test_are_told(root, augment, caplog):
    settings = DataSettings(f"folder:{root}", augment=augment, image_size=24)
    load_dataset(settings)
    assert "in training too" not in caplog.text
    shutil.copy(root / "train" / "ant" / "2.png", root / "test" / "bee" / "2 (copy).png")
    load_dataset(settings)
    where = ".*2 .copy..png" if augment == "resized_crop" else "one of class 'bee'"
    told = rf"1 of 10 test images are in training too, so accuracies are too high: {where}$"
    assert re.search(told, caplog.messages[-1])


def test_photographs_are_told_by_the_sizes_of_some(root):
    assert median_side(root) == 32
    assert median_side(root / "nowhere") == 0


def test_resized_crop_needs_files():
    with pytest.raises(GCLError, match="augment 'resized_crop' is for photographs in files"):
        load_dataset(DataSettings("digits", augment="resized_crop"))
