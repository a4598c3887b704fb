"""A finished run's model.pt: the same outputs anywhere, for files, PIL images and tensors."""

import errno
import math
import os
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import ExifTags, Image

from gcl_core import METHODS, GCLError, load_run, resolve
from gcl_core.data.epoch import normaliser
from gcl_core.data.image_folder import write_image_folder
from gcl_core.data.load import load_dataset
from gcl_core.inference import saved
from gcl_core.training import two_stages
from toys import image_folder, toy_dataset, toy_features

CPU = torch.device("cpu")


def settings_of(method="gcl_crt", dataset="digits", **changes):
    """Two epochs of each stage, on few images."""
    short = {"epochs": 2, "network": "digits_cnn"}
    if dataset == "digits":
        short |= {"n_max": 20, "imbalance_ratio": 10}
    if METHODS[method].stage2:
        short["stage2_epochs"] = 2
    return resolve(dataset, method, "digits", **short | changes)


def run(place, settings, **more):
    return two_stages.run(settings, place, accelerator="cpu", progress="none", **more)


def kinds():
    """A method for each kind of network that a run may end with, by head and re-balancing."""
    found = {}
    for name, method in METHODS.items():
        rebalance = method.stage2.rebalance if method.stage2 else None
        found.setdefault((method.head, type(rebalance)), name)
    return sorted(found.values())


@pytest.mark.parametrize("method", kinds())
def test_a_loaded_run_has_the_outputs_of_the_run(tmp_path, method):
    finished = run(tmp_path, settings_of(method))
    model, images = load_run(finished.path), finished.dataset.test.images.pixels
    with torch.no_grad():
        expected = finished.network(
            normaliser(finished.dataset.mean, finished.dataset.std, CPU)(images)
        )
    assert torch.equal(model.outputs(images), expected)
    assert not model.network.training
    assert torch.equal(model.network.head(model.features(images)), expected)
    assert model.class_counts == finished.dataset.class_counts
    assert model.result == finished.result


def test_a_classifier_on_a_frozen_backbone_is_saved_with_it(tmp_path):
    root = image_folder(tmp_path / "images", size=(32, 32))
    (root / "test").rename(root / "val")
    shutil.copytree(root / "val", root / "test")
    settings = resolve(
        f"folder:{root}", "ce_ncm", "digits", network="timm:mobilenetv3_small_050", trains="head",
        epochs=1, stage2_epochs=1, image_size=32, weights="none"
    )  # fmt: skip
    finished = run(tmp_path / "runs", settings)
    model, images = load_run(finished.path), finished.dataset.test.images.pixels
    with torch.no_grad():
        expected = finished.network(
            normaliser(finished.dataset.mean, finished.dataset.std, CPU)(images)
        )
    assert torch.equal(model.outputs(images), expected)
    assert model.calibration.images == len(finished.dataset.validation)


def test_a_run_on_features_takes_features(tmp_path):
    settings = resolve("digits", "gcl", "digits", epochs=2, network="features")
    finished = run(tmp_path, settings, dataset=toy_features())
    model, features = load_run(finished.path), finished.dataset.test.images.pixels
    assert model.predict(features).classes[:4] == ["class 0"] * 4
    with pytest.raises(GCLError, match="trained on features of digits, not on pictures"):
        model.predict(tmp_path / "a.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images, and a run on it."""
    place = tmp_path_factory.mktemp("folder")
    root = image_folder(place / "images", train=8)
    settings = settings_of("gcl", dataset=f"folder:{os.path.relpath(root)}")
    return root, run(place / "runs", settings)


def test_a_run_that_was_moved_predicts_the_same(tmp_path, folder):
    root, finished = folder
    files = sorted(root.glob("test/*/*"))
    there = load_run(finished.path)
    moved = shutil.copytree(finished.path, tmp_path / "moved")
    here = load_run(str(moved))
    assert torch.equal(here.outputs(files), there.outputs(files))
    assert here.class_names == ("ant", "bee", "cow")
    assert here.source == f"folder:{root}"
    assert here.settings["stage1"]["objective"]["name"] == "gcl"


def test_an_old_run_gets_its_model_without_training(tmp_path):
    settings = settings_of("gcl_crt")
    first = run(tmp_path, settings)
    outputs = load_run(first.path).outputs(first.dataset.test.images.pixels)
    (first.path / "model.pt").unlink()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}
    with pytest.raises(GCLError, match="has no model.pt: .* or of an older version; the same tr"):
        load_run(first.path)
    again = run(tmp_path, settings)
    assert before.items() <= {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*")}.items()
    assert torch.equal(load_run(again.path).outputs(first.dataset.test.images.pixels), outputs)
    with pytest.raises(GCLError, match="first of two stages"):
        load_run(first.folders[0].path)


def test_a_finished_run_may_be_one_that_is_only_read(tmp_path, monkeypatch, caplog):
    settings = settings_of("gcl")
    file = run(tmp_path, settings).path / "model.pt"
    file.unlink()

    def refuse(path, value):
        raise OSError(error, os.strerror(error), str(path))

    monkeypatch.setattr(saved, "atomic_save", refuse)
    error = errno.EROFS
    with caplog.at_level("INFO"):
        assert run(tmp_path, settings).result
    assert "can only be read: model.pt" in caplog.text
    error = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, settings)


