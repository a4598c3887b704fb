"""The README's code runs, its tables are those of the records, and what it names exists."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from gcl_core.errors import GCLError
from gcl_core.grid.cells import cells_of
from gcl_core.grid.steps import jobs_of
from gcl_core.methods.registry import METHODS
from gcl_core.results.agreement import by_protocol, gaps, load_measured, run_spread
from gcl_core.results.chosen import NAMES, SAME_MEAN, chosen, gain
from gcl_core.results.printed import ABLATION
from gcl_core.results.records import load_records
from gcl_core.results.tables import readme_blocks, replace_block, update_readme
from gcl_core.training.runs import RESULTS_VERSION, identity_hash

ROOT = Path(__file__).parent.parent
MEAN = NAMES[SAME_MEAN]
README = (ROOT / "README.md").read_text()


def test_the_ten_lines_run_and_learn():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    lines = [line for line in code[1].splitlines() if line]
    assert len(lines) == 10
    torch.manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(10), torch.arange(50, 0, -5))
    images = torch.randn(10, 64)[labels] + 0.1 * torch.randn(len(labels), 64)
    yours = {
        "backbone": torch.nn.Linear(64, 64),
        "dataset": TensorDataset(images, labels),
        "labels": labels,
    }
    exec(code[1], yours)
    right = yours["classifier"](yours["backbone"](images)).argmax(1) == labels
    assert right.float().mean() > 0.5  # chance is 0.1


def test_the_tables_are_those_of_the_records():
    assert update_readme(ROOT, check=True), "run make tables"


def test_a_table_that_drifts_is_seen(tmp_path):
    (tmp_path / "results").mkdir()
    for file in (ROOT / "results").glob("*.json"):
        (tmp_path / "results" / file.name).write_bytes(file.read_bytes())
    readme = tmp_path / "README.md"
    block = readme_blocks(ROOT / "results")["digits"]
    number = re.search(r"\d\d\.\d", block)[0]
    readme.write_text(README.replace(number, "99.9"))
    assert not update_readme(tmp_path, check=True)
    assert not update_readme(tmp_path)
    assert readme.read_text() == README


def test_the_records_are_runs_of_the_committed_grid_with_this_code(tmp_path):
    """A run's name is a hash of all that decides its result, `RESULTS_VERSION` among it."""
    jobs = jobs_of(cells_of(ROOT / "grids" / "digits.yaml"), tmp_path)
    records = load_records(ROOT / "results" / "digits.json")
    assert [r["run"] for r in records] == [job.folders[-1].path.name for job in jobs]
    for record in load_measured(ROOT / "results"):
        assert record["identity"]["results_version"] == RESULTS_VERSION
        assert identity_hash(record["identity"]) == record["run"]


def test_the_text_says_what_the_records_say():
    text = " ".join(README.split())
    whole, long, short = by_protocol(1, ABLATION, load_measured(ROOT / "results")).values()
    (ours,) = (r["top1"] for r in whole if r["method"] == "gcl_crt" and not r["changes"])
    assert f"GCL with cRT comes to {ours:.2f}, the paper has 82.68" in text
    found = [gaps(1, ABLATION, runs)["GCL", "CE loss"] for runs in (long, short)]
    assert f"after 200 epochs by {found[0].ours:.1f} points" in text
    assert f"after 60 by {found[1].ours:.1f} ± {found[1].error:.1f}" in text
    late = gaps(1, ABLATION, long)
    for other, name in (("CE loss + mixup + cRT", "mixup with cRT"), ("MisLAS", "MiSLAS")):
        gap = late["GCL", other]
        assert f"over {name} {gap.ours:.1f} ({gap.paper:.1f})" in text
    assert f"{-late['CE loss + mixup', 'CE loss'].ours:.1f} points *below* cross-entropy" in text
    assert f"a single run moves by {run_spread(short):.1f} points" in text


def test_a_missing_place_is_named():
    with pytest.raises(GCLError, match="<!-- nothing --> is missing"):
        replace_block(README, "nothing", "")


@pytest.mark.parametrize("ratio", [50.0, 100.0])
def test_gcl_with_crt_is_above_ce_by_more_than_the_spread(ratio):
    """Seed by seed: the two share split and subset, whose luck is most of the plain spread."""
    records = load_records(ROOT / "results" / "digits.json")
    ce, gcl = (
        [r for r in records if (r["method"], r["imbalance_ratio"]) == (method, ratio)]
        for method in ("ce", "gcl_crt")
    )
    assert [r["seed"] for r in ce] == [r["seed"] for r in gcl] == list(range(5))
    gains = {
        key: torch.tensor([ours[key] - plain[key] for ours, plain in zip(gcl, ce, strict=True)])
        for key in ("top1", "many", "medium", "few")
    }
    for key in ("top1", "few"):
        assert gains[key].min() > 0
        assert gains[key].mean() > gains[key].std()
    assert gains["few"].mean() > 10 > max(gains[key].mean() for key in ("many", "medium"))


def test_every_method_is_named():
    assert [method for method in METHODS if f"`{method}`" not in README] == []


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_what_the_opening_says_of_photographs_is_in_the_records():
    records = load_records(ROOT / "results" / "clothes.json")
    found, opening = chosen(records), README.split("<!-- clothes -->")[0]
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
    assert len(records) == int(
        re.search(r"all (\d+) runs are in `results/clothes.json`", README)[1]
    )
