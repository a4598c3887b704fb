"""Data sets of list files: every published line, names, official counts, damage, wrong roots."""

import builtins
import functools
import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch

import sabotage
from bits import checkpoints, equal, tree
from gcl_core.data.file_images import SAMPLED
from gcl_core.data.imbalance import class_groups
from gcl_core.data.lists import IMAGENET_MEAN, PUBLISHED, class_names, official_counts, read_list
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.data.sources import absolute
from gcl_core.errors import GCLError
from gcl_core.inference import saved
from processes import forked
from toys import listed_images

# The published list files, where somebody has them (the tests of their excerpts run everywhere).
LISTS = Path(os.environ.get("GCL_LISTS", Path.home() / "data" / "lists"))
FILES = {
    "ImageNet_LT_train_90_classes.txt": (7614, 90),
    "ImageNet_LT_test.txt": (50_000, 1000),
    "ImageNet_LT_val.txt": (20_000, 1000),
    "Places_LT_train.txt": (62_500, 365),
    "Places_LT_test.txt": (36_500, 365),
    "Places_LT_val.txt": (7_300, 365),
    "iNaturalist18_train_first6583.txt": (6_583, None),
    "iNaturalist18_val.txt": (24_426, 8142),
}


@pytest.fixture
def root(tmp_path):
    return listed_images(tmp_path / "data", val=1)


def load(dataset, **changes):
    return load_dataset(DataSettings(str(dataset), image_size=8, **changes))


# Lists


@pytest.mark.skipif(not LISTS.is_dir(), reason="the published lists are not here (GCL_LISTS)")
@pytest.mark.parametrize(("name", "expected"), FILES.items())
def test_every_published_line_is_read(name, expected):
    found = read_list(LISTS / name)
    images, classes = expected
    pairs = zip(found.paths, found.labels.tolist(), strict=True)
    assert "".join(f"{path} {label}\n" for path, label in pairs) == (LISTS / name).read_text()
    assert len(found.paths) == images
    assert classes in (None, len(set(found.labels.tolist())))
    if name == "Places_LT_train.txt":
        assert torch.bincount(found.labels).tolist() == official_counts()["places_lt"]
        assert class_names(found, 365)[::364] == ("airfield", "zen_garden")
    if name == "iNaturalist18_val.txt":
        assert class_names(found, 8142)[7291] == "Plantae/7291"


def test_the_official_counts_have_the_official_sums_and_groups():
    for kind, counts in official_counts().items():
        published = PUBLISHED[kind]
        assert (sum(counts), len(counts)) == (published.images["train"], published.classes)
        assert tuple(len(own) for own in class_groups(counts).values()) == published.groups
    assert PUBLISHED["imagenet_lt"].groups == (385, 479, 136)
    assert (PUBLISHED["inat2018"].images["train"], PUBLISHED["inat2018"].classes) == (437_513, 8142)


EXCERPTS = {  # of the published files: how their paths look, and what their classes are called
    "imagenet_lt": (
        "train/n01440764/n01440764_190.JPEG 0\ntrain/n01443537/n01443537_5.JPEG 1\n",
        ("n01440764", "n01443537"),
    ),
    "places_lt": (
        "train/airfield/00004851.jpg 0\ntrain/alcove/00004596.jpg 1\n",
        ("airfield", "alcove"),
    ),
    "inat2018": (
        "train_val2018/Plantae/1/3b60.jpg 1\ntrain_val2018/Aves/0/22c7.jpg 0\n",
        ("Aves/0", "Plantae/1"),
    ),
    "a class above another": ("x/a.jpg 0\nx/y/b.jpg 1\n", ("x", "x/y")),
    "one folder for all": ("a.jpg 0\nb.jpg 1\n", ("0", "1")),
    "a class in two folders": ("x/a.jpg 0\ny/b.jpg 0\nz/c.jpg 1", ("0", "1")),
    "one folder for two classes": ("x/a.jpg 0\nx/b.jpg 1\ny/c.jpg 2", ("0", "1", "2")),
    "spaces, tabs, an empty line, CRLF": ("a b/c d.jpg\t0\r\n\r\n  e/f.jpg  1\r\n", ("a b", "e")),
}


@pytest.mark.parametrize(("text", "names"), EXCERPTS.values(), ids=EXCERPTS)
def test_classes_are_called_by_their_folders_where_these_tell_them(tmp_path, text, names):
    file = tmp_path / "list.txt"
    file.write_bytes(text.encode())
    found = read_list(file)
    words = [line.split() for line in text.splitlines() if line.strip()]
    assert found.labels.tolist() == [int(own[-1]) for own in words]
    assert found.paths == [" ".join(own[:-1]) for own in words]
    assert class_names(found, len(names)) == names


