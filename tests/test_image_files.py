"""Folders of images: what is read of them, the cache, and what can be wrong."""

import contextlib
import logging
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps
from torchvision import datasets

from gcl_core import GCLError
from gcl_core.data import image_files
from gcl_core.data.augment import PadCrop
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
    assert source.augment == PadCrop(1, flip=True)


def test_the_order_is_that_of_torchvision(tmp_path):
    """Identities of runs depend on it; folders inside of a class are sorted as whole paths."""
    for place in ("b", "b/c", "b/c-d", "b/c/e", "B", "a b", "10", "9"):
        for name in ("2.png", "10.PNG", "a.jpeg"):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            (tmp_path / place / name).touch()
    expected = datasets.ImageFolder(str(tmp_path))
    assert image_files.list_images(tmp_path) == (expected.samples, tuple(expected.classes))


def test_every_format_that_pillow_decodes_is_read(tmp_path, caplog):
    folder = image_folder(tmp_path, size=(16, 16))
    picture = Image.open(folder / "train" / "ant" / "0.png")
    written = []
    for suffix, kind in Image.registered_extensions().items():
        file = folder / "train" / "ant" / f"as{suffix}"
        with contextlib.suppress(Exception):  # a format that cannot hold such an image
            picture.save(file, kind)
            with Image.open(file) as again:
                assert again.convert("RGB").size == picture.size
            written.append(file)
            continue
        file.unlink(missing_ok=True)
    assert {".gif", ".jfif", ".jpe", ".tga", ".ico"} < {file.suffix for file in written}
    source = load(folder)
    assert (source.train.labels == 0).sum() == 6 + len(written)
    images = dict(
        zip(
            (f for f, _ in image_files.list_images(tmp_path / "train")[0]),
            source.train.images.pixels,
            strict=True,
        )
    )
    for file in written:
        with Image.open(file) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(images[str(file)].permute(1, 2, 0), expected), file
    assert not caplog.records


def test_what_is_no_image_is_said_once_and_left_out(tmp_path, caplog):
    folder = image_folder(tmp_path / "images")
    expected = image_files.list_images(folder / "train")
    picture = (folder / "train" / "ant" / "0.png").read_bytes()
    for place in (
        "",
        "ant",
        "bee/film",
        ".ipynb_checkpoints",
        "ant/.ipynb_checkpoints",
        "__MACOSX",
        "cow/__MACOSX",
        "ant/@eaDir/0.png",
    ):
        (folder / "train" / place).mkdir(parents=True, exist_ok=True)
        names = (".DS_Store", "._x.jpg", "Thumbs.db", "desktop.ini", "notes.txt", "a.mpg", "b.pdf")
        for name in names:
            (folder / "train" / place / name).write_bytes(picture)
    for place in (".ipynb_checkpoints", "ant/.ipynb_checkpoints", "__MACOSX", "ant/@eaDir/0.png"):
        (folder / "train" / place / "0.png").write_bytes(picture)
    (folder / "train" / "loose.png").write_bytes(picture)
    (folder / "train" / "cow" / "Notes.txt").touch()
    assert image_files.list_images(folder / "train") == expected
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.fullmatch(
        r".*train: left out: 28 that are no images, or are there already, such as .*",
        record.message,
    )
    caplog.clear()
    (folder / "test" / "cow" / "notes.txt").touch()
    image_files.list_images(folder / "test")
    assert caplog.messages == [
        f"{folder}/test: left out: 1 that are no images, or are there already, "
        "such as cow/notes.txt"
    ]
    caplog.clear()
    (folder / "test" / "cow" / "IMG_1.HEIC").touch()
    image_files.images_inside(folder / "test")
    assert caplog.messages[0].endswith(
        "; HEIC and raw pictures need converting to JPEG: 1, such as IMG_1.HEIC"
    )
    with pytest.raises(GCLError, match=r"IMG_1.HEIC: cannot identify .*; convert it to JPEG$"):
        image_files.read_rgb(str(folder / "test" / "cow" / "IMG_1.HEIC"), (8, 8))


