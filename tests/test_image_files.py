"""Folders of images: what is read of them, the cache, and what can be wrong."""

import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image

from gcl_core import GCLError
from gcl_core.data import image_files
from toys import image_folder, load_source


def load(path, **options):
    return load_source(f"folder:{path}", **options)


# Folders


def test_a_folder_in_order_and_in_colour(tmp_path):
    image_folder(tmp_path, ("bee", "ant"), train=3, test=2)
    source = load(tmp_path)
    assert source.name == f"folder:{tmp_path.name}"
    assert source.class_names == ("ant", "bee")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.test.labels.tolist() == [0, 0, 1, 1]
    files = [tmp_path / "train" / c / f"{i}.png" for c in ("ant", "bee") for i in range(3)]
    for image, file in zip(source.train.images.pixels, files, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))
    assert (source.crop_padding, source.flip) == (1, True)


def test_grey_and_transparent_images_become_rgb(tmp_path):
    image_folder(tmp_path)
    Image.new("L", (8, 8), 77).save(tmp_path / "train" / "ant" / "0.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 128)).save(tmp_path / "train" / "ant" / "1.png")
    source = load(tmp_path)
    assert source.train.images.pixels[0].unique().tolist() == [77]
    assert source.train.images.pixels[1, :, 0, 0].tolist() == [1, 2, 3]


def test_image_size_resizes(tmp_path):
    image_folder(tmp_path, size=(16, 12))
    source = load(tmp_path, image_size=8)
    assert source.train.images.pixels.shape == (18, 3, 8, 8)
    with Image.open(tmp_path / "train" / "ant" / "0.png") as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(source.train.images.pixels[0].permute(1, 2, 0).numpy(), expected)
    assert load(tmp_path).train_images.shape == (18, 3, 12, 16)
    assert load(tmp_path, image_size=32).crop_padding == 4


@pytest.fixture
def decoded(monkeypatch):
    """Names of the images that are decoded."""
    names, decode = [], image_files._decode

    def counted(name, image_size):
        names.append(name)
        return decode(name, image_size)

    monkeypatch.setattr(image_files, "_decode", counted)
    return names


def test_decoding_is_done_once(tmp_path, decoded, cache):
    folder = image_folder(tmp_path / "images")
    first = load(folder)
    assert len(decoded) == 27
    assert torch.equal(load(folder).train_images, first.train.images.pixels)
    assert len(decoded) == 27
    load(folder, image_size=5)  # another size is another cache
    assert len(decoded) == 54
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("change", ["content", "time", "name", "more"])
def test_any_change_of_the_folder_is_noticed(tmp_path, decoded, change):
    folder = image_folder(tmp_path / "images")
    load(folder)
    file = folder / "train" / "ant" / "0.png"
    if change == "content":
        Image.new("RGB", (8, 8)).save(file)
    elif change == "time":
        os.utime(file, (1, 1))
    elif change == "name":
        file.rename(file.with_name("7.png"))
    else:
        Image.new("RGB", (8, 8)).save(file.with_name("9.png"))
    source = load(folder)
    assert len(decoded) == 2 * 27 + (change == "more")
    expected = 0 if change == "content" else source.train.images.pixels[0].max()
    assert source.train.images.pixels[0].max() == expected


def test_another_folder_with_the_same_names_and_times_is_another(tmp_path, decoded):
    """As from an archive or an image of a container, where all times are one."""
    values = {}
    for name, value in (("a", 10), ("b", 200)):
        folder = image_folder(tmp_path / name)
        for file in folder.rglob("*.png"):
            file.unlink()
            Image.new("RGB", (8, 8), (value,) * 3).save(file.with_suffix(".bmp"))
            os.utime(file.with_suffix(".bmp"), (0, 0))
        values[name] = load(folder).train_images.unique().tolist()
    assert values == {"a": [10], "b": [200]}
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    assert load(tmp_path / "a").train_images.unique().tolist() == [200]


def test_sizes_are_compared_before_anything_is_decoded(tmp_path, decoded):
    folder = image_folder(tmp_path / "images")
    Image.new("RGB", (9, 7)).save(folder / "test" / "cow" / "2.png")
    with pytest.raises(GCLError, match="images differ in size"):
        load(folder)
    assert decoded == []


def test_a_name_that_is_not_utf_8(tmp_path):
    folder = image_folder(tmp_path / "images")
    file = folder / "train" / "ant" / "0.png"
    os.rename(file, os.path.join(os.fsencode(file.parent), b"K\xf6ln.png"))
    assert len(load(folder).train_images) == 18


def test_a_damaged_cache_is_made_anew(tmp_path, decoded, cache, caplog):
    folder = image_folder(tmp_path / "images")
    first = load(folder)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert torch.equal(load(folder).train_images, first.train.images.pixels)
    assert str(file) in caplog.text
    assert len(decoded) == 54
    load(folder)
    assert len(decoded) == 54


def test_without_a_cache_folder_it_still_works(tmp_path, monkeypatch, caplog):
    folder = image_folder(tmp_path / "images")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GCL_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        assert len(load(folder).train_images) == 18
    assert "decoded images are not cached" in caplog.text


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GCL_CACHE", "/a")
    assert str(image_files.cache_folder()) == "/a"
    monkeypatch.delenv("GCL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert str(image_files.cache_folder()) == "/b/gcl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert image_files.cache_folder() == tmp_path / ".cache" / "gcl"


# What can be wrong


def without(path):
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir():
        for inner in path.iterdir():
            without(inner)
        path.rmdir()
    else:
        path.unlink()


def emptied(path):
    for inner in path.iterdir():
        without(inner)


def truncated(path):
    path.write_bytes(path.read_bytes()[:60])


BROKEN = {
    "no folder": (without, "no such folder: '.*images'; write --dataset folder:PATH"),
    "no train": (lambda d: without(d / "train"), "no such folder: .*/train; an image folder has"),
    "no test": (lambda d: without(d / "test"), "no such folder: .*/test; an image folder has"),
    "empty train": (lambda d: emptied(d / "train"), "train holds no class folder"),
    "empty class": (
        lambda d: emptied(d / "train" / "bee"),
        "class 'bee' has no image in .*train/bee",
    ),
    "empty test class": (
        lambda d: emptied(d / "test" / "cow"),
        "class 'cow' has no image in .*test/cow",
    ),
    "other classes": (
        lambda d: (d / "test" / "cow").rename(d / "test" / "cat"),
        "different classes: cat, cow",
    ),
    "one class": (
        lambda d: [without(d / s / c) for s in ("train", "test") for c in ("bee", "cow")],
        r"train has one class only \(ant\); 2 are needed",
    ),
    "no image": (
        lambda d: (d / "train" / "bee" / "1.png").write_bytes(b"not an image"),
        "cannot read image .*train/bee/1.png",
    ),
    "truncated image": (
        lambda d: truncated(d / "test" / "ant" / "2.png"),
        "cannot read image .*test/ant/2.png",
    ),
    "empty image": (
        lambda d: (d / "train" / "cow" / "0.png").write_bytes(b""),
        "cannot read image .*train/cow/0.png",
    ),
    "strange image": (
        lambda d: (d / "train" / "cow" / "0.ppm").write_bytes(b"P6 8 8 2z5 " + bytes(192)),
        "cannot read image .*train/cow/0.ppm",  # Pillow: ValueError
    ),
    "dangling link": (
        lambda d: [without(d / "train/ant/0.png"), (d / "train/ant/0.png").symlink_to("nowhere")],
        "cannot read image .*train/ant/0.png",
    ),
    "16 bit image": (
        lambda d: Image.new("I;16", (8, 8), 300).save(d / "train" / "cow" / "0.png"),
        "cannot read image .*cow/0.png: I;16 has more than 8 bits a channel; convert it to 8",
    ),
    "two sizes": (
        lambda d: Image.new("RGB", (9, 7)).save(d / "train" / "bee" / "2.png"),
        r"images differ in size: .*ant/0.png is 8x8, .*bee/2.png is 9x7; .*--image-size",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_folder_that_is_not_fit_is_refused(tmp_path, cache, case):
    breaks, message = BROKEN[case]
    folder = image_folder(tmp_path / "images")
    breaks(folder)
    with pytest.raises(GCLError, match=message):
        load(folder)
    assert not cache.exists()  # nothing of it is kept


def test_two_sizes_are_resized_when_one_is_asked_for(tmp_path):
    image_folder(tmp_path)
    Image.new("RGB", (9, 7)).save(tmp_path / "train" / "bee" / "2.png")
    assert load(tmp_path, image_size=8).train_images.shape == (18, 3, 8, 8)
