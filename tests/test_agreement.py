"""Gaps, error bars and verdicts against numbers worked out by hand."""

import dataclasses
import itertools
import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from gcl_core.results import agreement
from gcl_core.results.agreement import Gap, Measured, Protocol
from gcl_core.results.page import (
    column_block,
    gaps_table,
    rows_table,
    signed,
    table1_dots,
    table_block,
)
from gcl_core.results.printed import ABLATION, BEYOND, OTHER, ROWS, PaperRow, paper_rows
from test_paper import record_of

TABLES = (1, 3, 4, 5)


def cells(table, name):
    """The cells of a row of a Markdown table by its heading."""
    heading, _, *lines = (
        [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        for line in table.splitlines()
    )
    (row,) = [line for line in lines if line[0] == name]
    return dict(zip(heading, row, strict=True))


# Gaps and their error bars.


def test_a_gap_is_taken_seed_by_seed():
    one, other = Measured({0: 80.0, 1: 84.0, 2: 0.0}), Measured({0: 70.0, 1: 72.0, 7: 0.0})
    found = agreement.gap(one, other, 12.0)
    assert found.ours == 11  # 10 and 12; seeds 2 and 7 have no partner
    assert found.error == pytest.approx(1)  # their deviation, the root of 2, over the root of 2
    assert found.source == "2 seeds, paired"
    assert found.half == pytest.approx(12.706, abs=1e-3)  # one degree of freedom


def test_without_two_shared_seeds_the_means_are_compared():
    one, other = Measured({0: 80.0, 1: 84.0, 5: 82.0}), Measured({2: 70.0, 3: 72.0})
    found = agreement.gap(one, other, None)
    assert found.ours == 11
    assert found.error == pytest.approx(math.sqrt(4 / 3 + 2 / 2))
    assert found.source == "3 and 2 seeds"
    theirs = scipy.stats.ttest_ind([80.0, 84.0, 82.0], [70.0, 72.0], equal_var=False)
    low, high = theirs.confidence_interval()
    assert (found.ours - found.half, found.ours + found.half) == pytest.approx((low, high))


def test_a_single_seed_borrows_its_error():
    one, other = Measured({0: 80.0, 1: 84.0}), Measured({0: 70.0})
    assert agreement.gap(one, other, 9.0) == Gap(9.0, 12.0, source="one seed")
    found = agreement.gap(one, other, 9.0, spread=2.0, freedom=5)
    assert found.error == pytest.approx(2 * math.sqrt(1 / 2 + 1))
    assert (found.source, found.freedom, found.spread) == ("one seed, borrowed", 5, 2)


def test_nothing_measured_is_no_gap():
    assert agreement.gap(Measured(), Measured({0: 70.0}), 9.0, 1.0) == Gap(9.0)


def test_the_borrowed_spread_is_pooled_over_settings_with_two_seeds():
    records = [
        *(record_of("ce", seed=s, top1=x) for s, x in enumerate((60.0, 62.0))),  # variance 2
        *(record_of("gcl", seed=s, top1=x) for s, x in enumerate((70.0, 73.0, 76.0))),  # 9
        record_of("ldam_drw", top1=10.0),
        record_of("ce", ratio=50.0, top1=90.0),
    ]
    assert agreement.run_spread(records) == pytest.approx(math.sqrt((2 + 2 * 9) / 3))
    assert agreement.run_freedom(records) == 3
    assert agreement.run_spread(records[4:]) is None


# Verdicts.


@pytest.mark.parametrize(
    ("paper", "ours", "error", "verdict"),
    [
        (8.0, None, None, "not measured"),
        (None, None, None, "not measured"),
        (None, 3.0, 1.0, "the paper has none"),
        (8.0, 6.0, None, "same sign; one run each cannot tell more"),
        (8.0, -1.0, None, "other sign; one run each cannot tell more"),
        (8.0, 0.0, None, "no gap; one run each cannot tell more"),
        (8.0, 6.1, 1.0, "agrees"),
        (-8.0, -6.1, 1.0, "agrees"),
        (8.0, 6.0, 1.0, "same order, smaller"),  # 1.96 standard errors
        (-8.0, -12.0, 1.0, "same order, larger"),
        (8.0, -6.0, 1.0, "opposite"),
        (0.2, 0.3, 0.5, "within the noise"),
        (-0.2, 0.3, 0.5, "within the noise"),
        (8.0, 1.0, 1.0, "within the noise, the paper's gap is not"),
        (1.64, 0.0, 0.0, "within the noise, the paper's gap is not"),
    ],
)
def test_the_verdict_follows_the_rule(paper, ours, error, verdict):
    assert Gap(paper, ours, error).verdict == verdict


def test_few_seeds_and_the_papers_own_luck_say_less():
    assert Gap(8.0, 3.0, 1.0).verdict == "same order, smaller"
    assert Gap(8.0, 3.0, 1.0, freedom=2).verdict == "within the noise, the paper's gap is not"
    assert Gap(8.0, 3.0, 1.0, spread=2.0).verdict == "agrees"
    assert Gap(1.0, -3.0, 1.0).verdict == "opposite"
    assert Gap(1.0, -3.0, 1.0, spread=2.0).verdict == "opposite, which luck can be"


points = st.floats(-20, 20)


@given(paper=points, ours=points, error=st.floats(0.01, 10), spread=st.floats(0, 5))
def test_turning_a_gap_around_leaves_its_verdict(paper, ours, error, spread):
    one, turned = (Gap(s * paper, s * ours, error, spread=spread) for s in (1, -1))
    assert one.verdict == turned.verdict


# Order.


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=8))
def test_order_is_that_of_counted_pairs(pairs):
    rows = [
        PaperRow(1, str(i), "gcl", {ABLATION: float(paper)}, {"noise_multiplier": (i + 1) / 10})
        for i, (paper, _) in enumerate(pairs)
    ]
    records = [
        record_of("gcl", noise_multiplier=(i + 1) / 10, top1=float(ours))
        for i, (_, ours) in enumerate(pairs)
    ]
    tau, count = agreement.order(rows, ABLATION, records)
    assert count == len(pairs)
    both = list(itertools.combinations(pairs, 2))
    score = sum((a > c) - (a < c) and ((a > c) - (a < c)) * ((b > d) - (b < d))
                for (a, b), (c, d) in both)  # fmt: skip
    untied = [sum(p[k] != q[k] for p, q in both) for k in (0, 1)]
    if all(untied):
        assert tau == pytest.approx(score / math.sqrt(untied[0] * untied[1]))
    else:
        assert math.isnan(tau)