def annotations(pairs, categories):
    return {
        "images": [{"id": 10 + i, "file_name": path} for i, (path, _) in enumerate(pairs)][::-1],
        "annotations": [
            {"id": i, "image_id": 10 + i, "category_id": label}
            for i, (_, label) in enumerate(pairs)
        ],
        "categories": [{"id": j, "name": name} for j, name in enumerate(categories)],
    }


def test_annotations_of_inaturalist_are_the_same_data_as_its_lists(root, tmp_path):
    for part, name in (("train", "train2018.json"), ("test", "val2018.json")):
        found = read_list(root / f"ImageNet_LT_{part}.txt")
        pairs = list(zip(found.paths, found.labels.tolist(), strict=True))
        content = annotations(pairs, ("Turdus merula", "Bellis perennis", "Apis mellifera"))
        (root / name).write_text(json.dumps(content))
    data = load(f"inat2018:{root}")
    assert data.class_names == ("Turdus merula", "Bellis perennis", "Apis mellifera")
    lists = ",".join(str(root / f"ImageNet_LT_{part}.txt") for part in ("train", "test"))
    assert load(f"list:{lists}").fingerprint == data.fingerprint
    assert data.validation is None


# Data sets


def test_a_data_set_is_what_its_lists_say_wherever_it_lies(root, tmp_path, caplog):
    data = load(f"imagenet_lt:{root}")
    assert data.class_counts == (6, 3, 2) and data.class_names[0] == "n01440764"
    assert len(data.test) == 6 and len(data.validation) == 3
    assert data.mean == IMAGENET_MEAN and data.name == "imagenet_lt (other images)"
    for part in (data.train, data.test, data.validation):
        names = [data.class_names[label] for label in part.labels.tolist()]
        assert [file.split("/")[1] for file in part.images.files] == names
    warning = (
        "11 train images, officially 115846; 6 test images, officially 50000; 3 val images, "
        "officially 20000; 3 classes, officially 1000"
    )
    assert f"{root} is not ImageNet-LT as published: {warning}" in caplog.text
    with pytest.raises(GCLError, match=re.escape(f"{warning} (strict does not allow it)")):
        load(f"imagenet_lt:{root}", strict=True)
    lists = tmp_path / "lists"
    lists.mkdir()
    for file in root.glob("*.txt"):
        file.rename(lists / file.name)
    moved = load(f"imagenet_lt:{lists}", image_root=str(root))
    assert moved.described.identity == data.described.identity


@pytest.mark.parametrize("change", ["label", "path", "sampled image"])
def test_other_data_have_another_fingerprint(root, change):
    before = load(f"imagenet_lt:{root}").fingerprint
    file = root / "ImageNet_LT_train.txt"
    first, *rest = file.read_text().splitlines()
    path = root / first.split()[0]
    if change == "label":
        file.write_text("\n".join([first[:-1] + "1", *rest]))
    elif change == "path":
        path.rename(path.with_name("other.JPEG"))
        file.write_text("\n".join(["train/n01440764/other.JPEG 0", *rest]))
    else:
        path.write_bytes(path.read_bytes() + b"\0")
    assert load(f"imagenet_lt:{root}").fingerprint != before


def test_nobody_reads_all_images_first(tmp_path, monkeypatch):
    root = listed_images(tmp_path / "data", counts=(40, 30, 20), test=9)
    seen, stat, opened = set(), os.stat, builtins.open

    def noted(real):
        def look(path, *more, **others):
            seen.add(str(path))
            return real(path, *more, **others)

        return look

    monkeypatch.setattr(os, "stat", noted(stat))
    monkeypatch.setattr(builtins, "open", noted(opened))
    load(f"imagenet_lt:{root}").described  # noqa: B018
    images = {name for name in seen if name.endswith(".JPEG")}
    assert len(images) == 2 * SAMPLED


def test_one_class_that_differs_is_named(monkeypatch, root, caplog):
    own = {"train": 11, "test": 6, "val": 3}
    monkeypatch.setitem(
        PUBLISHED,
        "imagenet_lt",
        PUBLISHED["imagenet_lt"].__class__(
            "ImageNet-LT", PUBLISHED["imagenet_lt"].lists, own, 3, groups=(1, 2, 0)
        ),
    )
    monkeypatch.setattr("gcl_core.data.lists.official_counts", lambda: {"imagenet_lt": [7, 3, 1]})
    load(f"imagenet_lt:{root}")
    assert caplog.messages[0].endswith(
        "as published: class 0 has 6 training images, officially 7 (and 1 more classes differ); "
        "many / medium / few: 1 / 1 / 1, officially 1 / 2 / 0"
    )
    caplog.clear()
    monkeypatch.setattr("gcl_core.data.lists.official_counts", lambda: {"imagenet_lt": [6, 3, 2]})
    data = load(f"imagenet_lt:{root}", strict=True)
    assert not caplog.messages and data.name == "imagenet_lt"
    assert data.described.about["official_counts"] is True


