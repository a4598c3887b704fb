"""Settings: every value is found, changed and refused by name; schedules are the published ones."""

import dataclasses
import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcl_core import GCLError
from gcl_core.config import coerce
from gcl_core.methods.objectives import GCL, CrossEntropy
from gcl_core.methods.rebalance import CRT, LWS, TauNorm
from gcl_core.methods.registry import METHODS, PRESETS, resolve
from gcl_core.methods.sampling import CBEN, ClassBalanced, EffectiveNumber, InstanceBalanced
from gcl_core.methods.settings import (
    DataSettings,
    Settings,
    Stage,
    describe,
    flat_settings,
    get_setting,
    learning_rate,
    override,
    to_dict,
)

PARTS = [DataSettings, Stage, Settings, GCL, CrossEntropy, CBEN, EffectiveNumber, InstanceBalanced]
PARTS += [ClassBalanced, CRT, LWS, TauNorm]
EVERY = [resolve(method=m, preset=p) for m in METHODS for p in PRESETS]
FULL = resolve(method="gcl_crt", preset="official")


def flat(settings):
    """Values by flat name; a part that comes in kinds is its name."""
    values = {n: get_setting(settings, p) for n, p in flat_settings(settings).items()}
    return {n: getattr(v, "name", v) for n, v in values.items()}


def as_text(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


# Learning rates


def test_stage1_rates_of_the_published_code():
    stage = FULL.stage1
    rates = [round(learning_rate(stage, epoch), 12) for epoch in range(200)]
    assert rates[:5] == [0.02, 0.04, 0.06, 0.08, 0.1]
    assert rates[5:160] == [0.1] * 155
    assert rates[160:180] == [0.01] * 20  # x0.1 from epoch 161, counted from 1
    assert rates[180:] == [0.001] * 20  # x0.01 from epoch 181


def test_stage2_rates_of_the_published_code():
    rates = [learning_rate(FULL.stage2, epoch) for epoch in range(30)]
    assert [rates[e] for e in (0, 10, 20)] == pytest.approx([0.002, 0.0015, 0.0005])
    assert rates[29] == pytest.approx(5e-6, abs=5e-7)
    code = [0.1 * (0.1 * 0.1 * (1 + math.cos(math.pi * e / 30))) for e in range(30)]
    assert rates == pytest.approx(code)


def test_crt_rates_of_bag_of_tricks():
    stage = resolve(method="ce_mixup_crt", preset="official").stage2
    rates = [learning_rate(stage, epoch) for epoch in range(30)]
    expected = [0.02, 0.04, 0.06, 0.08, *[0.1] * 6, *[0.01] * 10, *[0.001] * 10]
    assert rates == pytest.approx(expected)


def test_rates_keep_their_shape_in_fewer_epochs():
    stage = resolve(method="gcl", preset="short").stage1
    rates = [learning_rate(stage, epoch) for epoch in range(60)]
    assert rates == pytest.approx([0.05, *[0.1] * 47, *[0.01] * 6, *[0.001] * 6])


@given(
    st.integers(1, 300),
    st.floats(1e-6, 10),
    st.floats(0, 1),
    st.sampled_from(["multistep", "cosine"]),
)
def test_rates_are_positive_and_never_above_the_peak(epochs, lr, warmup, schedule):
    stage = Stage(epochs=epochs, lr=lr, warmup=warmup, schedule=schedule)
    rates = [learning_rate(stage, epoch) for epoch in range(epochs)]
    assert all(0 < rate <= lr * (1 + 1e-12) for rate in rates)
    rising = math.ceil(round(warmup * epochs, 6))
    assert sorted(rates[:rising]) == rates[:rising]
    assert sorted(rates[rising:], reverse=True) == rates[rising:]


# Changing one value


def test_overriding_with_what_is_there_changes_nothing():
    for settings in EVERY:
        values = flat(settings)
        assert override(settings, values) == settings
        assert override(settings, {n: as_text(v) for n, v in values.items()}) == settings


NUMBERS = {
    "epochs": st.integers(1, 500),
    "scale": st.floats(0.5, 100),
    "stage2_scale": st.floats(0.5, 100),
    "stage2_epochs": st.integers(1, 99),
    "stage2_sampler_a": st.floats(0, 0.999),
    "stage2_margin": st.floats(-1, 1),
    "imbalance_ratio": st.none() | st.floats(1, 500),
    "class_counts": st.none() | st.lists(st.integers(1, 99), min_size=1, max_size=9).map(tuple),
    "milestones": st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4).map(tuple),
    "flip": st.none() | st.booleans(),
    "seed": st.integers(0, 2**32 - 1),
    "strategy": st.sampled_from(["log", "cosine"]),
}


