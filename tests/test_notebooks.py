import math
import pkgutil
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jupytext
import nbformat
import numpy as np
import papermill
import PIL.Image
import pytest
import torch

import gcl_core
from gcl_core.analysis import gaussian
from gcl_core.analysis.intervals import t_factor
from gcl_core.analysis.saturation import binary_gradient, expected_binary_gradient
from gcl_core.course import notebook as tools
from gcl_core.errors import GCLError
from gcl_core.methods.registry import resolve
from gcl_core.report.findings import Share
from gcl_core.training.two_stages import run
from test_paper import record_of

ROOT = Path(gcl_core.__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SMALL = {"preset": "smoke", "seeds": 2, "workers": 1}
LESS = {"more_seeds": 2, "plane_seeds": 2, "points": 100}  # of notebooks that have them
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


def texts(value):
    """Every text inside a notebook's outputs."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "image/png":
                yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def test_there_are_nine_notebooks():
    assert len(NOTEBOOKS) == 9


# The committed files.


@each_notebook
def test_pair_is_in_step(path):
    pair = jupytext.read(path.with_suffix(".py"))
    mine = [
        (c.cell_type, c.source, c.metadata.get("tags", [])) for c in nbformat.read(path, 4).cells
    ]
    assert mine == [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in pair.cells]


@each_notebook
def test_pair_holds_no_version_and_the_kernel_python3(path):
    metadata = nbformat.read(path, 4).metadata
    assert metadata["kernelspec"]["name"] == "python3"
    assert "jupytext_version" not in metadata["jupytext"].get("text_representation", {})
    header = path.with_suffix(".py").read_text().split("# %%")[0]
    assert "jupytext_version:" not in header
    assert "name: python3" in header


@each_notebook
def test_the_first_code_cell_is_the_only_parameters_cell(path):
    cells = code_cells(nbformat.read(path, 4))
    assert [is_parameters(cell) for cell in cells] == [True] + [False] * (len(cells) - 1)
    assert re.search(r"checked_parameters\(\s*globals\(\)", cells[1].source)


# Numbers with a unit in prose that ask, define or quote, and so are no results.
GIVEN = "|".join(
    (
        "95 % t ",
        "[Tt]he 30 % (of|with) the",
        "60 degrees (off|from)",
        "less than 10 %, for",
        "each is worth 20 points",
        "tell 40 % from 60 %",
        "a share of 50 %",
        "; 20 points are two",
    )
)
UNITS = r"\d[\d,.]*\s?(%|points?\b|degrees|seconds|minutes|seeds\b)|±\s?\d|three seeds"


def computed():
    """What the prose says and no parameter changes, by notebook: computed."""
    counts = gcl_core.long_tailed_counts(5000, 10, 100)
    lead, without = torch.linspace(0, 20, 2001), binary_gradient(torch.tensor(5.0))
    same = float(lead[(expected_binary_gradient(lead, 15.0) - without).abs().argmin()])
    mean, widest = gaussian.cloud_moments()[0], 2 * math.sin(math.radians(60))
    low, high = (100 * end for end in Share(2, 5).interval)
    turned = math.degrees(math.asin(4 * mean / widest))
    tenth = [3 * math.sqrt(0.21 / dimension) for dimension in (64, 2048)]
    return {
        "00": [f"{counts[-1]}; {sum(counts):,}; {100 * counts[0] / sum(counts):.0f} %"],
        "01": [f"At {same:.1f}: {same - 5:.1f} further units"],
        "02": [
            "{:.2f} and {:.2f} for".format(*tenth),
            f"{mean:.5f}) = {math.log(100) / (30 * mean):.3f}$",
        ],
        "05": [f"= {widest:.2f} < 4", f"= {4 * mean:.2f}$", f"= {turned:.1f}°$ into"],
        "06": [
            f"{mean:.4f}$ at",
            f"With three seeds a t interval reaches {t_factor(2):.1f} standard errors",
            f"with two {t_factor(1):.1f}.",
        ],
        "08": [f"95 % interval (Wilson) is from {low:.0f} to {high:.0f} %", "for $n = 50$"],
    }


@each_notebook
def test_prose_has_no_number_that_a_parameter_changes(path):
    prose = " ".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    prose = " ".join(prose.split("## References")[0].split())
    for said in computed().get(path.stem[:2], []):
        assert said in prose, said
        prose = prose.replace(said, "")
    found = re.search(UNITS, re.sub(GIVEN, "", prose))
    assert not found, prose[max(0, found.start() - 60) : found.end() + 20]


@each_notebook
def test_a_cell_of_prose_has_one_heading_at_most_at_its_start(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            assert "\n## " not in cell.source


@each_notebook
def test_every_parameter_has_a_type_a_value_and_a_help(path):
    cell = next(c for c in nbformat.read(path, 4).cells if is_parameters(c))
    lines = cell.source.splitlines()
    for line in lines:
        assert re.fullmatch(r"\w+: (str|int|float|bool) = \S+  # \w.{8,}", line), line
    known = papermill.inspect_notebook(path)
    assert len(known) == len(lines)
    assert all(p["help"] and p["inferred_type_name"] != "None" for p in known.values())
    assert {"dataset", "imbalance_ratio", "figures"} <= known.keys()
    assert ({"preset", "runs"} <= known.keys()) == ("runs" in known)  # of those that train


@each_notebook
def test_code_cells_are_short(path):
    assert max(len(cell.source.splitlines()) for cell in code_cells(nbformat.read(path, 4))) <= 25


@each_notebook
def test_sections_are_there(path):
    prose = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    for part in ("# ", "## Parameters", "**What to notice.**", "## Exercises", "## Summary"):
        assert part in prose
    assert prose.split("## Parameters")[0].count("Afterwards you can") == 1
    assert prose.split("## Summary")[1].count("## References") == 1
    exercises = prose.split("## Exercises")[1].split("## Summary")[0]
    assert 3 <= len(re.findall(r"^\d\. ", exercises, re.MULTILINE)) <= 5
    assert "TODO" not in prose


@each_notebook
def test_committed_outputs_are_whole_small_and_without_paths(path):
    assert path.stat().st_size < 500_000
    notebook = nbformat.read(path, 4)
    assert_clean(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert output["metadata"]["image/png"]["alt"]
    for text in texts(notebook):
        assert not re.search(r"/(root|work|home|tmp)\b", text), text[:300]


def assert_clean(notebook):
    """Every code cell was executed, none failed, nothing was written to stderr."""
    for cell in code_cells(notebook):
        assert cell.execution_count, cell.source
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")


def test_every_committed_figure_is_drawn_somewhere():
    sources = (*ROOT.glob("notebooks/**/*.py"), *ROOT.glob("gcl_core/results/*.py"))
    text = "".join(source.read_text() for source in sources)
    stems = {file.stem.removesuffix("-dark") for file in (ROOT / "figures").iterdir()}
    assert [stem for stem in stems if f'"{stem}' not in text] == []


# Execution.


def execute(path, tmp_path, **parameters):
    target = tmp_path / path.name
    given = {"runs": str(tmp_path / "runs"), "figures": str(tmp_path / "figures"), **parameters}
    known = papermill.inspect_notebook(path)
    given |= {name: few for name, few in LESS.items() if name in known}
    if "runs" not in known:  # it trains nothing
        given = {"figures": given["figures"]}
    papermill.execute_notebook(path, target, given, kernel_name="python3", progress_bar=False)
    return nbformat.read(target, 4)


@each_notebook
def test_every_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert_clean(execute(path, tmp_path, **SMALL))
    saved = sorted((tmp_path / "figures").iterdir())
    assert {file.suffix for file in saved} == {".svg", ".png", ".json"}
    assert all(file.stem.startswith((path.stem[:2], "headline")) for file in saved)


def test_a_notebook_runs_on_a_folder_of_colour_images(tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    generator = np.random.default_rng(0)
    for split, counts in (("train", (12, 6, 3)), ("test", (5, 5, 5))):
        for name, count in zip(("a long name", "b", "c"), counts, strict=True):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
    data = {"dataset": f"folder:{tmp_path / 'images'}", "imbalance_ratio": 0.0}
    notebook = execute(NOTEBOOKS[1], tmp_path, **SMALL, **data)
    assert_clean(notebook)
    assert any("class counts [12, 6, 3]" in text for text in texts(notebook))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ratio": 50.0}, r"parameter 'ratio' is unknown; allowed: dataset: str, imbalance_ratio"),
        ({"imbalance_ratio": "many"}, r"parameter imbalance_ratio must be a number, got 'many'"),
    ],
    ids=["unknown", "wrong-type"],
)
def test_a_wrong_parameter_stops_before_anything_trains(wrong, message, tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        execute(NOTEBOOKS[1], tmp_path, **SMALL, **wrong)
    assert not (tmp_path / "runs").exists()


# The helpers.


def namespace(**more):
    """What `globals()` of a notebook holds after its parameters cell."""
    return {
        "__annotations__": {"seeds": int, "ratio": float, "name": str},
        "seeds": 5,
        "ratio": 100.0,
        "name": "",
        "_i1": "text",
        "In": ["text"],
        "Out": {},
        "exit": None,
        "torch": ModuleType("torch"),
        "namespace": namespace,
        "Path": Path,
        **more,
    }


def test_parameters_are_converted():
    given = tools.checked_parameters(namespace(ratio=50, seeds="3"))
    assert given == SimpleNamespace(seeds=3, ratio=50.0, name="")
    assert isinstance(given.ratio, float)


@pytest.mark.parametrize(
    "more", [{"seed": 1}, {"Seeds": 1}, {"x": None}, {"x": [1]}, {"x": "y"}, {"x": True}], ids=str
)
def test_an_unknown_parameter_is_refused(more):
    name = next(iter(more))
    expected = f"parameter '{name}' is unknown; allowed: seeds: int, ratio: float, name: str"
    with pytest.raises(GCLError, match=expected):
        tools.checked_parameters(namespace(**more))


@pytest.mark.parametrize(
    "more",
    [{"seeds": 2.5}, {"seeds": True}, {"ratio": "x"}, {"ratio": None}, {"name": 3}, {"seeds": [1]}],
    ids=str,
)
def test_a_wrong_type_is_refused(more):
    with pytest.raises(
        GCLError, match=rf"parameter {next(iter(more))} must be .*; allowed: seeds: int"
    ):
        tools.checked_parameters(namespace(**more))


def test_a_value_below_its_minimum_is_refused():
    with pytest.raises(GCLError, match="seeds must be >= 1, got 0"):
        tools.checked_parameters(namespace(seeds=0), minimum={"seeds": 1})


def test_relative_folders_lie_in_the_project(tmp_path, monkeypatch):
    inner = tmp_path / "project" / "notebooks"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert tools.project_path("runs") == inner / "runs"
    (inner.parent / "gcl_core").mkdir()  # an empty folder of that name is not the package
    assert tools.project_path("runs") == inner / "runs"
    (inner.parent / "gcl_core" / "__init__.py").touch()
    assert tools.project_path("runs") == inner.parent / "runs"
    assert tools.project_path(str(tmp_path / "x")) == tmp_path / "x"
    assert tools.project_path("") is None


def test_settings_follow_parameters_and_seed():
    given = SimpleNamespace(dataset="digits", imbalance_ratio=50.0, preset="smoke")
    settings = tools.seeded_settings(given, "gcl_crt", 3, scale=20)
    expected = resolve(
        "digits", "gcl_crt", "smoke", imbalance_ratio=50.0, seed=3, data_seed=3, scale=20
    )
    assert settings == expected
    given = SimpleNamespace(dataset="folder:x", imbalance_ratio=0.0, preset="")
    settings = tools.seeded_settings(given, "ce", 3)
    assert (settings.data.imbalance_ratio, settings.data.data_seed, settings.seed) == (None, 0, 3)
    assert settings.stage1.epochs == 200


def test_tables_say_their_protocol_and_pair_by_seed(tmp_path):
    given = SimpleNamespace(dataset="digits", imbalance_ratio=100.0, preset="smoke")
    plan = [tools.seeded_settings(given, "gcl_crt", seed) for seed in range(2)]
    runs = [run(settings, tmp_path, progress="none") for settings in plan]
    line = tools.protocol(runs)
    assert "304 training images in 10 classes (124 to 1 each)" in line
    assert "3 + 1 epochs, last epoch, 2 seeds" in line
    untrained = tools.seeded_settings(given, "ce_tau_norm", 0)
    assert "3 epochs, last" in tools.protocol([run(untrained, tmp_path, progress="none")])
    other = [
        SimpleNamespace(result={"top1": r.result["top1"] + 2, "few": r.result["few"] - 3})
        for r in runs
    ]
    trained = {"w/o RT": other, "CBEN + cRT": runs}
    text = tools.ablation_table("x", trained, reference="CBEN + cRT").data
    row = next(line for line in text.splitlines() if line.startswith("| w/o RT |"))
    assert row.count("|") == 6
    assert row.endswith("| **+2.0 ± 0.0** | **−3.0 ± 0.0** |")
    records = [record_of("gcl", "short", seed=s, top1=x) for s, x in enumerate((70.0, 72.0))]
    made = tools.ablation_table("x", trained, paper=5, records=records, reference="CBEN + cRT").data
    assert "| w/o RT | *80.52* | **71.00 ± 1.41** (2) |" in made
    assert "| CBEN + cRT | *82.68* | not measured |" in made
    records.append(record_of("gcl_crt", top1=75.0))
    both = tools.ablation_table("x", trained, paper=5, records=records, reference="CBEN + cRT").data
    assert "| recorded, 200 epochs | recorded, 60 epochs |" in both
    assert "| w/o RT | *80.52* | not measured | **71.00 ± 1.41** (2) |" in both
    assert "| CBEN + cRT | *82.68* | **75.00** (1) | not measured |" in both
    assert (
        "Recorded: CIFAR-10, JPEG re-encoded; 60 epochs in stage 1; preset official; bfloat16"
        in made
    )


def test_a_difference_is_bold_only_if_its_t_interval_leaves_zero_out():
    assert tools.judged([1.0, 2.0, None, 3.0]) == "+2.0 ± 2.5"  # two standard errors are 1.2
    assert tools.judged([-2.0, -2.1, -1.9]) == "**−2.0 ± 0.2**"
    assert tools.judged([2.0]) == "+2.0"
    assert tools.judged([None]) == "-"


def test_the_power_of_a_table_is_that_of_its_rows():
    one, other, third = (
        [SimpleNamespace(result={"top1": x}) for x in values]
        for values in ((1.0, 2.0, 3.0), (0.0, 2.0, 4.0), (1.0, 5.0, 3.0))
    )
    low, high = sorted(tools.detectable(values) for values in ([1, 0, -1], [0, -3, 0]))
    assert tools.power("top-1", [(one, other), (one, third), (one, one)], "top1") == (
        f"top-1 {low:.1f} to {high:.1f}"
    )
    assert tools.power("top-1", [(one[:1], other[:1])], "top1") == "top-1 unknown"


def test_the_rows_of_a_table_are_variants_to_run():
    variants = tools.table_variants(5)
    assert list(variants) == ["w/o RT", "CBEN + LWS", "CBEN + τ-nor.", "CBEN + cRT"]
    assert variants["w/o RT"] == ("gcl", {})
    for number in (1, 2, 3, 4, 5):
        for method, changes in tools.table_variants(number).values():
            resolve("digits", method, **changes)
    assert len(tools.table_variants(2)) == 13  # without the row whose method is not known


@pytest.mark.parametrize(
    ("number", "dataset", "columns"),
    [(1, "CIFAR-10-LT", 3), (1, "CIFAR-100-LT", 3), (1, "", 6), (2, "", 3)],
)
def test_quoted_and_measured_numbers_never_share_a_cell(number, dataset, columns):
    records = [record_of("ce", ratio=r, top1=x) for r, x in ((50.0, 71.0), (200.0, 61.0))]
    lines = tools.benchmark_table(number, dataset, records).data.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    rows = [row for row in rows if len(row) > 1]
    assert len(rows) == {1: 9, 2: 14}[number]
    for name, *cells in rows:
        assert len(cells) == 2 * columns, name
        for quoted, ours in zip(cells[::2], cells[1::2], strict=True):
            assert re.fullmatch(r"–|\*\d\d\.\d\d\*¹?", quoted)
            assert re.fullmatch(r"not measured|\*\*[\d.± ]+\*\* \(\d+\)", ours)
    measured = [cell for row in rows for cell in row if cell.startswith("**")]
    assert measured == (["**61.00** (1)", "**71.00** (1)"] if dataset != "CIFAR-100-LT" and
                        number == 1 else [])  # fmt: skip


def test_a_column_has_every_protocol_beside_the_paper():
    records = [record_of("ce", top1=x, epochs=e) for x, e in ((60.0, 60), (70.0, 200))]
    lines = tools.benchmark_table(1, "CIFAR-10-LT", records).data.splitlines()
    assert "| ratio 100: paper | ours, 200 epochs | ours, 60 epochs | ratio 50: paper |" in lines[0]
    ce = next(line for line in lines if line.startswith("| CE loss |"))
    assert "| *70.70* | **70.00** (1) | **60.00** (1) | *74.81* | not measured |" in ce


def test_a_column_that_table_1_lacks_is_refused():
    assert tools.table1_column("CIFAR-100-LT", 50) == ("CIFAR-100-LT", 50)
    with pytest.raises(GCLError, match=r"no column 'digits' 100; allowed: CIFAR-10-LT 200"):
        tools.table1_column("digits", 100.0)


NAME = r"\bgcl_core(?:\.\w+)+"
TEXTS = [*NOTEBOOKS, ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")]


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.name)
def test_what_texts_and_outputs_name_is_there(file):
    for name in set(re.findall(NAME, file.read_text())):
        assert pkgutil.resolve_name(name), name
