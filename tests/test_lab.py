"""The lab: short steps that a student can do, and no sentence that other data contradict."""

import ast
import re
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import papermill
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

import gcl_core
from gcl_core.course import check, lab
from gcl_core.course.execution import _cells
from gcl_core.course.launch import is_launch
from gcl_core.course.students import ANSWER, is_solution, student_copy
from gcl_core.data.load import load_dataset
from gcl_core.errors import GCLError
from gcl_core.figures.charts import values_by_class
from gcl_core.figures.looks import METHOD_LOOKS
from gcl_core.figures.series import Series
from gcl_core.methods.registry import resolve
from test_notebooks import assert_clean, texts

ROOT = Path(gcl_core.__file__).parents[1]
LAB = sorted((ROOT / "notebooks" / "lab").glob("[0-9]*.ipynb"))
each_notebook = pytest.mark.parametrize("path", LAB, ids=lambda path: path.stem)


def answers(notebook):
    return [cell for cell in notebook.cells if ANSWER in cell.metadata.get("tags", [])]


def functions(cell):
    return [node for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]


def runs_of_prose(notebook):
    """The Markdown between two cells of code or folded answers."""
    runs = [[]]
    for cell in notebook.cells:
        if cell.cell_type == "code" or is_solution(cell):
            runs.append([])
        elif not is_launch(cell):
            runs[-1].append(cell.source)
    return ["\n".join(run) for run in runs if run]


def plain(prose):
    """Prose without mathematics, code and headings."""
    without = re.sub(r"\$[^$]+\$|`[^`]+`", "x", prose)
    return "\n".join(line for line in without.splitlines() if not line.startswith("#"))


# The committed files.


@each_notebook
def test_pair_is_in_step_and_outputs_are_clean(path):
    pair, notebook = jupytext.read(path.with_suffix(".py")), nbformat.read(path, 4)
    assert _cells(notebook) == _cells(pair)
    assert_clean(notebook)
    assert path.stat().st_size < 700_000
    for text in texts(notebook):
        assert not re.search(r"/(root|work|home|tmp)\b", text), text[:300]
    images = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in
              o.get("data", {})]  # fmt: skip
    assert len(images) >= 4
    assert all(output["metadata"]["image/png"]["alt"] for output in images)


@each_notebook
def test_it_ends_with_five_questions_whose_answers_are_folded(path):
    questions = nbformat.read(path, 4).cells[-10:]
    assert [is_solution(cell) for cell in questions] == [False, True] * 5
    for question, answer in zip(questions[::2], questions[1::2], strict=True):
        assert re.fullmatch(r"\*\*.+\?.*\*\*", question.source)
        assert answer.source.startswith("<details><summary>Answer</summary>\n\n")


def test_sixteen_steps_in_order_each_with_a_prediction():
    steps = []
    for path in LAB:
        for prose in runs_of_prose(nbformat.read(path, 4)):
            for step in re.findall(r"^## Step (\d+)\. ", prose, re.MULTILINE):
                steps.append(int(step))
                assert "**Predict**" in prose or step == "16", prose
    assert steps == list(range(1, 17))


@each_notebook
def test_prose_is_short_and_has_no_number_and_no_name_of_data(path):
    names = [
        name.lower()
        for dataset in ("clothes", "digits")
        for name in (dataset, *load_dataset(resolve(dataset, "ce").data).class_names)
    ]
    for prose in runs_of_prose(nbformat.read(path, 4)):
        text = plain(prose)
        assert len(text.split()) <= 60, text
        assert not re.search(r"\d", re.sub("[Tt]op-1", "", text)), text
        said = re.findall(r"[a-z-]+", text.lower().replace("handwritten digits", ""))
        assert not {*said} & {*names}, {*said} & {*names}


@each_notebook
def test_an_answer_has_ten_lines_at_most_and_a_check_that_is_passed(path):
    notebook = nbformat.read(path, 4)
    assert len(answers(notebook)) >= 4
    for cell in answers(notebook):
        written = sum(f.end_lineno - f.body[0].end_lineno for f in functions(cell))
        assert 1 <= written <= 10
        assert all(f"check.{f.name}({f.name})" in cell.source for f in functions(cell))
        (output,) = cell.outputs
        said = output["data"]["text/plain"]
        assert said.count("✓") == len(functions(cell))
        assert "✗" not in said


def test_what_a_student_writes_is_shown_equal_to_the_packages_own():
    for path, number in zip(LAB, (1, 3, 2), strict=True):
        said = "".join(texts([cell.get("outputs", []) for cell in nbformat.read(path, 4).cells]))
        assert len(re.findall("(?:has the same|same weights): True", said)) == number
        assert ": False" not in said


def test_every_check_is_used():
    used = [f.name for path in LAB for cell in answers(nbformat.read(path, 4)) for f in
            functions(cell)]  # fmt: skip
    assert sorted(used) == sorted(one.name for one in check.CHECKS)


# Students' copies.


