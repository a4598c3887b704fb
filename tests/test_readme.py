"""The pages' code runs, their tables are those of the records, and what they name exists."""

import doctest
import pkgutil
import re
from pathlib import Path
from statistics import mean

import pytest
import torch
from torch.utils.data import TensorDataset

import gcl_core
from gcl_core.analysis.intervals import is_clear
from gcl_core.errors import GCLError
from gcl_core.grid.cells import cells_of
from gcl_core.grid.steps import jobs_of
from gcl_core.methods.registry import METHODS
from gcl_core.results.agreement import by_protocol, gaps, load_measured, run_spread
from gcl_core.results.chosen import NAMES, SAME_MEAN, chosen, gain
from gcl_core.results.page import page_blocks
from gcl_core.results.printed import ABLATION
from gcl_core.results.records import load_records
from gcl_core.results.tables import update_page
from gcl_core.training.runs import RESULTS_VERSION, identity_hash

ROOT = Path(__file__).parent.parent
MEAN = NAMES[SAME_MEAN]
README = (ROOT / "README.md").read_text()
STUDY = (ROOT / "results" / "study.md").read_text()
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")]


def yours():
    """Images of ten classes that a linear network can learn, as a reader has them."""
    torch.manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(10), torch.arange(50, 0, -5))
    images = torch.randn(10, 64)[labels] + 0.1 * torch.randn(len(labels), 64)
    dataset = TensorDataset(images, labels)
    return {"backbone": torch.nn.Linear(64, 64), "dataset": dataset, "labels": labels}


def right(given):
    """Share of the images that the classifier of a page's code has right."""
    images, labels = given["dataset"].tensors
    return (given["classifier"](given["backbone"](images)).argmax(1) == labels).float().mean()


def test_the_ten_lines_run_and_learn():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    lines = [line for line in code[1].splitlines() if line]
    assert len(lines) == 10
    given = yours()
    exec(code[1], given)
    assert right(given) > 0.5  # chance is 0.1


def test_the_two_stages_run_and_learn_and_the_second_leaves_the_features(capsys):
    first, second, mixed, judged = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "loop.md").read_text(), re.DOTALL
    )
    given = yours()
    exec(first, given)
    features = given["backbone"].weight.clone()
    anchors = given["classifier"].weight.clone()
    exec(second, given)
    assert right(given) > 0.9
    assert torch.equal(given["backbone"].weight, features)
    assert not torch.equal(given["classifier"].weight, anchors)
    exec(mixed, given)
    assert given["loss"].requires_grad
    given["backbone"].train()  # as a reader has it who leaves stage 2 out
    exec(judged, given | {"test_set": given["dataset"], "test_labels": given["labels"]})
    assert not given["backbone"].training
    shares = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert list(shares) == ["many", "medium", "few"]
    assert all(0.8 < float(share) <= 1 for share in shares.values())


def test_the_example_of_the_reference_runs_and_it_lists_what_a_user_imports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "api.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert found.failed == 0
    assert found.attempted > 10
    listed = re.findall(r"(?:   |`)(gcl_core\.[\w.]+)", page.read_text())
    public = {name: getattr(gcl_core, name) for name in gcl_core.__all__}
    assert {id(pkgutil.resolve_name(name)) for name in listed} == set(map(id, public.values()))


def test_the_readme_is_short_and_has_one_table():
    assert len(README.splitlines()) <= 150
    assert len(re.findall(r"^\|---", README, re.MULTILINE)) == 1


@pytest.fixture(scope="module")
def blocks():
    return page_blocks(ROOT / "results")


def test_the_tables_are_those_of_the_records(blocks):
    in_step = {page: update_page(ROOT / page, of, check=True) for page, of in blocks.items()}
    assert all(in_step.values()), f"run make tables: {in_step}"


@pytest.mark.parametrize("page", ["README.md", "results/README.md", "results/study.md"])
def test_a_table_that_drifts_is_seen_and_mended_and_a_lost_place_is_named(page, blocks, tmp_path):
    right, file = (ROOT / page).read_text(), tmp_path / "page.md"
    name, block = next(iter(blocks[page].items()))
    number = re.search(r"\d\d\.\d", block)[0]
    file.write_text(right.replace(block, block.replace(number, "99.9")))
    assert not update_page(file, blocks[page], check=True)
    assert not update_page(file, blocks[page])
    assert file.read_text() == right
    file.write_text(right.replace(f"<!-- {name} -->", ""))
    with pytest.raises(GCLError, match=f"<!-- {name} --> is missing"):
        update_page(file, blocks[page])


def test_the_records_are_runs_of_the_committed_grid_with_this_code(tmp_path):
    """A run's name is a hash of all that decides its result, `RESULTS_VERSION` among it."""
    jobs = jobs_of(cells_of(ROOT / "grids" / "digits.yaml"), tmp_path)
    records = load_records(ROOT / "results" / "digits.json")
    assert [r["run"] for r in records] == [job.folders[-1].path.name for job in jobs]
    for record in load_measured(ROOT / "results"):
        assert record["identity"]["results_version"] == RESULTS_VERSION
        assert identity_hash(record["identity"]) == record["run"]


def test_what_was_found_on_the_papers_images_stands_in_the_tables(blocks):
    own = blocks["results/README.md"]
    text = (ROOT / "results" / "README.md").read_text().partition("<!-- end published -->")[2]
    numbers = re.findall(r"\d\d\.\d\d", text.partition("<picture>")[0])
    assert numbers
    assert all(number in own["published"] + own["table4"] + own["table5"] for number in numbers)