def test_what_is_no_finished_run_is_one_line(tmp_path, folder):
    there = shutil.copytree(folder[1].path, tmp_path / "run")
    file = there / "model.pt"
    whole = torch.load(file, weights_only=True)
    for content, message in (
        (b"cos\nsystem\n(S'touch intruder'\ntR.", "damaged or not a file of this program"),
        (file.read_bytes()[:5000], "damaged or not a file of this program"),
        (whole | {"version": 0}, "of version 0, this program reads 1; move it away"),
        (whole | {"weights": {}}, "not one that this program wrote .*Missing key"),
        (whole | {"version": torch.zeros(2)}, "is of version tensor"),
        (whole | {"shape": (3, 0, 8)}, "not one that this program wrote .*shape"),
        (whole | {"mean": ("x",)}, "not one that this program wrote .*float"),
        (whole | {"std": (0.1,)}, "not one that this program wrote .*of 3 channels"),
        (whole | {"scale": math.nan}, "not one that this program wrote .*not finite"),
        (whole | {"class_names": (1, 2, 3)}, "not one that this program wrote"),
        (whole | {"settings": whole["settings"] | {"network": 1}}, "not one that this program"),
        (whole | {"settings": whole["settings"] | {"data": []}}, "not one that this program"),
        ({"version": 1}, "not one that this program wrote .*calibration"),
    ):
        if isinstance(content, dict):
            torch.save(content, file)
        else:
            file.write_bytes(content)
        with pytest.raises(GCLError, match=message) as refusal:
            load_run(there)
        assert str(file) in str(refusal.value)
    (there / "result.json").unlink()
    with pytest.raises(GCLError, match="run is not finished; the same train command continues it"):
        load_run(there)
    for nothing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(GCLError, match="is no run: name the folder that `train` names"):
            load_run(nothing)


def test_pictures_are_decoded_as_the_test_images_are(tmp_path, folder):
    """Sideways by EXIF, on a transparent ground, of another size: the run's own test pixels."""
    source = image_folder(tmp_path / "other", size=(12, 9), train=4, test=4)
    ant = source / "test" / "ant"
    turned = Image.open(ant / "0.png")
    exif = turned.getexif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(ant / "0.png", exif=exif)
    clear = Image.open(ant / "1.png").convert("RGBA")
    clear.putalpha(100)
    clear.save(ant / "1.png")
    settings = settings_of("ce", dataset=f"folder:{source}", image_size=8)
    finished = run(tmp_path / "runs", settings)
    model, pixels = load_run(finished.path), finished.dataset.test.images.pixels
    files = sorted(source.glob("test/*/*"))
    expected = model.outputs(pixels)
    assert torch.equal(torch.stack([model.pixels(file) for file in files]), pixels)
    assert torch.equal(model.outputs(str(file) for file in files), expected)
    opened = [Image.open(file) for file in files]
    before = [image.tobytes() for image in opened]
    assert torch.equal(model.outputs(opened), expected)
    assert [image.tobytes() for image in opened] == before
    torch.testing.assert_close(model.outputs(files[0]), expected[:1])


def test_a_network_of_one_channel_sees_grey(tmp_path):
    finished = run(tmp_path / "runs", settings_of("ce"))
    model, dataset = load_run(finished.path), finished.dataset
    files = sorted(write_image_folder(dataset, tmp_path / "digits").glob("test/*/*"))
    order = [int(file.stem) for file in files]
    assert torch.equal(
        torch.stack([model.pixels(file) for file in files]), dataset.test.images.pixels[order]
    )
    red = model.pixels(Image.new("RGB", (40, 30), "red"))
    assert red.shape == (1, 8, 8)
    assert red.unique().tolist() == [76]  # 0.299 * 255: ITU-R 601


