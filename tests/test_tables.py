"""Tables against numbers worked out by hand."""

import html
import re

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gcl_core.errors import shown
from gcl_core.files import load_json
from gcl_core.results.found import found_lines, found_table
from gcl_core.results.markdown import as_text, markdown_table
from gcl_core.results.printed import OTHER
from gcl_core.results.records import save_records
from gcl_core.results.tables import (
    cifar_records,
    comparison,
    draw_records,
    mean_and_spread,
    paired_gain,
)


def record(method, seed, top1, few, ratio=100.0, dataset="digits"):
    return {
        "method": method,
        "dataset": dataset,
        "preset": "official",
        "imbalance_ratio": ratio,
        "seed": seed,
        "epochs": [200, 30] if method == "gcl_crt" else [200],
        "top1": top1,
        "many": 90.0,
        "medium": None,
        "few": few,
        "best_on_test": {"top1": top1 + 1},
    }


RECORDS = [
    record("ce", 0, 70.0, 30.0),
    record("ce", 1, 74.0, 34.0),
    record("gcl_crt", 0, 80.0, 60.0),
    record("gcl_crt", 1, 82.0, 60.0),
]


def test_mean_and_sample_standard_deviation():
    assert mean_and_spread([1.0, 3.0]) == "2.0 ± 1.4"
    assert mean_and_spread([1.0]) == "1.0"
    assert mean_and_spread([1.0, 3.0], 2) == "2.00 ± 1.41"
    assert mean_and_spread([1.0], 2) == "1.00"
    assert mean_and_spread([None, None]) == "-"
    assert mean_and_spread([None, 2.0, 4.0]) == "3.0 ± 1.4"


def test_comparison_rows():
    rows = comparison(RECORDS).splitlines()[2:]
    assert rows[0] == (
        "| ce | 100 | 72.0 ± 25.4 | 90.0 ± 0.0 | - | 32.0 ± 25.4 | 73.0 ± 25.4 | 200 | 2 |"
    )
    assert rows[1].startswith("| gcl_crt | 100 | 81.0 ± 12.7 |")
    assert rows[1].endswith("| 200 + 30 | 2 |")


def test_ratios_are_kept_apart():
    rows = comparison([*RECORDS, record("ce", 0, 50.0, 10.0, ratio=50.0)]).splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["100", "100", "50"]
    assert "| 50.0 |" in rows[2]


def test_data_without_a_ratio_are_named_so():
    pair = (("ce", 50.0), ("gcl_crt", 51.0))
    records = [record(method, 0, top1, 10.0, ratio=None) for method, top1 in pair]
    assert comparison(records).splitlines()[2].startswith("| ce | none | 50.0 |")
    assert "at ratio none, seed by seed: top-1 +1.0" in paired_gain(records, "gcl_crt", "ce")


def test_ten_thousand_test_images_give_two_digits():
    one = record("ce", 0, 50.0, 10.0, dataset="cifar10")
    assert "| 50.00 |" in comparison([one])
    assert "| 51.00 ± 12.71 |" in comparison([one, record("ce", 1, 52.0, 10.0, dataset="cifar10")])


def test_paired_gain_is_of_the_same_seed():
    text = paired_gain([*RECORDS, record("gcl_crt", 7, 0.0, 0.0)], "gcl_crt", "ce")
    assert "top-1 +9.0 ± 12.7" in text  # 10 and 8; seed 7 has no partner
    assert "medium -" in text  # no class is in that group
    assert "few +28.0 ± 25.4" in text


def test_markdown_aligns_numbers_right():
    assert markdown_table(["a", "b"], [["x", "1"]]).splitlines()[1] == "|---|---:|"


@given(st.text(min_size=1).filter(str.strip))
@example("a|b")
@example("<b>x</b>")
@example("two\nlines")
@example("$x^2$")
@example("\x1b[31mred")
@example(r"*a* `b` [c](d) \| &lt;")
def test_a_name_stays_what_it_is_in_a_table(name):
    table = markdown_table(["class", "n"], [[as_text(name), "1"]])
    page = MarkdownIt("commonmark").enable("table").render(table)
    assert len(re.findall("<t[rhd][ >]", page)) == 6  # two rows of two cells
    (cell,) = re.findall("<td>(.*)</td>", page)
    assert " ".join(html.unescape(cell).split()) == " ".join(shown(name).split())
    assert not re.search(r"(?<!\\)(\\\\)*\$", table)  # where Jupyter looks for mathematics


def test_lengths_of_training_are_kept_apart():
    short = record("ce", 2, 60.0, 10.0) | {"epochs": [60]}
    rows = comparison([*RECORDS, short]).splitlines()[2:]
    assert [row.split(" | ")[-2] for row in rows] == ["200", "200 + 30", "60"]


