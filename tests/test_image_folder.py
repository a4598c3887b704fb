"""Folders that are written and split: what is read back, what is refused."""

import errno
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from gcl_core.cli import main
from gcl_core.data.grouped import parts_of_groups
from gcl_core.data.image_folder import split_image_folder, write_image_folder
from gcl_core.errors import GCLError
from toys import image_folder, load_source, toy_dataset


def files_in(folder):
    """Content by path, relative to the folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_back_in_the_order_of_names(tmp_path, channels):
    dataset = toy_dataset(counts=(7, 3, 2), channels=channels)
    object.__setattr__(dataset, "class_names", ("zebra", "ant", "mole"))
    assert write_image_folder(dataset, tmp_path / "images") == tmp_path / "images"
    source = load_source(f"folder:{tmp_path / 'images'}")
    assert source.class_names == ("ant", "mole", "zebra")
    for part in ("train", "test"):
        given, read = getattr(dataset, part), getattr(source, part)
        images, labels = given.images.pixels, given.labels
        expected = torch.cat([images[labels == j] for j in (1, 2, 0)]).expand(-1, 3, -1, -1)
        assert torch.equal(read.images.pixels, expected)
        sizes = [int((labels == j).sum()) for j in (1, 2, 0)]
        assert torch.bincount(read.labels).tolist() == sizes


@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=4),
    share=st.floats(0.01, 0.99),
    validation=st.one_of(st.just(0), st.floats(0.01, 0.99)),
    seed=st.integers(0, 5),
)
def test_a_split_parts_every_class(tmp_path_factory, counts, share, validation, seed):
    assume(share + validation < 1)
    root = tmp_path_factory.mktemp("split")
    for j, n in enumerate(counts):
        (root / "all" / f"c{j}").mkdir(parents=True)
        for i in range(n):
            (root / "all" / f"c{j}" / f"{i}.png").write_bytes(f"{j} {i}".encode())
    options = {"share": share, "seed": seed}
    split_image_folder(str(root / "all"), str(root / "out"), validation=validation, **options)
    parts = {part.name: files_in(part) for part in (root / "out").iterdir()}
    assert set(parts) == {"train", "test", "val"} - ({"val"} if not validation else set())
    assert sum(map(len, parts.values())) == sum(counts)
    train, test, val = (parts.get(part, {}) for part in ("train", "test", "val"))
    assert train | test | val == files_in(root / "all")
    for j, n in enumerate(counts):
        held, kept = (sum(name.startswith(f"c{j}") for name in part) for part in (test, val))
        assert held == min(max(1, round(share * n)), n - 1 - bool(validation))
        if validation:
            assert kept == min(max(1, round(validation * n)), n - held - 1)
    split_image_folder(root / "all", root / "two", **options)
    if all(n - 2 >= round(share * n) for n in counts):  # validation comes off the training part
        assert files_in(root / "two" / "test") == test


def test_the_seed_decides_who_is_held_out(tmp_path):
    images = image_folder(tmp_path / "images", train=20) / "train"
    held = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        held.append(set(files_in(split_image_folder(images, tmp_path / name, seed=seed) / "test")))
    assert held[0] == held[1] != held[2]


def test_folders_inside_of_a_class_are_kept(tmp_path):
    images = image_folder(tmp_path / "images", train=1) / "train"
    for name in ("ant", "bee", "cow"):
        (images / name / "film").mkdir()
        (images / name / "film" / "0.png").write_bytes(b"another of the same name")
    out = split_image_folder(images, tmp_path / "out")
    found = {**files_in(out / "train"), **files_in(out / "test")}
    assert found == files_in(images)


def test_neither_overwrites(tmp_path):
    images = image_folder(tmp_path / "images")
    before = files_in(images)
    for call in (
        lambda: write_image_folder(toy_dataset(), images),
        lambda: split_image_folder(images / "train", images),
    ):
        with pytest.raises(GCLError, match="images has files in it; name another folder"):
            call()
    assert files_in(images) == before
    (tmp_path / "empty").mkdir()
    split_image_folder(images / "train", tmp_path / "empty")


def test_what_is_split_already_is_not_split_again(tmp_path):
    images = image_folder(tmp_path / "images")
    with pytest.raises(GCLError, match="images has test, train: parts of a data set, not classes"):
        split_image_folder(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_part_goes_where_it_would_pass_for_a_class(tmp_path):
    train = image_folder(tmp_path / "images") / "train"
    before = files_in(train)
    for out in (train, train / "split0", train / "ant" / "deep"):
        with pytest.raises(GCLError, match=f"{out} is inside of {train}"):
            split_image_folder(train, out)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(GCLError, match="file has files in it; name another folder"):
        split_image_folder(train, tmp_path / "file")
    assert files_in(train) == before


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(tmp_path, share):
    with pytest.raises(GCLError, match=r"share must be in \(0, 1\), got"):
        split_image_folder(tmp_path, tmp_path / "out", share=share)


@pytest.mark.parametrize("validation", [-0.1, 0.8, float("nan")])
def test_a_validation_share_out_of_range_is_refused(tmp_path, validation):
    with pytest.raises(GCLError, match=r"validation must be in \[0, 0.8\), 1 - share; got"):
        split_image_folder(tmp_path, tmp_path / "out", validation=validation)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_half_a_split_never_passes_for_a_whole_one(tmp_path, monkeypatch, error):
    images = image_folder(tmp_path / "images") / "train"
    copied, copy = [], shutil.copy2

    def fails(*names):
        copied.append(names)
        if len(copied) == 10:
            raise error
        return copy(*names)

    monkeypatch.setattr(shutil, "copy2", fails)
    with pytest.raises(type(error)):
        split_image_folder(images, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["images"]


def test_leftovers_are_not_copied_and_home_is_known(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HOME", str(tmp_path))
    images = image_folder(tmp_path / "images") / "train"
    expected = files_in(images)
    for name in (".ipynb_checkpoints/0.png", "ant/.ipynb_checkpoints/0.png", "ant/._0.png"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes(b"")
    (images / "ant" / "loop").symlink_to(images)
    out = split_image_folder("~/images/train", "~/out")
    assert out == tmp_path / "out"
    assert files_in(out / "train") | files_in(out / "test") == expected
    assert "left out: 4 that" in caplog.text


@pytest.mark.parametrize(("images", "validation"), [(1, 0), (2, 0.1)])
def test_a_class_of_fewer_images_than_parts_cannot_be_split(tmp_path, images, validation):
    folder = image_folder(tmp_path / "images", ("ant", "bee")) / "train"
    image_folder(tmp_path / "images", ("cow",), train=images)
    with pytest.raises(GCLError, match=f"'cow' has too few images in .*: {images}; {images + 1} "):
        split_image_folder(folder, tmp_path / "out", validation=validation)
    assert not (tmp_path / "out").exists()


@given(
    groups=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=12, max_size=40),
    shares=st.sampled_from([(0.2, 0.8), (0.2, 0.1, 0.7), (0.5, 0.5)]),
    seed=st.integers(0, 3),
)
def test_no_group_is_in_two_parts_and_shares_are_near(groups, shares, seed):
    labels = [label for group in groups for label in group]
    assume(len(set(labels)) == max(labels) + 1)
    of = [f"person {g}" for g, group in enumerate(groups) for _ in group]
    parts = parts_of_groups(labels, of, shares, seed)
    assert parts == parts_of_groups(labels, of, shares, seed)
    assert len(set(zip(of, parts, strict=True))) == len(groups)
    best = misfit(labels, parts, shares)
    for g in range(len(groups)):  # no group is better off elsewhere
        for other in range(len(shares)):
            moved = [other if of[i] == f"person {g}" else its for i, its in enumerate(parts)]
            assert misfit(labels, moved, shares) > best - 1e-6


def misfit(labels, parts, shares):
    """What `parts_of_groups` makes small, in plain loops."""
    total, cells = 0.0, len(shares) * len(set(labels))
    for label in set(labels):
        whole = labels.count(label)
        for part, share in enumerate(shares):
            there = sum(its == (label, part) for its in zip(labels, parts, strict=True))
            total += (there / whole - share) ** 2 + (2 * cells if there == 0 else 0)
    return total


def test_single_images_are_split_as_exactly_as_can_be():
    labels = [0] * 50 + [1] * 20
    parts = parts_of_groups(labels, [str(i) for i in range(70)], (0.2, 0.1, 0.7), 0)
    counts = [[parts[a:b].count(p) for p in range(3)] for a, b in ((0, 50), (50, 70))]
    assert counts == [[10, 5, 35], [4, 2, 14]]


def grouped_folder(root, lines):
    """Three classes of six images, and a CSV of the lines."""
    (root / "people.csv").write_text("image,group,age\n" + "\n".join(lines) + "\n")
    return image_folder(root / "images", train=6, test=1) / "train"


def people_of(classes=("ant", "bee", "cow")):
    return [f"{name}/{i}.png,p{i % 3},7" for name in classes for i in range(6)]


def test_people_are_split_by_the_command(tmp_path, capsys):
    source = grouped_folder(tmp_path, people_of())
    words = ["split", source, tmp_path / "out", "--groups", tmp_path / "people.csv"]
    assert main([str(word) for word in (*words, "--share", "0.3", "--validation", "0.3")]) == 0
    assert capsys.readouterr().out.count("6 images of 3 classes") == 3
    for part in ("train", "test", "val"):
        people = {int(Path(name).stem) % 3 for name in files_in(tmp_path / "out" / part)}
        assert len(people) == 1


def test_names_alone_will_do_where_they_are_clear(tmp_path):
    source = grouped_folder(tmp_path, [f"{i},p{i}" for i in range(18)])
    for j, name in enumerate(("ant", "bee", "cow")):
        for i in reversed(range(6)):
            (source / name / f"{i}.png").rename(source / name / f"{6 * j + i}.png")
    out = split_image_folder(source, tmp_path / "out", groups=tmp_path / "people.csv")
    assert len(files_in(out / "test")) == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (people_of()[:-2], r"cow/4\.png has no group in .*people.csv \(nor have 1 more\)"),
        (["ant/0.png"], "people.csv needs the columns image and group, both filled in each line"),
        ([*people_of(), "ant/0.png,p2"], "has two groups of ant/0.png: p0 and p2"),
        ([f"{i},p" for i in range(6)], "0 in .* may be ant/0.png or bee/0.png: give paths inside"),
        (
            [line.replace("p1", "p0").replace("p2", "p0") for line in people_of()],
            r"class .ant. cannot be split: its images are of 1 group\(s\), and test gets none; 2 ",
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused_in_one_line(tmp_path, lines, message):
    source = grouped_folder(tmp_path, lines)
    with pytest.raises(GCLError, match=message):
        split_image_folder(source, tmp_path / "out", groups=tmp_path / "people.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"image,group\n\xff,a\n"])
def test_a_file_of_groups_that_cannot_be_read_is_named(tmp_path, content):
    source = grouped_folder(tmp_path, [])
    (tmp_path / "people.csv").unlink()
    if content:
        (tmp_path / "people.csv").write_bytes(content)
    with pytest.raises(GCLError, match=r"^cannot read groups from .*people\.csv: "):
        split_image_folder(source, tmp_path / "out", groups=tmp_path / "people.csv")
