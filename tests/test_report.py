"""The page about a run: what it says is so, and nothing that it quotes breaks it."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gcl_core.cli import main
from gcl_core.data.images import MemoryImages
from gcl_core.errors import GCLError
from gcl_core.files import atomic_json, load_json
from gcl_core.inference.calibration import Calibration
from gcl_core.inference.saved import SavedModel, images_of
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.methods.settings import to_dict
from gcl_core.networks.network import CosineClassifier, Network
from gcl_core.report.page import method_of, report, thumbnail
from toys import image_folder, load_source, seeded, toy_dataset

VOID = {"meta", "img", "line", "rect", "circle"}


class Page(HTMLParser):
    """Text and tags of a page; refuses one whose tags do not close in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def model_of(dataset, folder, **changes):
    """An untrained run of a data set: pixels in a row, and a cosine classifier."""
    torch.manual_seed(0)
    size = int(np.prod(dataset.train.images.shape))
    fields = {
        "path": folder,
        "network": Network(nn.Flatten(), CosineClassifier(size, dataset.num_classes)).eval(),
        "class_names": dataset.class_names,
        "class_counts": dataset.class_counts,
        "shape": dataset.train.images.shape,
        "mean": dataset.mean,
        "std": dataset.std,
        "scale": 30.0,
        "source": "digits",
        "settings": to_dict(resolve("digits", "gcl_crt", precision="float32")),
        "calibration": None,
        "result": {},
    }
    identity = {"images": {"fingerprint": dataset.fingerprint}}
    atomic_json(folder / "settings.json", {"identity": identity})
    return SavedModel(**(fields | changes))