def test_presets_are_kept_apart_and_named():
    other = record("ce", 2, 60.0, 10.0) | {"preset": "paper"}
    rows = comparison([*RECORDS, other]).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| ce (official)",
        "| gcl_crt (official)",
        "| ce (paper)",
    ]


def test_data_sets_are_kept_apart_and_named():
    others = [r | {"dataset": f"cifar10{end}"} for r in RECORDS[:1] for end in ("", OTHER)]
    rows = comparison(others).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| ce on cifar10",
        "| ce on cifar10 (other images)",
    ]


def test_a_stage_that_trained_nothing_has_no_epochs_in_the_table():
    rows = comparison([record("ce_tau_norm", 0, 60.0, 10.0) | {"epochs": [200, 0]}]).splitlines()
    assert rows[-1].endswith("| 200 | 1 |")


def test_one_protocol_is_shown_without_variants_and_methods_in_their_order(tmp_path):
    plain = {"changes": {}, "preset": "short", "imbalance_ratio": 100.0}
    plain |= {"identity": {"precision": "bfloat16"}}
    records = [r | plain for r in reversed(RECORDS)]
    others = (
        {"changes": {"stage2_sampler": "class"}},
        {"imbalance_ratio": 200.0},
        {"preset": "official"},
        {"identity": {"precision": "float32"}},
    )
    save_records(
        tmp_path / "cifar10-jpeg-short.json", [*(records[0] | each for each in others), *records]
    )
    (kept,) = cifar_records(tmp_path).values()
    assert [r["method"] for r in kept] == ["ce", "ce", "gcl_crt", "gcl_crt"]
    assert all(plain.items() <= r.items() for r in kept)


def test_the_curves_are_those_of_the_longest_preset_that_has_them_all(tmp_path):
    def curves(preset, methods):
        identity = {"identity": {"precision": "bfloat16"}, "about": {}, "changes": {}}
        history = [[{"train_loss": 1.0, "top1": 50.0, "few": 9.0}]]
        return [
            record(method, 0, 50.0, 9.0)
            | identity
            | {"preset": preset, "epochs": [1], "run": f"{method}-{preset}", "history": history}
            for method in methods
        ]

    def drawn():
        return set(load_json(tmp_path / "figures" / "cifar10-jpeg.json")["runs"])

    methods = ("ce", "ce_mixup_crt", "bbn", "gcl_crt")
    official = tmp_path / "results" / "cifar10-jpeg-official.json"
    draw_records(tmp_path)
    assert not (tmp_path / "figures").exists()
    save_records(tmp_path / "results" / "cifar10-jpeg-short.json", curves("short", methods))
    save_records(official, curves("official", ("ce", "gcl_crt")))
    draw_records(tmp_path)
    assert drawn() == {"ce-short", "ce_mixup_crt-short", "gcl_crt-short"}
    save_records(official, curves("official", methods))
    draw_records(tmp_path)
    assert drawn() == {"ce-official", "ce_mixup_crt-official", "gcl_crt-official"}


def test_what_a_study_ends_with_is_paired_by_seed_and_says_where_luck_is_enough():
    other = [record("ce_mixup_crt", seed, 81.0, 50.0) for seed in (0, 1)]
    half = [each | {"imbalance_ratio": 50.0} for each in [*RECORDS, *other]]
    ce, few, many, top1, fair = found_lines([*half, *RECORDS, *other])
    assert ce == (
        "At ratio 100 cross-entropy recognises 90.0 ± 0.0 % of the test images of frequent "
        "classes, 32.0 ± 25.4 % of rare ones."  # 12.7 times 4 / sqrt(2) / sqrt(2)
    )
    assert few.endswith("on rare classes: +28.0 ± 25.4.")  # 30 and 26
    assert many.startswith("On frequent classes: +0.0 ± 0.0 (may be luck")
    assert top1.endswith("+9.0 ± 12.7 (may be luck: the interval has zero in it).")  # 10 and 8
    assert fair.count("+0.0 ± 12.7") == 2
    assert re.search(r"at ratio 100; .* at ratio 50\.$", fair)


def test_the_table_of_what_was_found_has_a_dash_for_what_is_not_measured(tmp_path):
    save_records(tmp_path / "digits.json", RECORDS)
    heading, _, row = found_table(tmp_path).splitlines()
    assert heading.startswith("| images | CE, top-1 | CE, few-shot | CE + cRT, top-1 |")
    assert row == (
        "| handwritten digits, ratio 100 | 72.0 ± 25.4 | 32.0 ± 25.4 | - | - | 81.0 ± 12.7 "
        "| 60.0 ± 0.0 | 2 |"
    )