@each_notebook
def test_a_students_copy_has_no_answer_and_its_checks_say_so(path):
    notebook = nbformat.read(path, 4)
    copy = student_copy(notebook)
    nbformat.validate(copy)
    text = "\n".join(cell.source for cell in copy.cells)
    for cell in answers(notebook):
        for function in functions(cell):
            lines = cell.source.splitlines()[function.body[0].end_lineno : function.end_lineno]
            assert [line for line in lines if len(line.strip()) > 22 and line in text] == []
    assert "<details>" not in text
    assert not any(cell.get("outputs") for cell in copy.cells)
    for cell in answers(copy):
        names = {"check": check, "torch": torch, "F": F, "stats": stats}
        exec(cell.source, names)
        for function in functions(cell):
            verdict = getattr(check, function.name)(names[function.name])
            assert re.search(r"returns nothing yet|do not move", str(verdict)), verdict


# Other data.


@each_notebook
def test_on_other_data_no_sentence_contradicts_its_numbers(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    given = {"dataset": "digits", "imbalance_ratio": 20.0}
    if "seeds" in papermill.inspect_notebook(path):
        given["seeds"] = 2
    papermill.execute_notebook(path, tmp_path / path.name, given, progress_bar=False)
    notebook = nbformat.read(tmp_path / path.name, 4)
    assert_clean(notebook)
    outputs = [o.get("data", {}) for c in notebook.cells for o in c.get("outputs", [])]
    sentences = " ".join(data.get("text/markdown", "") for data in outputs)
    changes = re.findall(r"(rises|falls) from ([\d.]+) to ([\d.]+)", sentences)
    assert sentences.count("rises") + sentences.count("falls") == len(changes)
    assert all((verb == "rises") == (float(to) > float(by)) for verb, by, to in changes)
    if path == LAB[0]:
        data = load_dataset(resolve("digits", "ce", imbalance_ratio=20.0).data)
        most, least = max(data.class_counts), min(data.class_counts)
        assert f"0 has {most} images, 9 has {least}: {most / least:.0f} : 1." in sentences
    committed = " ".join(texts([cell.get("outputs", []) for cell in nbformat.read(path, 4).cells]))
    assert "Blouse" in committed or path == LAB[1]
    assert "Blouse" not in " ".join(texts([cell.get("outputs", []) for cell in notebook.cells]))


# What the notebooks share.


def test_data_are_vectors_by_the_training_parts_mean_and_deviation():
    data = lab.lab_data("digits", 20.0)
    whole = load_dataset(resolve("digits", "ce", imbalance_ratio=20.0).data)
    raw = whole.train.images.pixels.flatten(1).numpy().astype(float)
    placed = (raw - raw.mean(0)) / raw.std(ddof=1)
    assert np.allclose(data.x, placed, atol=1e-4)
    raw_test = whole.test.images.pixels.flatten(1).numpy()
    assert np.allclose(data.x_test, (raw_test - raw.mean(0)) / raw.std(ddof=1), atol=1e-4)
    assert data.counts.tolist() == torch.bincount(data.y).tolist()
    assert data.from_head_to_tail[0] == 0
    assert data.few == [7, 8, 9]
    with pytest.raises(GCLError, match="imbalance_ratio must be >= 1"):
        lab.lab_data("digits", 0.5)


def test_training_is_the_seeds_alone_and_learns():
    data = lab.lab_data("digits")
    before = torch.get_rng_state()
    one, same, other = (lab.train(data, F.cross_entropy, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    logits = one(data.x_test)
    assert torch.equal(logits, same(data.x_test))
    assert not torch.equal(logits, other(data.x_test))
    found = lab.recalls(logits, data.y_test)
    right = (logits.argmax(1) == data.y_test).numpy()
    assert np.allclose(found, [100 * right[data.y_test == j].mean() for j in range(10)], atol=1e-3)
    assert found.mean() > 90
    cosines = lab.network(data, 0, cosine=True)(data.x_test)
    assert cosines.abs().max() <= 1 + 1e-6


def test_the_detectable_gain_is_found_four_times_in_five():
    differences = [1.0, 2.5, -0.5, 3.0, 0.7]
    gain, spread = lab.detectable(differences), np.std(differences, ddof=1)
    draws = np.random.default_rng(0).normal(gain, spread, (20_000, 5))
    assert (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(
        0.8, abs=0.01
    )


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (1.0, 2.0, "It rises from 1.0 to 2.0 %."),
        (2.0, 1.0, "It falls from 2.0 to 1.0 %."),
        (1.01, 1.04, "It stays at 1.0 %."),
    ],
)
def test_a_sentence_has_the_verb_of_its_digits(before, after, sentence):
    assert lab.moved("It", before, after) == sentence


def test_a_line_that_ends_without_a_value_keeps_its_label():
    data = load_dataset(resolve("digits", "ce").data)
    values = [*range(10, 100, 10), np.nan]
    figure = values_by_class(data, {"x": [Series(METHOD_LOOKS["ce"], values)]}, percent=True)
    (label,) = [text for text in figure.axes[0].texts if text.get_text() == "CE"]
    order = np.argsort([-n for n in data.class_counts], kind="stable")
    last = [values[j] for j in order if not np.isnan(values[j])][-1]
    assert label.get_position()[1] == pytest.approx((last + 3) / 106)