def test_the_text_says_what_the_records_say():
    text = " ".join(STUDY.split())
    whole, cao, long, short = by_protocol(1, ABLATION, load_measured(ROOT / "results")).values()
    (ours,) = (r["top1"] for r in whole if r["method"] == "gcl_crt" and not r["changes"])
    assert f"GCL with cRT comes to {ours:.2f}, the paper has 82.68" in text
    (batch,) = cao
    best = batch["best_on_test"]["top1"]
    assert f"cross-entropy comes to {batch['top1']:.2f}, best on test {best:.2f}" in text
    found = [gaps(1, ABLATION, runs)["GCL", "CE loss"] for runs in (long, short)]
    assert f"after 200 epochs by {found[0].ours:.1f} points" in text
    assert f"after 60 by {found[1].ours:.1f} ± {found[1].half:.1f}" in text
    late = gaps(1, ABLATION, long)
    for other, name in (("CE loss + mixup + cRT", "mixup with cRT"), ("MisLAS", "MiSLAS")):
        gap = late["GCL", other]
        assert f"over {name} {gap.ours:.1f} ({gap.paper:.1f})" in text
    assert f"{-late['CE loss + mixup', 'CE loss'].ours:.1f} points *below* cross-entropy" in text
    assert f"a single run moves by {run_spread(short):.1f} points" in text


@pytest.mark.parametrize("ratio", [50.0, 100.0])
def test_gcl_with_crt_is_above_ce_by_more_than_luck(ratio):
    """Seed by seed: the two share split and subset, whose luck is most of the plain spread."""
    records = load_records(ROOT / "results" / "digits.json")
    ce, gcl = (
        [r for r in records if (r["method"], r["imbalance_ratio"]) == (method, ratio)]
        for method in ("ce", "gcl_crt")
    )
    assert [r["seed"] for r in ce] == [r["seed"] for r in gcl] == list(range(5))
    gains = {
        key: [ours[key] - plain[key] for ours, plain in zip(gcl, ce, strict=True)]
        for key in ("top1", "many", "medium", "few")
    }
    for key in ("top1", "few"):
        assert min(gains[key]) > 0
        assert is_clear(gains[key])
    assert mean(gains["few"]) > 10 > max(mean(gains[key]) for key in ("many", "medium"))


def test_the_map_of_the_field_names_every_method_and_no_other():
    rows = (ROOT / "docs" / "field.md").read_text().split("## How a method is made")[0]
    named = set(re.findall(r"`([a-z][a-z_]+)`", rows.replace("`--method`", "")))
    assert named == set(METHODS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)[)#]", text)
    links += re.findall(r'(?:src|srcset)="(?!http)([^"]+)"', text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_what_the_opening_says_of_photographs_is_in_the_records():
    records = load_records(ROOT / "results" / "clothes.json")
    found, opening = chosen(records), " ".join(README.split("## Two commands")[0].split())
    gains = gain(records, "gcl", "ce")
    few, top1 = (
        re.search(rf"{name} ([+]\d[\d.]* ± [\d.]+)", gains)[1] for name in ("few", "top-1")
    )
    assert f"recognises {few.lstrip('+')} points more" in opening
    assert f"the same top-1 ({top1})" in opening
    low, high = map(float, top1.lstrip("+").split(" ± "))
    assert abs(low) < high  # "the same": the interval has zero in it
    mean, half = map(
        float, re.search(r"few (\S+ ± \S+),", gain(records, "gcl", MEAN))[1].split(" ± ")
    )
    assert abs(mean) < half  # "fixed margins of its mean do the same"
    blouse = [
        sum(run["per_class"][1] for run in found[name].values()) / len(found[name])
        for name in ("ce", "gcl")
    ]
    assert records[0]["class_names"][1] == "Blouse"
    assert f"({blouse[0]:.0f} and {blouse[1]:.0f} %)" in opening
    assert len(records) == int(re.search(r"all (\d+) runs are in `results/clothes.json`", STUDY)[1])


def test_what_is_said_of_the_table_is_in_the_records():
    said = " ".join(README.split("## What was found")[1].split())
    _, *rows = (line.split(" | ") for line in re.findall(r"^\| (.*) \|$", README, re.MULTILINE))
    cells = {
        name: [None if cell == "-" else float(cell.split(" ")[0]) for cell in row]
        for name, *row in rows
    }
    assert "far more of the rare classes than cross-entropy (CE) on all" in said
    assert all(few_gcl > few_ce + 10 for _, few_ce, _, _, _, few_gcl, _ in cells.values())
    once = "in one run on re-encoded CIFAR-10"
    assert f"on digits, and {once}, it still finds more of the rare" in said
    (again,) = (line for line in rows if line[0] == "the same, JPEG re-encoded")
    assert again[-1] == "1"
    assert [name for name, row in cells.items() if row[3] is None] == ["CIFAR-10-LT, ratio 100"]
    for name, (_, _, _, few_crt, _, few_gcl, _) in cells.items():
        assert few_crt is None or name.startswith("photographs") or few_gcl > few_crt + 10
    gains = gain(load_records(ROOT / "results" / "clothes.json"), "gcl_crt", "ce_crt")
    assert "on photographs GCL cannot be told from it" in said
    for name in ("top-1", "few"):
        low, high = map(float, re.search(rf"{name} (\S+) ± ([\d.]+)", gains).groups())
        assert abs(low) < high