def test_parts_of_other_names_are_not_left_out_without_a_word(tmp_path, caplog):
    folder = image_folder(tmp_path / "images")
    (folder / "test").rename(folder / "valid")
    shutil.copytree(folder / "valid", folder / "test")
    load(folder)
    assert "left out: valid; the parts of a data set are called train, test and val" in caplog.text


def test_links_lead_to_each_file_once_and_never_out_of_a_class(tmp_path, caplog):
    folder = image_folder(tmp_path / "images")
    elsewhere = image_folder(tmp_path / "more", ("dog",), size=(8, 8)) / "train" / "dog"
    expected = image_files.list_images(folder / "train")[0]
    ant, bee = folder / "train" / "ant", folder / "train" / "bee"
    for link, target in {
        ant / "self": ant,
        ant / "circle": bee,
        bee / "circle": ant,
        ant / "all": folder / "train",
        ant / "up": folder,
        ant / "again.png": ant / "0.png",
        bee / "other.png": ant / "0.png",
        ant / "stream.png": "/dev/stdin",
        ant / "zero.png": "/dev/zero",
    }.items():
        link.symlink_to(target)
    os.link(ant / "0.png", ant / "hard.png")
    os.mkfifo(ant / "pipe.png")
    found = image_files.list_images(folder / "train")[0]
    # Of several names of one file the first counts.
    assert [file for file in found if file not in expected] == []
    assert len(found) == len(expected)
    assert "left out: 11 that" in caplog.text
    (folder / "train" / "dog").symlink_to(elsewhere)
    (bee / "more").symlink_to(tmp_path / "more" / "test" / "dog")
    found = image_files.list_images(folder / "train")[0]
    assert [label for _, label in found] == [0] * 6 + [1] * 9 + [2] * 6 + [3] * 6


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    folder = image_folder(tmp_path / "images") / "train"
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(GCLError, match="cannot read .*bee: Permission denied"):
        image_files.list_images(folder)


# Names


def test_a_name_that_is_not_utf_8(tmp_path):
    folder = image_folder(tmp_path / "images")
    file = folder / "train" / "ant" / "0.png"
    os.rename(file, os.path.join(os.fsencode(file.parent), b"K\xf6ln.png"))
    for split in ("train", "test"):
        place = os.fsencode(folder / split)
        os.rename(os.path.join(place, b"bee"), os.path.join(place, b"K\xf6ln"))
    source = load(folder)
    assert source.class_names == (r"K\udcf6ln", "ant", "cow")
    assert len(source.train.images.pixels) == 18


def test_a_class_has_one_name_in_all_unicode_forms(tmp_path):
    folder = image_folder(tmp_path, ("\u00c4pfel", "Birnen", "Zwiebeln"))
    (tmp_path / "test" / "\u00c4pfel").rename(tmp_path / "test" / "A\u0308pfel")
    source = load(folder)
    assert source.class_names == ("Birnen", "Zwiebeln", "\u00c4pfel")
    assert source.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    (tmp_path / "test" / "\u00c4pfel").mkdir()  # one class still
    assert load(folder).class_names == source.class_names


def test_class_names_cannot_move_the_cursor(tmp_path):
    assert load(image_folder(tmp_path, ("\x1b[2J", "a\nb"))).class_names == (r"\x1b[2J", r"a\nb")


# Pixels


def saved(file, array, mode="RGB", **options):
    Image.fromarray(array).convert(mode).save(file, **options)
    return str(file)


def decoded_alone(file, size=(12, 8)):
    return image_files.decode(str(file), size)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_photographs_are_turned_as_viewers_show_them(tmp_path, orientation, suffix):
    folder = image_folder(tmp_path, size=(12, 8))
    array = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    if orientation >= 5:
        array = array.transpose(1, 0, 2)
    file = folder / "train" / "ant" / f"as{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(array).save(file, exif=exif)
    with Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    source = load(folder)  # the same size as its neighbours, as it is shown
    assert np.array_equal(source.train.images.pixels[6].permute(1, 2, 0), expected)
    assert source.train.images.pixels.shape[2:] == (8, 12)