@given(st.data())
def test_a_change_reaches_its_value_and_no_other(data):
    name = data.draw(st.sampled_from(sorted(NUMBERS)))
    value = data.draw(NUMBERS[name])
    changed = override(FULL, {name: value})
    assert flat(changed) == flat(FULL) | {name: value}
    assert override(FULL, {name: as_text(value)}) == changed
    assert override(changed, {name: flat(FULL)[name]}) == FULL


@given(st.data())
def test_order_of_changes_does_not_matter(data):
    names = data.draw(
        st.lists(st.sampled_from(sorted(NUMBERS)), min_size=2, max_size=5, unique=True)
    )
    changes = {name: data.draw(NUMBERS[name]) for name in names}
    expected = override(FULL, changes)
    for order in itertools.permutations(names):
        assert override(FULL, {name: changes[name] for name in order}) == expected


def test_a_new_kind_brings_its_own_settings():
    changed = override(FULL, {"stage2_sampler_beta": 0.9, "stage2_sampler": "effective"})
    assert changed.stage2.sampler == EffectiveNumber(0.9)
    assert override(
        FULL, {"stage2_rebalance": "tau_norm", "stage2_rebalance_tau": "0.5"}
    ).stage2.rebalance == TauNorm(0.5)
    assert (
        override(FULL, {"stage2_sampler": "cben"}) == FULL
    )  # the kind that is there keeps its values
    mine = override(FULL, {"stage2_sampler_a": 0.5})
    assert override(mine, {"stage2_sampler": "cben"}) == mine


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("ce", {"objective": "gcl", "head": "cosine", "scale": 9.0}),
        ("gcl", {"head": "linear", "objective": "cross_entropy"}),
        (
            "gcl_crt",
            {"head": "linear", "objective": "cross_entropy", "stage2_objective": "cross_entropy"},
        ),
    ],
)
def test_head_and_objective_change_together_in_any_order(method, changes):
    settings = resolve(method=method)
    changed = [override(settings, dict(order)) for order in itertools.permutations(changes.items())]
    assert all(c == changed[0] for c in changed)
    assert flat(changed[0]) | changes == flat(changed[0])


def test_all_settings_have_one_name_and_a_meaning():
    names = flat_settings(FULL)
    for name in ("epochs", "batch_size", "lr", "scale", "seed", "imbalance_ratio", "dataset"):
        assert name in names
    for name in (
        "stage2_epochs",
        "stage2_lr",
        "stage2_sampler",
        "stage2_sampler_a",
        "stage2_rebalance_fresh_head",
    ):
        assert name in names
    assert all(describe(FULL, path) for path in names.values())
    assert len(set(names.values())) == len(names)
    assert not any(name.startswith("stage2") for name in flat_settings(resolve(method="gcl")))


@pytest.mark.parametrize("part", PARTS)
def test_every_value_has_its_meaning_in_the_docstring(part):
    for field in dataclasses.fields(part):
        if field.metadata:
            assert f"{field.name} (default" in part.__doc__
            assert field.metadata["text"] in part.__doc__