def test_two_rows_have_no_order():
    records = [record_of("ce"), record_of("gcl_crt", top1=80.0)]
    tau, count = agreement.order(paper_rows(1), ABLATION, records)
    assert math.isnan(tau)
    assert count == 2


# Tables.


@pytest.mark.parametrize("table", TABLES)
def test_without_records_every_row_is_there_and_none_is_measured(table):
    text = rows_table(table, ABLATION, [])
    assert len(text.splitlines()) == 2 + len(paper_rows(table))
    for row in paper_rows(table):
        found = cells(text, row.name)
        assert found["paper"].rstrip("¹") == f"{row.values[ABLATION]:.2f}"
        assert found["paper"].endswith("¹") == row.quoted
        assert (found["ours"], found["verdict"]) == ("not measured", "not measured")


def test_a_record_fills_its_row_in_every_table():
    records = [record_of("gcl_crt", "short", seed=s, top1=x) for s, x in ((0, 73.0), (1, 75.0))]
    for table, name in ((1, "GCL"), (3, "log. diff."), (4, "CBEN + cRT"), (5, "CBEN + cRT")):
        text = rows_table(table, ABLATION, records)
        found = cells(text, name)
        assert found["ours"] == "74.00 ± 12.71"
        assert found["best on test (optimistic)"] == "75.00 ± 12.71"
        assert found["ours − paper"] == "−8.68"
        assert (found["epochs"], found["seeds"]) == ("60 + 30", "2")
        others = [row.name for row in paper_rows(table) if row.name != name]
        assert {cells(text, other)["ours"] for other in others} == {"not measured"}


def test_a_row_whose_stage_2_trains_nothing_shows_the_epochs_of_stage_1():
    made = record_of("gcl_crt", "short", stage2_rebalance="tau_norm")
    assert made["epochs"] == [60, 0]
    found = cells(rows_table(5, ABLATION, [made]), "CBEN + τ-nor.")
    assert (found["ours"], found["epochs"]) == ("70.00", "60")


def test_rows_that_the_paper_has_not():
    margin = {"objective": "logit_adjustment", "scale": 30.0, "tau": 0.865}
    made = [record_of("gcl", top1=70.0), record_of("gcl", top1=71.5, **margin)]
    text = rows_table(BEYOND, ABLATION, made)
    found = cells(text, "margin")
    assert (found["paper"], found["ours"], found["ours − paper"]) == ("-", "71.50", "-")
    assert cells(text, "margin + stage 2")["ours"] == "not measured"
    text = table_block(BEYOND, made)
    assert "| margin − cloud | - | +1.50 | - (one seed) | the paper has none |" in text
    assert "Kendall" not in text


def test_runs_of_other_epochs_or_values_are_kept_apart():
    made = [
        record_of("ce", top1=60.0, epochs=60),
        record_of("ce", top1=65.0, epochs=60, precision="float32"),
        record_of("ce", top1=70.0),
        record_of("ce", "paper", top1=80.0),
        record_of("focal", top1=50.0),
    ]
    found = agreement.by_protocol(1, ABLATION, made)
    jpeg = "folder:cifar10-jpeg"
    assert list(found) == [
        Protocol(jpeg, "official", 200, "bfloat16"),
        Protocol(jpeg, "paper", 200, "bfloat16"),
        Protocol(jpeg, "official", 60, "bfloat16"),
        Protocol(jpeg, "official", 60, "float32"),
    ]
    means = [agreement.measure(paper_rows(1)[0], ABLATION, runs).mean for runs in found.values()]
    assert means == [70.0, 80.0, 60.0, 65.0]
    assert agreement.by_protocol(5, ABLATION, made) == {}
    text = table_block(1, made)
    assert "JPEG re-encoded; 60 epochs in stage 1; preset official; bfloat16." in text
    assert text.count("| CE loss | 70.70 |") == 4