def test_damaged_exif_is_no_damage_to_the_pixels(tmp_path):
    array = np.full((8, 12, 3), 7, dtype=np.uint8)
    file = saved(tmp_path / "a.png", array, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0")
    assert np.array_equal(decoded_alone(file), array)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P of one colour", "L of one grey", "opaque"])
def test_a_transparent_ground_is_white(tmp_path, mode):
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    alpha = random.integers(0, 256, (8, 12), dtype=np.uint8)
    file = tmp_path / "a.png"
    if mode in ("RGBA", "opaque"):
        alpha[:] = 255 if mode == "opaque" else alpha
        Image.fromarray(np.dstack([colour, alpha])).save(file)
    elif mode == "LA":
        colour = np.repeat(colour[..., :1], 3, axis=2)
        Image.merge("LA", [Image.fromarray(colour[..., 0]), Image.fromarray(alpha)]).save(file)
    elif mode.startswith("P"):
        index = random.integers(0, 4, (8, 12), dtype=np.uint8)
        palette = random.integers(0, 256, (4, 3), dtype=np.uint8)
        image = Image.fromarray(index)
        image.putpalette(palette.tobytes())
        opacity = [255, 0, 255, 255] if mode == "P of one colour" else [0, 100, 200, 255]
        image.save(file, transparency=1 if mode == "P of one colour" else bytes(opacity))
        colour, alpha = palette[index], np.array(opacity)[index]
    else:
        grey = random.integers(0, 4, (8, 12), dtype=np.uint8)
        Image.fromarray(grey).save(file, transparency=2)
        colour, alpha = np.repeat(grey[..., None], 3, axis=2), np.where(grey == 2, 0, 255)
    share = alpha[..., None] / 255
    expected = share * colour + (1 - share) * 255
    assert np.abs(decoded_alone(file) - expected).max() <= (1 if mode != "opaque" else 0)


def test_no_warning_of_pillow_comes_without_the_file(tmp_path):
    file = image_folder(tmp_path) / "train" / "ant" / "0.png"
    content = file.read_bytes()
    chunk = b"acTL" + bytes(8)  # an animation of no pictures
    chunk = struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk))
    file.write_bytes(content[:33] + chunk + content[33:])  # behind the header
    with pytest.warns(UserWarning, match="Invalid APNG"), Image.open(file):
        pass
    assert len(load(tmp_path).train.images.pixels) == 18


def test_image_size_resizes_and_squashes_nothing(tmp_path):
    image_folder(tmp_path, size=(24, 12))
    source = load(tmp_path, image_size=8)
    assert source.train.images.pixels.shape == (18, 3, 8, 8)
    with Image.open(tmp_path / "train" / "ant" / "0.png") as image:
        shorter = image.resize((16, 8), Image.Resampling.BILINEAR)
    expected = np.asarray(shorter)[:, 4:12]
    assert np.array_equal(source.train.images.pixels[0].permute(1, 2, 0).numpy(), expected)
    assert load(tmp_path).train.images.pixels.shape == (18, 3, 12, 24)
    assert load(tmp_path, image_size=32).augment.padding == 4


@pytest.mark.parametrize(
    ("sizes", "side", "said"),
    [
        ([(400, 300), (90, 120)], 32, "from 90x120 to 400x300"),
        ([(27, 31), (28, 40), (29, 30)], 24, "from 27x31 to 28x40"),
        ([(9, 8)], 8, "from 8x8 to 9x8"),
    ],
)
def test_mixed_sizes_get_one_and_it_is_said(tmp_path, caplog, sizes, side, said):
    folder = image_folder(tmp_path, ("ant", "bee"), train=1, test=1, size=(8, 8))
    files = sorted(folder.rglob("*.png"))
    for i, file in enumerate(files[: 1 if len(sizes) == 1 else None]):
        Image.new("RGB", sizes[i % len(sizes)]).save(file)
    for _ in range(2):  # also when the pixels come from the cache
        caplog.clear()
        source = load(folder)
        assert source.train.images.pixels.shape == (2, 3, side, side)
        expected = f"images differ in size ({said}): resized to {side}x{side}; choose with"
        assert expected in caplog.text
    caplog.clear()
    assert load(folder, image_size=16).train.images.pixels.shape == (2, 3, 16, 16)
    assert not caplog.records