def test_dictionaries_are_plain_and_tell_kinds_apart():
    for settings in EVERY:
        assert json.loads(json.dumps(to_dict(settings)))["seed"] == 0
    nested = to_dict(FULL)
    assert nested["stage2"]["sampler"] == {"name": "cben", "a": 0.9999, "b": 1e-5}
    assert nested["stage1"]["objective"]["name"] == "gcl"
    empty = [to_dict(override(FULL, {"stage2_sampler": kind})) for kind in ("instance", "class")]
    assert empty[0] != empty[1]


# What is refused

ODD = ["", "-", "0x10", "1e400", "-0.0", "nan", "٣", "9" * 5000, [], {}, (1,), True, None, b"1"]
NUMERIC = [n for n, v in flat(FULL).items() if not isinstance(v, str) and n != "flip"]


@given(
    st.sampled_from(NUMERIC),
    st.integers() | st.floats() | st.sampled_from([10**400, -(2**64), 5e-324, *ODD]),
)
def test_a_number_is_either_taken_or_refused_in_one_line(name, number):
    try:
        changed = override(FULL, {name: number})
    except GCLError as refusal:
        said = str(refusal)
        assert said.count("\n") == 0
        return
    taken = get_setting(changed, flat_settings(FULL)[name])
    numbers = taken if isinstance(taken, tuple) else () if taken is None else (taken,)
    assert all(abs(each) < 2**32 for each in numbers)


def limits(part):
    for field in dataclasses.fields(part):
        for limit in ("low", "high", "above", "below"):
            if field.metadata and field.metadata[limit] is not None:
                yield part, field, limit


