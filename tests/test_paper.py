"""The paper's tables against its own sums and differences; records against rows by settings."""

import copy
import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcl_core.analysis.gaussian import matched_tau
from gcl_core.cli import overrides
from gcl_core.data.imbalance import long_tailed_counts
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.methods.settings import to_dict
from gcl_core.results.agreement import load_measured
from gcl_core.results.page import options_table
from gcl_core.results.printed import (
    ABLATION,
    BEYOND,
    CIFAR,
    FULL_CLASSES,
    LARGE,
    OFFICIAL,
    ROWS,
    belongs,
    column_of,
    paper_rows,
    records_of,
)
from test_readme import ROOT

OURS = [row for row in ROWS if row.method is not None]


def number(table, name, column=ABLATION):
    (row,) = [row for row in paper_rows(table) if row.name == name]
    return row.values[column]


def record_of(method, preset="official", ratio=100.0, seed=0, top1=70.0, **changes):
    """A record of a run that was never made, with what `record` would keep."""
    given = {"imbalance_ratio": ratio, "seed": seed, "precision": "bfloat16", **changes}
    settings = resolve("folder:cifar10-jpeg", method, preset, **given)
    stages = [stage for stage in (settings.stage1, settings.stage2) if stage is not None]
    identity = {k: v for k, v in to_dict(settings).items() if k != "data" and v is not None}
    counts = long_tailed_counts(5000, 10, ratio)
    return json.loads(
        json.dumps(
            {
                "method": "a name that says nothing",
                "preset": preset,
                "dataset": settings.data.dataset,
                "imbalance_ratio": ratio,
                "seed": seed,
                "epochs": [
                    stage.epochs if stage.rebalance is None or stage.rebalance.trains else 0
                    for stage in stages
                ],
                "run": f"{method} {preset} {ratio} {seed} {sorted(changes.items())}",
                "top1": top1,
                "best_on_test": {"top1": top1 + 1},
                "identity": {"images": {"class_counts": counts}, **identity},
            }
        )
    )


# The numbers: sums over the printed columns, and differences that the paper's text names.


@pytest.mark.parametrize(
    ("table", "columns", "rows", "total"),
    [(1, CIFAR, 9, 3068.49), (2, LARGE, 14, 1355.34), (3, (ABLATION,), 4, 325.0),
     (4, (ABLATION,), 4, 327.99), (5, (ABLATION,), 4, 327.61)],
)  # fmt: skip
def test_every_row_is_there_and_the_sums_are_those_of_the_print(table, columns, rows, total):
    printed = paper_rows(table)
    assert len(printed) == rows
    assert len({row.label for row in printed}) == rows
    assert {column for row in printed for column in row.values} == set(columns)
    assert sum(sum(row.values.values()) for row in printed) == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(
    ("one", "other", "gain"),
    [
        ((1, "GCL", ("CIFAR-10-LT", 200.0)), (1, "MisLAS", ("CIFAR-10-LT", 200.0)), 1.72),
        ((1, "GCL", ("CIFAR-100-LT", 200.0)), (1, "MisLAS", ("CIFAR-100-LT", 200.0)), 2.55),
        ((2, "GCL", ("ImageNet-LT", None)), (2, "DisAlign", ("ImageNet-LT", None)), 1.97),
        ((2, "GCL", ("ImageNet-LT", None)), (2, "MisLAS", ("ImageNet-LT", None)), 2.77),
        ((2, "GCL", ("iNaturalist 2018", None)), (2, "MisLAS", ("iNaturalist 2018", None)), 0.44),
        ((2, "GCL", ("Places-LT", None)), (2, "MisLAS", ("Places-LT", None)), 0.49),
        ((5, "w/o RT"), (1, "BBN"), 0.70),
        ((5, "CBEN + cRT"), (5, "w/o RT"), 2.16),
    ],
)
def test_differences_named_in_the_text(one, other, gain):
    assert number(*one) - number(*other) == pytest.approx(gain)


