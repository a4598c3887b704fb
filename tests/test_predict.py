"""`predict` and `export`: what they print and write, and one line for whatever is wrong."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gcl_core import cli, load_run, resolve
from gcl_core.inference import commands, export, saved
from gcl_core.training import two_stages
from toys import image_folder, toy_dataset, toy_features


def main(*words):
    return cli.main([str(word) for word in words])


def trained(place, source, **more):
    short = {"epochs": 2, "network": "digits_cnn"}
    settings = resolve(source, "gcl", "digits", **short | more.pop("changes", {}))
    return two_stages.run(settings, place, accelerator="cpu", progress="none", **more)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images with a validation part."""
    root = image_folder(tmp_path_factory.mktemp("images"), test=4)
    shutil.copytree(root / "test", root / "val")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory, root):
    """A calibrated run."""
    return trained(tmp_path_factory.mktemp("runs"), f"folder:{root}").path


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A run without validation images."""
    return trained(tmp_path_factory.mktemp("bare"), "digits", dataset=toy_dataset()).path


def test_a_folder_and_files_as_table_csv_and_json(tmp_path, capsys, caplog, run, root):
    one, folder = root / "test" / "bee" / "2.png", root / "test" / "ant"
    files = [one, *sorted(folder.iterdir())]
    found = load_run(run).predict(files)
    expected = found.top(3)
    table = tmp_path / "new" / "table.csv"
    with caplog.at_level("INFO"):
        assert main("predict", run, one, folder, "--csv", table) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "calibrated on 12 validation images; class shares: as the run's loss assumes" in caplog.text
    )
    for line, file, best in zip(lines, files, expected, strict=True):
        (name, p), *others = best
        start, rest = line.split(" %", 1)
        assert start.split() == [str(file), name, f"{100 * p:.1f}"]
        assert rest.strip() == ", ".join(f"{other} {100 * q:.1f} %" for other, q in others)
    with table.open(newline="") as stream:
        rows = list(csv.reader(stream))
    places = ("class", "probability", "class_2", "probability_2", "class_3", "probability_3")
    assert rows[0] == ["image", *places]
    assert [row[1:6:2] for row in rows[1:]] == [[name for name, _ in best] for best in expected]
    assert [float(row[2]) for row in rows[1:]] == pytest.approx([best[0][1] for best in expected])

    assert main("predict", run, one, folder, "--top", 1, "--prior", "uniform", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    value = json.loads(line)
    assert value["calibrated"] is True
    uniform = load_run(run).predict(files, "uniform").top(1)
    for each, file, [(name, p)] in zip(value["predictions"], files, uniform, strict=True):
        assert each["image"] == str(file)
        assert each["classes"] == [{"class": name, "probability": pytest.approx(p)}]


@pytest.mark.parametrize("together", [1, 64])
def test_pictures_that_cannot_be_read_are_named_and_the_others_predicted(
    tmp_path, capsys, caplog, monkeypatch, bare, together
):

    monkeypatch.setattr(commands, "TOGETHER", together)
    for name in ("a.png", "z.png"):
        Image.new("RGB", (9, 8), "red").save(tmp_path / name)
    Image.new("RGB", (1, 1)).save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_text("no picture")
    (tmp_path / "notes.txt").write_text("left out of a folder")
    os.mkfifo(tmp_path / "pipe.png")  # opened, it would wait without end
    named = [tmp_path / name for name in ("a.png", "pipe.png", "notes.txt", "none.png")]
    words = (tmp_path, *named, "--json")
    with caplog.at_level("INFO"):
        assert main("predict", bare, *words) == 1
    value = json.loads(capsys.readouterr().out)
    assert [p["image"] for p in value["predictions"]] == [
        str(tmp_path / name) for name in ("a.png", "z.png", "a.png")
    ]
    bad = [str(tmp_path / name) for name in ("b.png", "c.jpg", "pipe.png", "notes.txt", "none.png")]
    assert value["unreadable"] == bad
    for file in bad:
        assert caplog.text.count(f"cannot read image {file}: ") == 1
    assert "5 of 8 pictures could not be read" in caplog.text
    assert "left out: 2 that are no images, or are there already, such as" in caplog.text
    assert "probabilities are not calibrated" in caplog.text


def test_shares_from_a_file(tmp_path, capsys, run, root):
    file = tmp_path / "shares.csv"
    file.write_text("\ufeffclass,share\nbee,3\nant,1\ncow,0\n", encoding="utf-8")
    picture = root / "test" / "cow" / "0.png"
    assert main("predict", run, picture, "--prior", file, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["classes"][2] == {"class": "cow", "probability": 0}
    own = {"ant": 1, "bee": 3, "cow": 0}
    ((_, p), *_), = load_run(run).predict(picture, own).top()  # fmt: skip
    assert found["classes"][0]["probability"] == pytest.approx(p)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*shares.csv: .*; prior is training, uniform, or a CSV file with the"),
        ("bee,1\n", "needs '.*'|line 2: needs the columns class,share"),
        ("name,share\nbee,1\n", "line 2: needs the columns class,share, such as cat,0.25"),
        ("class,share\nbee,1e308\nant,1e308\ncow,1e308\n", "must be numbers >= 0, and not all"),
        ("class,share\nbee,much\n", "line 2: needs the columns class,share, such as cat,0.25"),
        ("class,share\nbee\n", "line 2: needs the columns class,share, such as cat,0.25"),
        ("class,share\nbee,1\nbee,2\n", "line 3: class 'bee' is named twice"),
        ("class,share\nbee,1\nant,1\n", "the prior has a share for each class; it needs 'cow'"),
        ("class,share\nbee,1\nant,1\ncow,1\nyak,1\n", "it does not know 'yak'"),
    ],
)
def test_a_file_of_shares_that_is_wrong_is_one_line(tmp_path, refused, run, root, content, message):
    file = tmp_path / "shares.csv"
    if content is not None:
        file.write_text(content)
    refused(message, "predict", run, root / "test" / "ant", "--prior", file)


@pytest.fixture
def refused(capsys):
    """Checks that a command fails with one line, before it says anything else."""

    def check(message, *words):
        assert main(*words) == 1
        out, err = capsys.readouterr()
        assert out == ""
        lines = [line for line in err.splitlines() if line.startswith("gcl: ")]
        assert len(lines) == 1
        assert re.search(message, lines[0]), lines[0]

    return check


def test_what_cannot_be_predicted_or_exported_is_one_line(
    tmp_path, refused, monkeypatch, run, bare, root
):
    picture, empty = root / "test" / "ant" / "0.png", tmp_path / "empty"
    empty.mkdir()
    features = trained(
        tmp_path / "f", "digits", changes={"network": "features"}, dataset=toy_features()
    ).path
    message = "no is no run: name the folder that `train` names at its end"
    refused(message, "predict", tmp_path / "no", picture)
    refused(message, "export", tmp_path / "no", "--format", "onnx")
    refused("not on pictures: pictures need a run on a folder", "predict", features, picture)
    refused(
        r"takes no prior: .* \(split SOURCE OUT", "predict", bare, picture, "--prior", "uniform"
    )
    refused("empty holds no image", "predict", run, empty)
    # What is wrong with the file to write is said before the work.
    monkeypatch.setattr(saved.SavedModel, "pixels", None)
    monkeypatch.setattr(export, "check_images", None)
    os.mkfifo(tmp_path / "pipe")
    for place in (empty, tmp_path / "pipe"):
        message = f"{place} is there, and is no file that could be replaced; name another"
        refused(message, "predict", run, picture, "--csv", place)
        refused(message, "report", run, "--out", place)
        refused(message, "export", run, "--format", "onnx", "--out", place)
    monkeypatch.undo()
    refused("invalid choice: 'h5'", "export", run, "--format", "h5")
    wanted = empty / "deep" / "m.onnx"
    refused("no such folder: .*deep", "export", run, "--format", "onnx", "--out", wanted)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    refused(
        r"export needs onnxscript: pip install 'gcl-core\[export\]'",
        *("export", run, "--format", "onnx"),
    )

    def other(model, images):
        return b"", lambda some: model.outputs(some) + 1

    monkeypatch.setitem(export.KINDS, "onnx", ("model.onnx", other))
    refused("outputs on .* differ by 1.0e", "export", run, "--format", "onnx")

    def fail(model, images):
        raise RuntimeError("no such operator\nand so on")

    monkeypatch.setitem(export.KINDS, "onnx", ("model.onnx", fail))
    refused("this network cannot be written as onnx: no such op", "export", run, "--format", "onnx")
    assert not (run / "model.onnx").exists()


def probabilities(file, images):
    """What an exported file gives, in a process that has not loaded gcl_core."""
    code = f"""
