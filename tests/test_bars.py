"""Who waits more than three seconds sees a bar move, or has a line in a log."""

import logging
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE

from gcl_core import bars, cli, resolve
from gcl_core.analysis.embedding import ITERATIONS, tsne
from gcl_core.bars import Bar
from gcl_core.errors import GCLError
from gcl_core.networks.models import build_backbone
from gcl_core.training import two_stages
from gcl_core.training.evaluation import outputs_of
from gcl_core.training.features import features_of
from toys import image_folder, listed_images, load_source, seeded, toy_dataset

CPU = torch.device("cpu")


@pytest.fixture
def watching(monkeypatch):
    """Somebody who sees every bar, however short."""
    monkeypatch.setattr(bars, "PATIENCE", 0)
    monkeypatch.setattr(bars, "watched", lambda: True)


def test_items_come_with_a_bar_and_without(monkeypatch, capsys, caplog):
    for patience, kind, seen in ((0, "bar", True), (0, "none", False), (3, "bar", False)):
        monkeypatch.setattr(bars, "PATIENCE", patience)
        with caplog.at_level(logging.INFO):
            assert list(Bar("decoding", 3, "image", kind).over(iter("abc"))) == ["a", "b", "c"]
        assert ("decoding" in capsys.readouterr().err) == seen
    assert caplog.messages == []


def test_a_log_has_one_line_after_three_seconds_and_more_after_a_minute(caplog):
    with caplog.at_level(logging.INFO), Bar("testing", 1000, "image", "log") as bar:
        for passed in (1, 2, 4, 30, 59, 100, 150, 250):
            bar.began -= passed - bar.done  # one image a second
            bar.update(passed - bar.done)
    lines = [re.sub(r":\d\d left", "", message) for message in caplog.messages]
    assert lines == [
        "testing: 4 of 1000 images, about 0:16",
        "testing: 100 of 1000 images, about 0:15",
        "testing: 250 of 1000 images, about 0:12",
    ]


def test_what_is_done_has_no_line_and_no_time_left(monkeypatch, caplog):
    monkeypatch.setattr(bars, "PATIENCE", 0)
    with caplog.at_level(logging.INFO), Bar("testing", 3, "image", "log") as bar:
        bar.update(3)
    assert caplog.messages == []
    with pytest.raises(GCLError, match="progress 'loud' is unknown; allowed: auto, bar, log, none"):
        Bar("testing", 3, "image", "loud")


SMALL = {"epochs": 1, "network": "digits_cnn"}


def trained(place):
    settings = resolve("digits", "ce_ncm", "digits", **SMALL)
    return two_stages.run(settings, place, accelerator="cpu", dataset=toy_dataset(tests=300))


def described(place):
    data, fabric = toy_dataset(), two_stages.make_fabric("cpu", "float32")
    features_of(data, build_backbone("digits_cnn", "none", 3, seeded()), fabric, "auto")


def of_images(place):
    data = toy_dataset()
    outputs_of(lambda images: images.mean((2, 3)), data.test, data, CPU)


def of_photographs(place):
    root = image_folder(place / "images")
    settings = resolve(f"folder:{root}", "ce", "digits", **SMALL)
    two_stages.run(settings, place, accelerator="cpu")


def listed(place):
    listed_images(place, kind="imagenet_lt")
    return load_source(f"imagenet_lt:{place}", image_size=8).train.images.contents


def predicted(place):
    root = image_folder(place / "images")
    settings = resolve(f"folder:{root}", "ce", "digits", **SMALL)
    path = two_stages.run(settings, place, accelerator="cpu", progress="none").path
    cli.main(["predict", str(path), str(root / "test"), "--json"])


def split(place):
    image_folder(place / "images")
    cli.main(["split", str(place / "images" / "train"), str(place / "out")])


LONG = [
    ("testing", trained),
    ("features", trained),  # class means, of the second stage
    ("features", described),
    ("outputs", of_images),
    ("decoding", of_photographs),
    ("hashing", listed),
    ("pictures", predicted),
    ("copying", split),
    ("t-SNE", lambda place: tsne(torch.randn(40, 8, generator=seeded()), perplexity=5)),
]


@pytest.mark.parametrize(("title", "work"), LONG)
def test_what_may_take_long_has_a_bar(title, work, watching, tmp_path, capsys):
    work(tmp_path)
    assert f"{title}:" in capsys.readouterr().err


def test_a_run_that_shall_be_silent_is(watching, tmp_path, capsys, caplog):
    settings, data = resolve("digits", "ce_ncm", "digits", **SMALL), toy_dataset()
    quiet = {"progress": "none", "dataset": replace(data, validation=data.test)}
    with caplog.at_level(logging.INFO):
        two_stages.run(settings, tmp_path, accelerator="cpu", **quiet)
    assert (capsys.readouterr(), caplog.messages) == (("", ""), [])


def test_a_map_moves_its_bar_and_is_the_same_as_without(watching, monkeypatch, capsys):
    points = torch.randn(60, 8, generator=seeded())
    moved = []
    update = Bar.update
    monkeypatch.setattr(Bar, "update", lambda bar, n: (moved.append(n), update(bar, n)))
    found = tsne(points, perplexity=5)
    mapper = TSNE(perplexity=5, init="pca", learning_rate="auto", random_state=0)
    assert mapper.get_params()["max_iter"] in (None, ITERATIONS)
    assert torch.equal(found, torch.from_numpy(mapper.fit_transform(F.normalize(points).numpy())))
    assert len(moved) > 5
    assert sum(moved) <= ITERATIONS
    assert capsys.readouterr().out == ""