@pytest.mark.parametrize(
    ("part", "field", "limit"),
    [case for part in PARTS for case in limits(part)],
    ids=lambda v: getattr(v, "name", None) or getattr(v, "__name__", v),
)
def test_every_limit_holds(part, field, limit):
    bound = field.metadata[limit]
    step = 1 if isinstance(field.default, int) and not isinstance(field.default, float) else 1e-6
    if field.name in ("image_size", "crop_padding", "n_max", "class_counts"):
        step = 1
    outside = bound - step if limit in ("low", "above") else bound + step
    required = (
        {"data": DataSettings(), "stage1": Stage(objective=GCL())} if part is Settings else {}
    )

    # What the value has to go with: an exponent, its strategy; a and b of CBEN, a sum below 1.
    required |= {
        "exponent": {"strategy": "power"},
        "n_max": {"imbalance_ratio": 1},
        "a": {"b": 0},
        "b": {"a": 0},
    }.get(field.name, {})

    def make(value):
        value = (value,) if field.name in ("class_counts", "milestones", "mean", "std") else value
        return part(**required, **{field.name: value})

    refused = [outside] if limit in ("low", "high") else [outside, bound]
    for value in refused:
        with pytest.raises(GCLError, match=f"^{field.name} must be [<>]=? "):
            make(value)
    make(bound if limit in ("low", "high") else 2 * bound - outside)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epohcs": 3}, r"unknown setting 'epohcs' \(did you mean epochs\?\); allowed: .*epochs"),
        ({"tau": 1}, "unknown setting 'tau'.*; allowed: "),
        (
            {"stage2_sampler": "random"},
            "'random' is unknown; allowed: instance, class, effective, cben",
        ),
        ({"objective": "hinge"}, "objective 'hinge' is unknown; allowed: cross_entropy, focal, "),
        ({"strategy": "linear"}, "strategy 'linear' is unknown; allowed: log, power, cosine"),
        ({"profile": "linear"}, "profile 'linear' is unknown; allowed: exp, step"),
        ({"network": "vgg"}, "network 'vgg' is unknown; allowed: resnet32, digits_cnn"),
        (
            {"precision": "float16"},
            "'float16' is unknown .did you mean bfloat16.*; allowed: bfloat16, float32",
        ),
        ({"schedule": "linear"}, "schedule 'linear' is unknown; allowed: multistep, cosine"),
        ({"head": "linear"}, "objective 'gcl' does not work with head 'linear'; allowed: cosine"),
        ({"epochs": "many"}, "epochs must be a whole number, got 'many'"),
        ({"epochs": 2.5}, "epochs must be a whole number, got 2.5"),
        ({"epochs": True}, "epochs must be a whole number, got True"),
        ({"epochs": None}, "epochs must be a whole number, got None"),
        ({"epochs": "1" + "0" * 400}, "epochs must be a whole number"),
        ({"lr": "nan"}, "lr must be a number, got 'nan'"),
        ({"lr": float("inf")}, "lr must be a number, got inf"),
        ({"flip": "maybe"}, "flip must be true or false, got 'maybe'"),
        ({"class_counts": "5,x"}, "class_counts must be a whole number, got 'x'"),
        ({"class_counts": 7}, "class_counts must be numbers with commas between them, got 7"),
        ({"strategy": 3}, "strategy must be a text, got 3"),
        ({"lr": 1e308}, r"lr must be <= 1000, got 1e\+308"),
        ({"stage2_weight_decay": "1e308"}, r"weight_decay must be <= 1000, got 1e\+308"),
        ({"batch_size": 2**64}, f"batch_size must be <= 1048576, got {2**64}"),
        ({"devices": 10**9}, "devices must be <= 1024, got 1000000000"),
        ({"margin": -1e308}, r"margin must be >= -1000000000, got -1e\+308"),
        ({"class_counts": [10**30]}, f"class_counts must be <= 1000000000, got {10**30}"),
        ({"seed": 2**32}, "seed must be <= 4294967295, got 4294967296"),
        ({"data_seed": 2**32}, "data_seed must be <= 4294967295, got 4294967296"),
        ({"imbalance_ratio": 0.5}, "imbalance_ratio must be >= 1, got 0.5"),
    ],
)
def test_wrong_changes_are_refused_by_name(changes, message):
    with pytest.raises(GCLError, match=message) as refusal:
        override(FULL, changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage2_sampler_b": 0.1}, r"a \+ b must be in \[0, 1\), got a = 0.9999, b = 0.1"),
        ({"stage2_sampler_a": 0, "stage2_sampler_b": -0.5}, "got a = 0.0, b = -0.5"),
        ({"strategy": "power"}, r"'power' needs an exponent in \(0, 1\), got None"),
        ({"stage2_strategy": "power"}, r"'power' needs an exponent in \(0, 1\), got None"),
        ({"stage2_strategy": "power", "exponent": 0.25}, "exponent"),
        ({"exponent": 0.25}, "exponent belongs to strategy 'power', not to 'log'"),
        ({"stage2_exponent": 0.25, "stage2_strategy": "cosine"}, "'power', not to 'cosine'"),
    ],
)
def test_values_that_do_not_go_together_are_refused_before_any_training(changes, message):
    for preset in ("official", "paper"):
        with pytest.raises(GCLError, match=message) as refusal:
            resolve("cifar10", "gcl_crt", preset, **changes)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "power", "exponent": 0.25},
        {"stage2_exponent": 0.5, "stage2_strategy": "power"},
        {"stage2_sampler_a": 0.5, "stage2_sampler_b": 0.4},
        {"stage2_sampler_b": -0.9, "stage2_sampler_a": 0.9},
    ],
)
def test_values_that_are_right_only_together_are_changed_together(changes):
    for order in itertools.permutations(changes.items()):
        changed = override(FULL, dict(order))
        assert flat(changed) == flat(FULL) | changes
        assert override(changed, {name: flat(FULL)[name] for name, _ in order}) == FULL


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.seed = 3


@given(st.integers(-(2**80), 2**80))
def test_whole_numbers_keep_every_digit(number):
    assert coerce("x", number, int) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive_their_text(number):
    assert coerce("x", repr(number), float) == number