import sys, numpy
images = numpy.load({str(images)!r})
if {file.suffix == ".onnx"}:
    import onnxruntime
    session = onnxruntime.InferenceSession({str(file)!r})
    found, about = session.run(None, {{"images": images}}), session.get_modelmeta()
    names = about.custom_metadata_map["class_names"]
else:
    import torch
    extra = {{"class_names": ""}}
    model = torch.jit.load({str(file)!r}, _extra_files=extra)
    found, names = [each.numpy() for each in model(torch.from_numpy(images))], extra["class_names"]
assert "gcl_core" not in sys.modules
numpy.save({str(images)!r}, found[1])
print(names if isinstance(names, str) else names.decode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_an_exported_run_predicts_without_this_package(tmp_path, capfd, run, root, kind):

    out = tmp_path / f"model.{'onnx' if kind == 'onnx' else 'pt'}"
    assert main("export", run, "--format", kind, "--out", out) == 0
    said, warned = capfd.readouterr()
    assert f"largest difference from the run's own outputs on 12 test images of folder:{root}" in (
        said
    )
    assert warned == ""
    model = load_run(run)
    images = torch.stack([model.pixels(file) for file in sorted(root.glob("test/*/*"))])[:5]
    np.save(tmp_path / "images.npy", images.numpy())
    assert probabilities(out, tmp_path / "images.npy") == ["ant", "bee", "cow"]
    found = torch.from_numpy(np.load(tmp_path / "images.npy"))
    torch.testing.assert_close(found.double(), model.predict(images).probabilities, rtol=1e-4,
                               atol=1e-6)  # fmt: skip


def test_distances_have_no_operator_in_onnx_and_are_written_out(tmp_path):
    settings = resolve(
        "digits", "oltr", "digits", network="digits_cnn", epochs=1, stage2_epochs=1
    )  # fmt: skip
    finished = two_stages.run(settings, tmp_path, accelerator="cpu", dataset=toy_dataset())
    assert "made images" in export.export_run(load_run(finished.path), "onnx")  # checked, so right


def test_bare_weights_and_images_that_are_gone(tmp_path, capsys, bare):
    moved = shutil.copytree(bare, tmp_path / "moved")
    assert main("export", moved, "--format", "state_dict") == 0
    assert "on 64 made images, as those of digits are not here: 0.0e+00" in capsys.readouterr().out
    weights = torch.load(moved / "state_dict.pt", weights_only=True)
    for name, weight in load_run(bare).network.state_dict().items():
        assert torch.equal(weights[name], weight)