def test_more_pictures_than_go_through_the_network_together(monkeypatch, folder):
    model, files = load_run(folder[1].path), sorted(folder[0].glob("*/*/*"))
    expected = model.predict(files).probabilities
    monkeypatch.setattr(saved, "inference_batch", lambda device, shape: 4)
    sizes = []
    keep = saved.torch.stack
    monkeypatch.setattr(saved.torch, "stack", lambda some: sizes.append(len(some)) or keep(some))
    torch.testing.assert_close(model.predict(files).probabilities, expected)
    assert sizes == [4] * (len(files) // 4) + [len(files) % 4] * (len(files) % 4 > 0)


def test_what_cannot_be_predicted_is_one_line(tmp_path, folder):
    model = load_run(folder[1].path)
    text, dot = tmp_path / "notes.txt", tmp_path / "dot.png"
    text.write_text("no picture")
    Image.new("RGB", (1, 1)).save(dot)
    for wrong, message in (
        (text, "cannot read image .*notes.txt: cannot identify"),
        (dot, "cannot read image .*dot.png: it is 1x1; images must be at least 5x5 pixels"),
        (Image.new("RGB", (1, 1)), "cannot read image <PIL.*it is 1x1"),
        (tmp_path / "no.png", "cannot read image .*no.png"),
        ([], "there is no picture"),
        (torch.zeros(2, 3, 8, 9, dtype=torch.uint8), r"be torch.uint8 \(N >= 1, 3, 8, 8\), got"),
        (torch.zeros(2, 3, 8, 8), r"got torch.float32 \(2, 3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), r"got torch.uint8 \(0, 3, 8, 8\)"),
    ):
        with pytest.raises(GCLError, match=message):
            model.predict(wrong)


def test_without_validation_images_it_is_the_softmax_of_training(folder):
    root, finished = folder
    model, files = load_run(finished.path), sorted(root.glob("test/*/*"))
    assert model.calibration is None
    found = model.predict(files)
    expected = (30 * model.outputs(files).double()).softmax(1)
    torch.testing.assert_close(found.probabilities, expected)
    assert found.classes == [model.class_names[j] for j in expected.argmax(1)]
    for row, best in zip(expected, found.top(2), strict=True):
        ranked = sorted(zip(row.tolist(), model.class_names, strict=True), reverse=True)
        assert [(name, p) for p, name in ranked[:2]] == best
    with pytest.raises(GCLError, match="is not calibrated, so it takes no prior.*--validation"):
        model.predict(files, prior="uniform")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A run with validation images."""
    settings = settings_of("gcl_crt")
    dataset = load_dataset(settings.data)
    test = dataset.test
    dataset = replace(dataset, validation=test.subset(torch.arange(0, len(test), 3)))
    return run(tmp_path_factory.mktemp("runs"), settings, dataset=dataset)


def test_a_run_with_validation_images_is_calibrated_for_any_prior(calibrated):
    model, images = load_run(calibrated.path), calibrated.dataset.test.images.pixels
    fitted = model.calibration
    assert fitted.images == len(calibrated.dataset.validation)
    assert fitted.nll_after < fitted.nll_before
    z, counts = model.outputs(images).double(), torch.tensor(model.class_counts).double()
    logits = fitted.slope * z + fitted.tilt * (counts / counts.sum()).log()
    training = model.predict(images, "training").probabilities
    torch.testing.assert_close(training, logits.softmax(1))
    as_trained = model.predict(images).probabilities
    torch.testing.assert_close(as_trained, (fitted.slope * z).softmax(1))
    assert torch.equal(as_trained.argmax(1), z.argmax(1))  # what the run's accuracies count
    own = {name: float(n) for name, n in zip(model.class_names, [3, *[1] * 9], strict=True)}
    for prior, weights in (("uniform", torch.ones(10)), (own, torch.tensor([*own.values()]))):
        expected = training * weights / counts  # q_y / pi_y, up to a factor
        expected /= expected.sum(1, keepdim=True)
        torch.testing.assert_close(model.predict(images, prior).probabilities, expected)
    without = model.predict(images, own | {"3": 0.0}).probabilities
    assert float(without[:, 3].max()) == 0


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("even", "prior must be training, uniform or shares by class, got 'even'"),
        ({"0": 1.0}, "needs '1'"),
        (dict.fromkeys("0123456789x", 1.0), "does not know 'x'"),
        (dict.fromkeys("0123456789", 0.0), "not all zero"),
        (dict.fromkeys("0123456789", -1.0), "numbers >= 0"),
        (dict.fromkeys("0123456789", float("nan")), "numbers >= 0"),
    ],
)
def test_a_prior_that_is_wrong_is_one_line(calibrated, prior, message):
    with pytest.raises(GCLError, match=message):
        load_run(calibrated.path).predict(Image.new("L", (8, 8)), prior)


@pytest.mark.parametrize(
    ("method", "changes", "scale"),
    [
        ("ce", {}, 1),
        ("gcl", {"scale": 12}, 12),
        ("gcl_crt", {}, 20),
        ("post_hoc", {"head": "cosine", "objective": "ldam", "stage2_objective": "ldam",
                      "stage2_rebalance_scale": 25}, 1),
    ],
)  # fmt: skip
def test_the_scale_is_that_of_the_last_loss_unless_outputs_have_it(
    tmp_path, method, changes, scale
):
    settings = settings_of(method, **changes)
    dataset = toy_dataset((6, 4, 2), channels=1, tests=2)
    assert load_run(run(tmp_path, settings, dataset=dataset).path).scale == scale
