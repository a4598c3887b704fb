"""The embedded photographs: what is in the file, how it is split, and what damage is said to be."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_core import GCLError, resolve
from gcl_core.cli import main
from gcl_core.data import clothes
from gcl_core.data.clothes import clothes_pictures
from gcl_core.data.load import DataSettings, load_dataset
from gcl_core.training.two_stages import run
from toys import load_source, toy_dataset, toy_features

NATURAL = {"T-Shirt": 1011, "Longsleeve": 699, "Pants": 692, "Hoodie": 100, "Top": 43, "Blouse": 23}


@pytest.fixture(scope="module")
def stored():
    with np.load(clothes.FILE, allow_pickle=False) as arrays:
        return dict(arrays)


def parts_of(dataset):
    return dataset.train, dataset.validation, dataset.test


def test_the_file_holds_what_its_readme_says(stored):
    assert clothes.FILE.stat().st_size <= 12e6
    assert stored["features"].shape == (5096, 256)
    assert stored["features"].dtype == np.float16
    assert np.isfinite(stored["features"]).all()
    counts = dict(zip(stored["class_names"].tolist(), np.bincount(stored["labels"]), strict=True))
    assert (len(counts), sum(counts.values())) == (17, 5096)
    assert counts.items() >= NATURAL.items()
    assert len(set(stored["ids"].tolist())) == 5096
    readme = (clothes.FILE.parent / "README.md").read_text()
    for name in stored:
        assert f"`{name}`" in readme
    assert "CC0" in (clothes.FILE.parent / "LICENSE").read_text()


@settings(max_examples=4)
@given(st.integers(0, 2**32 - 1))
def test_parts_share_nothing_and_have_their_share_of_each_class(seed):
    dataset = load_source("clothes", data_seed=seed)
    numbers = [part.images.pictures.numbers for part in parts_of(dataset)]
    assert sorted(itertools.chain(*numbers)) == list(range(5096))
    train, validation, test = (torch.bincount(p.labels, minlength=17) for p in parts_of(dataset))
    whole = train + validation + test
    assert ((test - 0.2 * whole).abs() <= 0.5).all()
    assert ((validation - 0.1 * whole).abs() <= 0.5).all()


def test_another_seed_is_another_split_and_the_same_is_the_same():
    one, again, other = (load_source("clothes", data_seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == again.fingerprint != other.fingerprint


def test_features_labels_and_pictures_stay_together(stored):
    dataset = load_dataset(DataSettings(dataset="clothes", class_counts=[5] * 17))
    every = clothes_pictures()
    assert len(every) == 5096
    for part in parts_of(dataset):
        numbers = part.images.pictures.numbers
        assert (part.images.pixels.flatten(1).numpy() == stored["features"][numbers]).all()
        assert part.labels.tolist() == stored["labels"][numbers].tolist()
        seen = part.images.picture(3)
        assert (seen.mode, min(seen.size)) == ("RGB", 64)
        assert seen.tobytes() == every[numbers[3]].tobytes()
    assert all(min(every[i].size) == 64 for i in range(0, 5096, 97))


def test_pixels_are_their_own_pictures_and_features_have_none():
    images = toy_dataset(channels=1).train.images
    assert (np.asarray(images.picture(2)) == images.pixels[2, 0].numpy()).all()
    with pytest.raises(GCLError, match="^these images are features, and there are no pictures"):
        toy_features().train.images.picture(0)


def test_a_run_knows_more_than_the_head_class(tmp_path):
    done = run(resolve("clothes", "gcl_crt", "smoke"), tmp_path, progress="none")
    assert done.result["top1"] > 50  # T-shirts alone: 20
    assert done.result["class_names"][14] == "T-Shirt"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("clothes:x",), "dataset 'clothes' is embedded: it takes no path and no image_size"),
        (("clothes", "--image-size", "32"), "dataset 'clothes' is embedded: it takes no path and"),
        (("clothes", "--crop-padding", "4"), "'clothes' has features, not pixels: leave crop_padd"),
        (("clothes", "--flip", "yes"), "'clothes' has features, not pixels: leave crop_padding an"),
        (("clothes", "--network", "resnet32"), "network 'resnet32' takes pixels, and clothes has"),
        (("digits", "--network", "features"), "network 'features' takes features, and digits has"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, capsys, words, message):
    words = ["train", "--runs", str(tmp_path), "--dataset", *words]
    assert main([*words, "--method", "ce", "--preset", "smoke"]) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"gcl: {message}")
    assert not list(tmp_path.iterdir())


def test_compare_needs_pixels(capsys):
    assert main(["compare", "--dataset", "clothes", "--imbalance-ratio", "none"]) == 1
    assert "compare needs pixels, and clothes has features" in capsys.readouterr().err


def test_the_list_of_data_sets_names_it(capsys):
    main(["datasets", "--json"])
    assert "5,096 photographs of clothes" in json.loads(capsys.readouterr().out)["clothes"]


def empty(file):
    np.savez(file, labels=np.zeros(3))


def pickled(file):
    np.savez(file, **{n: np.array([{}]) for n in ("features", "labels", "class_names")})


def truncated(file):
    file.write_bytes(clothes.FILE.read_bytes()[:5_000_000])


def changed(file):
    data = bytearray(clothes.FILE.read_bytes())
    data[1_000_000] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [empty, pickled, truncated, changed, lambda file: None])
def test_a_damaged_file_is_named_in_one_line(tmp_path, monkeypatch, damage):
    file = tmp_path / "clothes.npz"
    damage(file)
    monkeypatch.setattr(clothes, "FILE", file)
    message = rf"^{file} is damaged \(.+\); install gcl-core again$"
    with pytest.raises(GCLError, match=message) as refusal:
        load_source("clothes")
    assert "\n" not in str(refusal.value)
