"""Folders that are written and split: what is read back, what is refused, what is drawn of them."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcl_core.data.image_folder import split_image_folder, write_image_folder
from gcl_core.errors import GCLError
from gcl_core.figures.folder import accuracy_by_size, folder_overview
from gcl_core.figures.looks import GROUP_COLOURS, METHOD_LOOKS
from gcl_core.figures.series import Series
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
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=4),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_a_split_parts_every_class(tmp_path_factory, counts, share, seed):
    root = tmp_path_factory.mktemp("split")
    for j, n in enumerate(counts):
        (root / "all" / f"c{j}").mkdir(parents=True)
        for i in range(n):
            (root / "all" / f"c{j}" / f"{i}.png").write_bytes(f"{j} {i}".encode())
    split_image_folder(root / "all", root / "out", share=share, seed=seed)
    train, test = (files_in(root / "out" / part) for part in ("train", "test"))
    assert not train.keys() & test.keys()
    assert train | test == files_in(root / "all")
    for j, n in enumerate(counts):
        held = sum(name.startswith(f"c{j}") for name in test)
        assert held == min(max(1, round(share * n)), n - 1)


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


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    images = image_folder(tmp_path / "images", ("ant", "bee"))
    image_folder(tmp_path / "images", ("cow",), train=1)
    with pytest.raises(GCLError, match="class 'cow' has one image in .*cow; 2 are needed"):
        split_image_folder(images / "train", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Figures


def many_classes(number):
    random = np.random.default_rng(0)
    return toy_dataset(counts=tuple(random.permutation(np.arange(1, number + 1)).tolist()))


def test_classes_are_drawn_by_size_in_the_colours_of_their_groups():
    dataset = toy_dataset(counts=(5, 30, 12))
    counts, pictures = folder_overview(dataset).axes[:2]
    assert [bar.get_height() for bar in counts.patches] == [30, 12, 5]
    colours = [mpl.colors.to_hex(bar.get_facecolor()).upper() for bar in counts.patches]
    assert colours == [GROUP_COLOURS[group] for group in ("many", "medium", "few")]
    assert [t.get_text() for t in pictures.get_xticklabels()] == ["class 1", "class 2", "class 0"]
    shown = [inner.images[0].get_array() for inner in pictures.child_axes]
    for array, j in zip(shown, (1, 2, 0), strict=True):
        first = dataset.train.images.pixels[int((dataset.train.labels == j).nonzero()[0])]
        assert np.array_equal(np.asarray(array), first.permute(1, 2, 0).numpy())


def test_accuracies_follow_their_classes():
    dataset = toy_dataset(counts=(5, 30, 12))
    line = Series(METHOD_LOOKS["ce"], [10.0, 90.0, 50.0], [1.0, 2.0, 3.0])
    (axes,) = accuracy_by_size(dataset, [line]).axes
    assert list(axes.lines[0].get_ydata()) == [90, 50, 10]
    assert [t.get_text().split("\n")[1] for t in axes.get_xticklabels()] == ["30", "12", "5"]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert {88.0, 92.0, 47.0, 53.0, 9.0, 11.0} <= set(band.tolist())


@pytest.mark.parametrize("number", [20, 21, 150])
def test_of_many_classes_twenty_are_shown(number):
    figure = folder_overview(many_classes(number))
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert len(heights) == 20
    assert (heights[0], heights[-1]) == (number, 1)
    assert heights == sorted(heights, reverse=True)
    names = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert all(len(name) <= 6 and name.startswith("clas") for name in names)