def test_the_full_method_has_one_number_in_four_tables():
    full = [number(1, "GCL"), number(3, "log. diff."), number(4, "CBEN + cRT")]
    assert [*full, number(5, "CBEN + cRT")] == [82.68] * 4


def test_gcl_is_best_in_every_column_of_tables_1_and_2():
    for table, columns in ((1, CIFAR), (2, LARGE)):
        for column in columns:
            best = max(paper_rows(table), key=lambda row: row.values.get(column, 0))
            assert best.name == "GCL"


def test_footnotes_and_methods():
    quoted = [(row.table, row.name) for row in ROWS if row.quoted]
    assert quoted == [
        *((1, name) for name in ("De-confound-TDE", "Contrastive learning")),
        *((2, name) for name in ("LDAM-DRW", "OLTR", "Logit adjustment", "DisAlign")),
    ]
    assert {row.method for row in OURS} <= METHODS.keys()
    assert [row.name for row in ROWS if row.method is None] == ["Decoupling"]


def test_the_margin_has_the_mean_of_the_cloud():
    (row,) = [row for row in paper_rows(BEYOND) if row.name == "margin"]
    assert row.changes["tau"] == pytest.approx(
        matched_tau(long_tailed_counts(5000, 10, 100)), abs=5e-4
    )


# Which record belongs to which row.


@given(
    row=st.sampled_from(OURS),
    preset=st.sampled_from(["official", "paper", "short", "smoke"]),
    epochs=st.integers(5, 300),
    seed=st.integers(0, 9),
)
def test_a_run_of_a_row_belongs_to_it_and_to_no_other_of_its_table(row, preset, epochs, seed):
    made = record_of(row.method, preset, seed=seed, epochs=epochs, **row.changes)
    assert [other for other in paper_rows(row.table) if belongs(made, other)] == [row]


def test_a_row_has_the_official_values_of_its_column():
    (row,) = [row for row in paper_rows(1) if row.method == "mislas"]
    column = ("CIFAR-10-LT", 50.0)
    official = {"stage2_smooth_head": 0.2, "stage2_rebalance_head_lr_factor": 0.2}
    declared, made = record_of("mislas", ratio=50.0), record_of("mislas", ratio=50.0, **official)
    assert records_of(row, column, [declared, made]) == [made]
    assert not belongs(record_of("mislas", **official), row)  # at ratio 100
    assert belongs(record_of("mislas", ratio=200.0), row)  # no configuration is published


def test_the_official_grid_has_the_official_values_of_mislas():
    from gcl_core.grid.cells import cells_of

    cells = cells_of(ROOT / "grids" / "cifar10-official.yaml")
    found = {}
    for cell in cells:
        if cell.method == "mislas":
            stage = cell.settings.stage2
            values = stage.objective.smooth_head, stage.objective.smooth_tail
            factor = stage.rebalance.head_lr_factor
            found[cell.settings.data.imbalance_ratio] = (
                *values,
                factor,
                stage.rebalance.batch_norm,
            )
    usual = (0.3, 0.0, 0.5, "frozen")
    assert found == {100.0: usual, 200.0: usual, 50.0: (0.2, 0.0, 0.2, "frozen")}


TRAINED = [row for row in OURS if row.table != 2]  # on CIFAR


def test_the_official_grid_trains_every_row_of_cifar_10():
    from gcl_core.grid.cells import cells_of

    cells = [cell.settings for cell in cells_of(ROOT / "grids" / "cifar10-official.yaml")]
    for row in TRAINED:
        wanted = resolve("cifar10", row.method, "official", imbalance_ratio=100, **row.changes)
        assert wanted in cells, (row.table, row.name)