def test_report_of_digits(tmp_path, capsys):
    runs = ["--runs", str(tmp_path / "runs"), "--accelerator", "cpu", "--progress", "none"]
    assert main(["train", "--preset", "smoke", "--imbalance-ratio", "20", *runs]) == 0
    (run,) = (tmp_path / "runs").glob("*/model.pt")
    assert main(["report", str(run.parent), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'page.html'}\n"
    html = (tmp_path / "new" / "page.html").read_text()
    page, result = Page(html), load_json(run.parent / "result.json")
    for number in ("top1", "few"):
        assert f" {result[number]:.1f} % " in page.text
    assert f"Mean of classes {np.mean(result['per_class']):.1f} %" in page.text
    assert "500 for testing, 10 classes" in page.text
    assert "gcl_crt, network digits_cnn" in page.text
    assert "3 + 1 epochs, seed 0" in page.text
    assert "top-1 was" not in page.text and "not the images" not in page.text
    right = [f"{round(share / 2)} of 50" for share in result["per_class"]]
    assert re.findall(r"(\d+ of 50), \d+ to \d+ %", page.text) == right  # largest first: as it is
    # One file: no script, and nothing fetched.
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|url\(|@import", html)
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    # For ears as for eyes.
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert all(image["alt"] for image in page.all("img"))
    assert all(head["scope"] in ("col", "row") for head in page.all("th"))
    assert all(figure["aria-label"] for figure in page.all("svg"))


NAMES = ("<script>alert(1)</script>", 'a|b "c" & d', "x" * 300)


def test_names_are_text(tmp_path):
    dataset = replace(toy_dataset(), class_names=NAMES)
    html = report(model_of(dataset, tmp_path), dataset)
    page = Page(html)
    assert not page.all("script")
    assert all(name in page.text for name in NAMES)
    assert any(NAMES[0] in image["alt"] for image in page.all("img"))


def test_its_probabilities_are_those_of_predictions(tmp_path):
    dataset = toy_dataset(tests=40)
    calibration = Calibration(12.0, 0.7, 99, 1.0, 0.9, 0.2, 0.1)
    page = {}
    for name, fitted in (("plain", None), ("calibrated", calibration)):
        model = model_of(dataset, tmp_path, calibration=fitted, result={"top1": 12.3, "few": 4.5})
        said = model.predict(dataset.test.images.pixels).probabilities.max(1)
        page[name] = Page(report(model, dataset)).text
        wrong = said.indices != dataset.test.labels
        assert f"with {100 * said.values[wrong].max():.1f} %" in page[name]
        right = 100 * (~wrong).double().mean()
        assert f"Top-1 accuracy {right:.1f} %" in page[name]
    assert "not calibrated" in page["plain"] and "99 images" not in page["plain"]
    assert "not calibrated" not in page["calibrated"] and "99 images" in page["calibrated"]
    assert "those of the training images" in page["calibrated"]
    assert "those of the training images" not in page["plain"]
    alike = model.predict(dataset.test.images.pixels, "uniform").probabilities.argmax(1)
    right = 100 * (alike == dataset.test.labels).double().mean()
    assert f"all classes alike {right:.1f} %" in page["calibrated"]
    assert "It expects" not in page["plain"]


def test_the_picture_beside_a_mistake_is_the_training_image_most_like_it(tmp_path):
    dataset = toy_dataset(channels=1)
    # Each test image is also a training image; the features are the pixels.
    twins = dataset.train.images.pixels[: len(dataset.test)]
    same = replace(dataset.test, images=MemoryImages(twins))
    dataset = replace(dataset, test=same, about={"unreadable": 3})
    page = Page(report(model_of(dataset, tmp_path), dataset))
    pictures = [image["src"] for image in page.all("img")]
    assert pictures and pictures[::2] == pictures[1::2]
    assert page.text.count("training image of class 0 , 1.00 taken for") == len(pictures) / 2
    assert f"{len(twins)} of the test images are training images too" in page.text
    assert "as the smallest; 3 left out as unreadable" in page.text


@pytest.mark.parametrize(("classes", "opened"), [(2, 2 * 2), (120, 0)])
def test_few_and_many_classes(tmp_path, classes, opened):
    counts = tuple(range(2 + classes, 2, -1))
    dataset = toy_dataset(counts, tests=2)
    model = model_of(dataset, tmp_path)
    page = Page(report(model, dataset))
    assert sum("open" in attrs for attrs in page.all("details")) == opened
    assert len(page.all("details")) >= 4
    assert f"class {classes - 1}" in page.text


def test_a_class_without_test_images_says_so(tmp_path):
    dataset = toy_dataset()
    shown = dataset.test.subset((dataset.test.labels < 2).nonzero().flatten())
    page = Page(report(model_of(dataset, tmp_path), replace(dataset, test=shown)))
    assert "no test images: not known" in page.text
    assert "Its smallest classes have no test images" in page.text
    assert "From the accuracy of each class that has test images" in page.text
    assert "training images too" not in page.text and "unreadable" not in page.text


def test_a_model_without_mistakes(tmp_path):
    dataset = toy_dataset(counts=(9, 4), tests=1)
    unit = nn.functional.normalize
    model = model_of(dataset, tmp_path)
    pixels = (dataset.test.images.pixels / 255 - 0.4) / 0.2
    model.network.head.weight.data = unit(pixels.flatten(1) - pixels.flatten(1).mean(0))
    page = Page(report(model, dataset))
    assert "No test image was taken for another class." in page.text
    assert not page.all("img")


def test_other_images_are_said_to_be_others_and_normalised_as_in_training(tmp_path):
    dataset = toy_dataset()
    model = model_of(dataset, tmp_path)
    other = replace(dataset, test=dataset.test.subset(torch.arange(len(dataset.test)).flip(0)))
    same, page = Page(report(model, dataset)), Page(report(model, replace(other, mean=(0.9,) * 3)))
    assert "not the images that the run was" in page.text
    assert "not the images that the run was" not in same.text
    accuracy = r"Top-1 accuracy [\d.]+ %"
    assert re.search(accuracy, page.text)[0] == re.search(accuracy, same.text)[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_names": ("class 0", "class 1", "cow")}, "class 2, cow"),
        ({"class_names": ("class 0", "class 2", "class 1")}, "the same ones in another order"),
        ({"shape": (3, 9, 8)}, r"\(3, 8, 8\).*\(3, 9, 8\)"),
    ],
)
def test_images_of_another_kind_are_refused(tmp_path, change, said):
    dataset = toy_dataset()
    with pytest.raises(GCLError, match=said):
        report(model_of(dataset, tmp_path, **change), dataset)


def test_a_run_that_does_not_say_which_images_it_had(tmp_path):
    dataset = toy_dataset()
    model = model_of(dataset, tmp_path)
    (model.path / "settings.json").write_text("[]")
    with pytest.raises(GCLError, match=r"settings\.json does not say which images the run had"):
        report(model, dataset)


def test_images_that_moved(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    image_folder(old)
    settings = to_dict(resolve(f"folder:{old}", "ce", precision="float32", class_counts="5,4,3"))
    dataset = load_source(f"folder:{old}")
    model = model_of(dataset, tmp_path, settings=settings, source=f"folder:{old}")
    before = images_of(model)
    assert before.class_counts == (5, 4, 3)
    old.rename(new)
    with pytest.raises(GCLError, match=r"no such folder: .*old.*--dataset folder:PATH"):
        images_of(model)
    assert images_of(model, f"folder:{new}").fingerprint == before.fingerprint


def test_a_method_is_named_by_its_settings():
    named = {method: method_of(to_dict(resolve("digits", method))) for method in METHODS}
    for method in ("logit_adjustment", "balanced_softmax"):  # one loss under two names
        assert named.pop(method) == "logit_adjustment or balanced_softmax"
    assert list(named) == list(named.values())
    mine = resolve("digits", "gcl_crt", sampler="class", stage2_objective="ldam")
    assert method_of(to_dict(mine)) == "gcl, then ldam"


def test_thumbnails():
    random = torch.randint(256, (8, 9), dtype=torch.uint8, generator=seeded()).numpy()
    tiny = thumbnail(Image.fromarray(random))
    assert tiny.tiny
    np.testing.assert_array_equal(np.asarray(opened(tiny)), random)
    large = thumbnail(Image.new("RGB", (800, 400), "red"))
    assert not large.tiny and opened(large).size == (128, 64)


def opened(thumb):
    return Image.open(io.BytesIO(base64.b64decode(thumb.uri.split(",")[1])))