@pytest.mark.parametrize(
    ("text", "annotation", "expected"),
    [
        ("none", int | None, None),
        ("None", tuple[int, ...] | None, None),
        ("7", int | None, 7),
        ("1e3", int, 1000),
        ("5,3,2", tuple[int, ...] | None, (5, 3, 2)),
        ([5, 3], tuple[int, ...], (5, 3)),
        ("yes", bool, True),
        ("0", bool, False),
        ("False", bool | None, False),
    ],
)
def test_texts_become_values(text, annotation, expected):
    assert coerce("x", text, annotation) == expected


COSINE = {"head": "cosine"}


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("bbn", {"mixup_alpha": 1}, "objective 'bbn' has batches and outputs of its own: neither"),
        ("hybrid_sc", {"class_weights": "effective"}, "neither mixup_alpha nor class_weights"),
        ("oltr", {"stage2_mixup_alpha": 1}, "objective 'oltr' has batches and outputs of its own"),
        ("oltr", {"stage2_objective": "cross_entropy"}, "'cross_entropy' does not work with head"),
        ("ce_crt", {"stage2_rebalance": "tde"}, "re-balancing 'tde' does not work with head 'lin"),
        (
            "ce_crt",
            {"stage2_objective": "oltr"},
            "'oltr' does not work with head 'linear'; .*: meta",
        ),
        ("tde", {"stage2_rebalance": "crt"}, "'crt' does not work with head 'multi_head'"),
        ("gcl_crt", {"head": "bilateral"}, "'gcl' does not work with head 'bilateral'"),
        ("ce", {"head": "meta"}, "head 'meta' is unknown; allowed: cosine, linear, "),
        ("ce", COSINE, "head 'cosine'; .* take objective gcl .* with noise_multiplier 0"),
        ("ce_mixup_crt", COSINE, "'cross_entropy' does not work with head 'cosine'"),
        ("label_aware", COSINE, "'label_aware' does not work with head 'cosine'; allowed: linear$"),
        ("gcl", {"objective": "cross_entropy"}, "take objective gcl"),
        (
            "gcl_crt",
            {"stage2_objective": "cross_entropy"},
            "take stage2_objective gcl .* with stage2_noise_multiplier 0",
        ),
        ("focal", COSINE, "'focal' .* bare cosines: with head 'cosine' scale must be > 1"),
        ("focal", COSINE | {"scale": 0.5}, "scale must be > 1, such as 30"),
        ("logit_adjustment", COSINE, "'logit_adjustment' .* scale must be > 1"),
        ("gcl_crt", {"stage2_objective": "focal"}, "stage2_scale must be > 1"),
        (
            "gcl_crt",
            {"stage2_rebalance": "post_hoc"},
            "re-balancing 'post_hoc' .* stage2_rebalance_scale must be > 1",
        ),
    ],
)
def test_combinations_that_cannot_be(method, changes, message):
    with pytest.raises(GCLError, match=message):
        resolve("cifar10", method, **changes)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("focal", COSINE | {"scale": 30}),
        ("gcl", {"objective": "logit_adjustment", "scale": 30}),
        ("ce", COSINE | {"objective": "gcl", "noise_multiplier": 0}),
        ("gcl_crt", {"stage2_rebalance": "post_hoc", "stage2_rebalance_scale": 30}),
        ("gcl_crt", {"stage2_objective": "focal", "stage2_scale": 20}),
        ("gcl_crt", {"stage2_rebalance": "tau_norm"}),
        ("gcl_crt", {"stage2_rebalance": "ncm"}),
        ("tde", {}),
    ],
)
def test_cosines_with_a_scale_are_welcome(method, changes):
    settings = resolve("cifar10", method, **changes)
    assert override(resolve("cifar10", method), dict(reversed(changes.items()))) == settings