def test_the_options_of_a_row_make_a_run_of_that_row():
    lines = [line.strip("| ").split(" | ") for line in options_table().splitlines()[2:]]
    found = {}
    for name, place, text in lines:
        given = overrides(shlex.split(text.strip("`")))
        found[place, name] = record_of(given.pop("method"), **given)
    for row in TRAINED:
        place = "beyond" if row.table == BEYOND else str(row.table)
        assert belongs(found.pop((place, row.name)), row)
    official = {f"{row.name} on {name}, ratio {ratio:g}": (row, (name, ratio))
                for row in TRAINED for name, ratio in OFFICIAL.get(row.method, {})}  # fmt: skip
    assert {name for _, name in found} == official.keys()
    for (_, name), made in found.items():
        row, (data, ratio) = official[name]
        counts = long_tailed_counts(*FULL_CLASSES[data], ratio)
        made |= {"dataset": {"CIFAR-10-LT": "cifar10", "CIFAR-100-LT": "cifar100"}[data]}
        made |= {"imbalance_ratio": ratio}
        made["identity"]["images"]["class_counts"] = counts
        assert belongs(made, row)


def leaves(tree, path=()):
    for key, inner in tree.items():
        if isinstance(inner, dict):
            yield from leaves(inner, (*path, key))
        else:
            yield (*path, key)


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


@given(row=st.sampled_from(OURS), data=st.data())
def test_any_other_value_is_another_run(row, data):
    made = record_of(row.method, **row.changes)
    parts = {k: v for k, v in made["identity"].items() if k in ("head", "stage1", "stage2")}
    path = data.draw(st.sampled_from(list(leaves(parts))))
    other = copy.deepcopy(made)
    at(other["identity"], path[:-1])[path[-1]] = data.draw(st.sampled_from(["other", 0.123, [7]]))
    assert belongs(made, row)
    assert not belongs(other, row)


@given(row=st.sampled_from(OURS), data=st.data())
def test_a_missing_value_agrees_only_where_it_does_nothing(row, data):
    made = record_of(row.method, **row.changes)
    parts = {k: v for k, v in made["identity"].items() if k in ("stage1", "stage2")}
    path = data.draw(st.sampled_from(list(leaves(parts))))
    older = copy.deepcopy(made)
    gone = at(older["identity"], path[:-1]).pop(path[-1])
    # A row without warm-up leaves the default: the older run may have had one.
    assert belongs(older, row) == (gone in (None, 0, False, "frozen") and path[-1] != "warmup")


def test_a_setting_that_is_gone_agrees_only_where_it_was_off():
    (row,) = [row for row in paper_rows(5) if row.name == "w/o RT"]
    newer = record_of("gcl")
    newer["identity"]["stage1"]["since_removed"] = None
    assert belongs(newer, row)
    newer["identity"]["stage1"]["since_removed"] = 0.5
    assert not belongs(newer, row)


def test_the_committed_records_have_their_rows():
    found = {
        (row.table, row.name): [r["method"] for r in records_of(row, ABLATION, records)]
        for records in [load_measured(ROOT / "results")]
        for row in ROWS
    }
    assert set(found[1, "CE loss"]) == {"ce"}
    assert set(found[5, "w/o RT"]) == {"gcl"}
    for place in ((1, "GCL"), (3, "log. diff."), (4, "CBEN + cRT"), (5, "CBEN + cRT")):
        assert "gcl_crt" in found[place]


def test_data_are_told_apart():
    made = record_of("ce", ratio=50.0)
    assert column_of(made) == ("CIFAR-10-LT", 50.0)
    assert column_of(made | {"dataset": "digits"}) is None
    assert column_of(made | {"imbalance_ratio": None}) is None
    assert column_of(made | {"imbalance_ratio": 100.0}) is None  # other counts than that ratio's
    (row,) = [row for row in paper_rows(1) if row.name == "CE loss"]
    assert records_of(row, ("CIFAR-10-LT", 50.0), [made]) == [made]
    assert records_of(row, ABLATION, [made]) == []