@pytest.fixture
def decoded(monkeypatch):
    """Names of the images that are decoded."""
    names, decode = [], image_files.decode

    def counted(name, size):
        names.append(name)
        return decode(name, size)

    monkeypatch.setattr(image_files, "decode", counted)
    return names


def test_decoding_is_done_once(tmp_path, decoded, cache):
    folder = image_folder(tmp_path / "images")
    first = load(folder)
    assert len(decoded) == 27
    assert torch.equal(load(folder).train.images.pixels, first.train.images.pixels)
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
        values[name] = load(folder).train.images.pixels.unique().tolist()
    assert values == {"a": [10], "b": [200]}
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    assert load(tmp_path / "a").train.images.pixels.unique().tolist() == [200]


def test_a_damaged_cache_is_made_anew(tmp_path, decoded, cache, caplog):
    folder = image_folder(tmp_path / "images")
    first = load(folder)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert torch.equal(load(folder).train.images.pixels, first.train.images.pixels)
    assert str(file) in caplog.text
    assert len(decoded) == 54
    load(folder)
    assert len(decoded) == 54


def test_without_a_cache_folder_it_still_works(tmp_path, monkeypatch, caplog):
    folder = image_folder(tmp_path / "images")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GCL_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        assert len(load(folder).train.images.pixels) == 18
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


def test_without_a_home_it_still_works(monkeypatch, tmp_path, caplog):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GCL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert len(load(image_folder(tmp_path)).train) == 18
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "decoded images are not cached" in caplog.text


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
        "class 'bee' has no image in .*train/bee: put some there, or remove the folder",
    ),
    "other classes": (
        lambda d: (d / "test" / "cow").rename(d / "test" / "cat"),
        r"test/ has classes that train/ has not: cat$",
    ),
    "empty test": (
        lambda d: [emptied(d / "test" / c) for c in ("ant", "bee", "cow")],
        "images has no test image",
    ),
    "one class": (
        lambda d: [without(d / s / c) for s in ("train", "test") for c in ("bee", "cow")],
        r"train has one class only \(ant\); 2 are needed",
    ),
    "classes deeper": (
        lambda d: [(d / "all").mkdir(), (d / "train").rename(d / "all/a"), without(d / "test")],
        r"one class only \(all\); 2 are needed; if its classes are deeper: folder:.*images/all$",
    ),
    "parts of other names": (
        lambda d: [(d / "train").rename(d / "Train"), (d / "test").rename(d / "valid")],
        "images has Train, valid: parts of a data set, not classes; .* called train, test and val",
    ),
    "no image": (
        lambda d: (d / "train" / "bee" / "1.png").write_bytes(b"not an image"),
        "cannot read image .*train/bee/1.png.*; skip_unreadable N leaves out up to N such files",
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
        "cannot read .*train/ant/0.png: No such file",
    ),
    "16 bit image": (
        lambda d: Image.new("I;16", (8, 8), 300).save(d / "train" / "cow" / "0.png"),
        "cannot read image .*cow/0.png: I;16 has more than 8 bits a channel; convert it to 8",
    ),
    "one pixel": (
        lambda d: Image.new("RGB", (8, 4)).save(d / "train" / "cow" / "0.png"),
        "cannot read image .*cow/0.png: it is 8x4; images must be at least 5x5 pixels",
    ),
    "too many pixels": (
        lambda d: Image.new("RGB", (101, 100)).save(d / "train" / "cow" / "0.png"),
        r"cow/0.png: Image size \(10100 pixels\) exceeds limit of 10000.*make it smaller",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("image_size", [None, 8])
def test_a_folder_that_is_not_fit_is_refused(tmp_path, cache, monkeypatch, case, image_size):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    breaks, message = BROKEN[case]
    folder = image_folder(tmp_path / "images")
    breaks(folder)
    with pytest.raises(GCLError, match=message):
        load(folder, image_size=image_size)
    assert not cache.exists()  # nothing of it is kept