def test_other_images_never_stand_in_one_table_with_the_published_ones():
    published = record_of("ce", top1=70.0) | {"dataset": "cifar10"}
    others = [record_of("ce", top1=60.0), record_of("ce", top1=50.0)]
    others[1] |= {"dataset": f"cifar10{OTHER}"}
    made = [published, *others]
    found = {str(each): runs for each, runs in agreement.by_protocol(1, ABLATION, made).items()}
    means = {name: [r["top1"] for r in runs] for name, runs in found.items()}
    about = "; 200 epochs in stage 1; preset official; bfloat16"
    assert means == {
        f"CIFAR-10{about}": [70.0],
        f"CIFAR-10 (other images){about}": [50.0],
        f"CIFAR-10, JPEG re-encoded{about}": [60.0],
    }
    text = table_block(1, made)
    assert all(f"Ours: {name}." in text for name in means)


def test_short_names_tell_protocols_apart():
    jpeg = "folder:cifar10-jpeg"
    long, short = (Protocol(jpeg, "official", epochs, "bfloat16") for epochs in (200, 60))
    assert agreement.short_names([]) == []
    assert agreement.short_names([long]) == ["200 epochs"]
    assert agreement.short_names([long, short]) == ["200 epochs", "60 epochs"]
    others = [
        dataclasses.replace(short, preset="paper"),
        dataclasses.replace(short, precision="float32"),
        dataclasses.replace(short, dataset="cifar10"),
    ]
    assert agreement.short_names([short, others[1]]) == [
        "60 epochs, bfloat16",
        "60 epochs, float32",
    ]
    assert len(set(agreement.short_names([short, *others]))) == 4


def test_gaps_that_are_not_measured_are_left_out():
    made = [record_of("ce", top1=60.0), record_of("bbn", top1=65.0)]
    assert gaps_table(1, ABLATION, made).splitlines()[2:] == [
        "| BBN − CE loss | +9.12 | +5.00 | - (one seed) "
        "| same sign; one run each cannot tell more |"
    ]
    assert gaps_table(1, ABLATION, []) == ""


def test_the_gaps_of_a_column_stand_under_their_protocol():
    assert column_block(1, ABLATION, [], rows=False).startswith(
        "**CIFAR-10-LT, ratio 100.** Ours: not measured."
    )
    made = [record_of(m, top1=x, epochs=e) for m, x, e in (("ce", 60.0, 60), ("bbn", 65.0, 60),
            ("ce", 70.0, 200), ("bbn", 71.0, 200))]  # fmt: skip
    long, short = column_block(1, ABLATION, made, rows=False).split("60 epochs in stage 1")
    assert "200 epochs in stage 1" in long
    assert "| +1.00 |" in long
    assert "| +5.00 |" in short


def test_a_repeated_seed_counts_once():
    made = [record_of("ce", top1=60.0), record_of("ce", top1=61.0)]
    assert agreement.measure(paper_rows(1)[0], ABLATION, made).top1 == {0: 61.0}


def test_every_gap_has_two_rows_of_its_table():
    for table in (*TABLES, BEYOND):
        names = {row.name for row in ROWS if row.table == table}
        found = agreement.gaps(table, ABLATION, [])
        assert {name for pair in found for name in pair} == names
    assert agreement.gaps(1, ABLATION, [])["GCL", "MisLAS"].paper == pytest.approx(0.62)


def test_signs_are_those_of_what_is_shown():
    assert [signed(x) for x in (1.234, -1.234, -0.001, 0.0)] == ["+1.23", "−1.23", "+0.00", "+0.00"]


def test_dots_hold_the_papers_numbers_and_only_measured_ones_of_ours():
    records = [record_of("ce", seed=s, top1=x) for s, x in enumerate((60.0, 62.0))]
    records += [record_of("bbn", seed=s, top1=x) for s, x in enumerate((65.0, 69.0))]
    records.append(record_of("ce", epochs=60, top1=55.0))
    accuracy, gap = table1_dots(ABLATION, records).values()
    assert [dot.quoted for dot in accuracy] == [row.values[ABLATION] for row in paper_rows(1)]
    assert {dot.label: dot.measured for dot in accuracy if dot.measured} == {
        "CE loss": {
            "200 epochs": (61.0, pytest.approx(12.706, abs=1e-3)),
            "60 epochs": (55.0, None),
        },
        "BBN": {"200 epochs": (67.0, pytest.approx(2 * 12.706, abs=1e-3))},
    }
    assert {dot.label: dot.measured for dot in gap if dot.measured} == {
        "CE loss": {"200 epochs": (0.0, None), "60 epochs": (0.0, None)},
        "BBN": {"200 epochs": (6.0, pytest.approx(12.706, abs=1e-3))},
    }
    assert [dot.label for dot in gap] == [dot.label for dot in accuracy]
    assert [dot.quoted for dot in gap][:2] == [0.0, pytest.approx(72.96 - 70.70)]