def test_a_saved_run_knows_where_its_images_are(root, monkeypatch):
    monkeypatch.chdir(root)
    assert absolute("list:a.txt,../b.txt") == f"list:{root}/a.txt,{root.parent}/b.txt"
    assert absolute("imagenet_lt:.") == f"imagenet_lt:{root}"
    settings = {"data": {"dataset": "list:a.txt,b.txt", "image_root": "train"}}
    assert saved._with_absolute_root(settings)["data"]["image_root"] == str(root / "train")


# What is wrong


def broken(root, part, text):
    (root / f"ImageNet_LT_{part}.txt").write_text(text)


LINES = {
    "a line without a label": (
        "train/n/a.JPEG 0\ntrain/n/b.JPEG\n",
        r"_train\.txt, line 2: no label at the end of 'train/n/b\.JPEG'; a line is PATH LABEL",
    ),
    "a negative label": ("a.JPEG -1\n", r"line 1: no label at the end of 'a\.JPEG -1'"),
    "a label without a path": ("7\n", r"line 1: no label at the end of '7'"),
    "a number beyond all labels": ("a.JPEG 12345678901234567890\n", "line 1: no label at the end"),
    "a label out of range": (
        "a.JPEG 0\nb.JPEG 1000\n",
        r"label 1000 of b\.JPEG is out of range: ImageNet-LT has labels 0 to 999$",
    ),
    "a class without images": ("a.JPEG 0\nb.JPEG 2\n", "has no image of class 1: labels number"),
    "a label that would need all memory": ("a.JPEG 0\nb.JPEG 999\n", "has no image of class 1"),
    "one class": ("a.JPEG 0\n", "has no image of class 1: labels number the classes from 0, and 2"),
    "no line": ("\n", r"ImageNet_LT_train\.txt lists no image"),
    "no text": (b"\xff\xfe", "cannot read the list .*: 'utf-8' codec .*; save it as UTF-8"),
    "two labels": (
        "a.JPEG 0\nb.JPEG 1\na.JPEG 1\n",
        r"a\.JPEG has two labels, 0 and 1",
    ),
}


def test_a_list_of_another_editor_is_the_same(tmp_path):
    """With a byte order mark, carriage returns, tabs, and no end of its last line."""
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbfa b.jpg\t0\r\nc.jpg 1")
    assert read_list(file).paths == ["a b.jpg", "c.jpg"]
    assert read_list(file).labels.tolist() == [0, 1]


@pytest.mark.parametrize(("text", "message"), LINES.values(), ids=LINES)
def test_a_list_that_is_wrong_is_one_line(root, text, message):
    data = text if isinstance(text, bytes) else text.encode()
    (root / "ImageNet_LT_train.txt").write_bytes(data)
    with pytest.raises(GCLError, match=message):
        load(f"imagenet_lt:{root}")


def test_other_refusals(root, tmp_path):
    train, test = (str(root / f"ImageNet_LT_{part}.txt") for part in ("train", "test"))
    for dataset, message in {
        f"list:{train}": "dataset list needs 2 or 3 files, got 1: write --dataset list:TRAIN.txt,",
        f"list:{train},{test}x": f"no such list of images: {test}x",
        f"list:{test[:-4]},{train}": "no such list of images",
        f"places_lt:{root}": "has no Places_LT_train.txt; the published lists of Places-LT go",
        f"inat2018:{tmp_path}": "has no iNaturalist18_train.txt or train2018.json",
        "imagenet_lt:nowhere": "no such folder: 'nowhere'; write --dataset imagenet_lt:PATH",
    }.items():
        with pytest.raises(GCLError, match=re.escape(message)):
            load(dataset)
    with pytest.raises(GCLError, match="no such folder: 'nowhere'; write --image-root PATH"):
        load(f"imagenet_lt:{root}", image_root="nowhere")
    with pytest.raises(GCLError, match="image_root and strict are for lists of images, not for 'd"):
        load_dataset(DataSettings("digits", strict=True))
    broken(root, "test", "val/n01440764/ILSVRC2012_val_00000012.JPEG 3\n")
    with pytest.raises(GCLError, match=r"_test\.txt: label 3 of .* out of range: .*train\.txt has"):
        load(f"imagenet_lt:{root}")
    for content in (
        "{}",
        "[]",
        "{",
        "[" * 10**5,
        "9" * 5000,
        json.dumps(annotations([("a", 4)], ("x", "y"))),
    ):
        (root / "train.json").write_text(content)
        with pytest.raises(GCLError, match=r"cannot read the list|is no file of|category 4 is out"):
            read_list(root / "train.json")


def test_lists_of_windows(root):
    train, test = (root / f"ImageNet_LT_{part}.txt" for part in ("train", "test"))
    expected, text = load(f"list:{train},{test}").train.images, train.read_text()
    train.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load(f"list:{train}, {test}").train.images.files == expected.files
    train.write_text(text.replace("/", "\\"))
    with pytest.raises(GCLError, match=r"write them with / instead of \\$"):
        load(f"list:{train},{test}")


def test_copies_in_lists_are_told(root, caplog):
    train, test = (root / f"ImageNet_LT_{part}.txt" for part in ("train", "test"))
    load(f"list:{train},{test}")
    assert "twice" not in caplog.text and "in training too" not in caplog.text
    line = train.read_text().splitlines(keepends=True)[0]
    test.write_text(test.read_text() + line)
    train.write_text(train.read_text() + line)
    load(f"list:{train},{test}")
    assert f"{train} lists 1 images twice" in caplog.text
    told = rf"1 of \d+ images of {test} are in training too, .* too high: {line.split()[0]}\n"
    assert re.search(told, caplog.text)


def test_a_missing_image_is_named_and_may_be_allowed(root):
    gone = root / read_list(root / "ImageNet_LT_train.txt").paths[0]
    gone.unlink()
    with pytest.raises(GCLError, match=rf"no such image: {gone}, which .*_train\.txt lists$"):
        load(f"imagenet_lt:{root}")
    data = load(f"imagenet_lt:{root}", skip_unreadable=1)
    pixels = data.train.images.pixels
    assert torch.equal(pixels[0], pixels[1])


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("train", "they are in {root}: --image-root {root}"),
        ("..", "they are in {root}: --image-root {root}"),
        ("train/n01440764", "they are in {root}: --image-root {root}"),
        ("elsewhere", "--image-root names the folder that they are in"),
    ],
)
def test_a_wrong_root_says_which_one_fits(root, given, hint):
    (root / "elsewhere").mkdir()
    (root / "elsewhere").rename(root.parent.parent / "elsewhere")
    place = root.parent.parent / "elsewhere" if given == "elsewhere" else root / given
    with pytest.raises(GCLError) as caught:
        load(f"imagenet_lt:{root}", image_root=str(place))
    assert str(caught.value).endswith("; " + hint.format(root=root.resolve()))
    assert f"lists are not in {place}" in str(caught.value)


def test_a_root_that_lacks_the_first_folder_says_so(root):
    (root / "train").rename(root / "images")
    with pytest.raises(
        GCLError, match=r"images has n0144.*/.*JPEG, without the folder train above"
    ):
        load(f"imagenet_lt:{root}")


# A whole run


def test_killed_within_an_epoch_of_both_stages_it_ends_with_the_same_bits(tmp_path):
    """A thousandth of ImageNet-LT's counts, one image of them broken, and other workers."""
    counts = [max(1, n // 20) for n in sorted(official_counts()["imagenet_lt"])[34::50][::-1]]
    assert (len(counts), sum(counts)) == (20, 115)
    root = listed_images(tmp_path / "data", counts)
    os.truncate(root / read_list(root / "ImageNet_LT_train.txt").paths[3], 80)

    def train(runs, *more, harm=None):
        options = {"dataset": f"imagenet_lt:{root}", "network": "resnet32", "image-size": 8}
        options |= {"epochs": 2, "stage2-epochs": 2, "batch-size": 32, "stage2-batch-size": 32}
        options |= {"warmup": 0, "stage2-warmup": 0, "threads": 1, "skip-unreadable": 1}
        options |= {"precision": "float32", "accelerator": "cpu", "runs": runs, "progress": "log"}
        words = [word for name, given in options.items() for word in (f"--{name}", given)]
        return forked("train", *words, *more, sabotage=harm)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = train(whole)
    assert done.status == 0, done.err
    assert "recipe of docs/recipes.md: resnet32, weights none, 2 + 2 epochs, batch 32" in done.err
    assert "  a guess: steps after 160 and 180 epochs" in done.err
    # Of stage 1: the settings, four steps and an epoch, two steps.
    first = train(killed, harm=functools.partial(sabotage.die_after_a_step, 8))
    assert first.status == -signal.SIGKILL
    # The metrics; two steps, an epoch and the result; of stage 2 as before.
    second = train(killed, harm=functools.partial(sabotage.die_after_a_step, 5 + 8))
    assert second.status == -signal.SIGKILL
    assert "stage 1: going on in epoch 2, after step 2" in second.err
    last = train(killed, "--workers", 1)
    assert last.status == 0, last.err
    assert "stage 2: going on in epoch 2, after step 2" in last.err
    assert "read from their files by 1 worker process " in last.err
    assert tree(killed) == tree(whole)
    assert len(checkpoints(whole)) == 2 and equal(checkpoints(killed), checkpoints(whole))
    results = [json.loads(file.read_text()) for file in whole.glob("*/result.json")]
    assert [result["unreadable"] for result in results] == [1, 1]
