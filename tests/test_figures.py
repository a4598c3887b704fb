import colorsys
import itertools
import json
from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.cbook import is_math_text
from PIL import Image

import gcl_core
from gcl_core.figures import charts as figures
from gcl_core.figures import dark, saving
from gcl_core.figures.drawing import Classes, as_label
from gcl_core.figures.looks import (
    GROUP_COLOURS,
    GROUP_LOOKS,
    METHOD_LOOKS,
    SAMPLER_LOOKS,
    Look,
    shades,
    style,
)
from gcl_core.figures.photographs import photographs
from gcl_core.figures.series import Series, curve, over_seeds
from gcl_core.figures.tail import count_bars
from gcl_core.methods.registry import METHODS, resolve
from gcl_core.training.two_stages import run
from toys import toy_dataset

# Linear RGB as seen with the named deficiency at full severity: Machado, Oliveira and Fernandes,
# "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(colour, vision):
    """CIELAB of a colour as it is seen."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    ratio = np.asarray(XYZ) @ seen / (np.asarray(XYZ) @ np.ones(3))
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(one, other, vision):
    """CIE76: 2.3 is just noticeable; above 15 two lines cannot be taken for each other."""
    return float(np.linalg.norm(lab(one, vision) - lab(other, vision)))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("page", [str, dark.on_dark], ids=["light", "dark"])
def test_lines_and_groups_differ_for_every_eye_in_colour_or_line(page, vision):
    for looks in (METHOD_LOOKS, SAMPLER_LOOKS, GROUP_LOOKS):
        for one, other in itertools.combinations(looks.values(), 2):
            apart = distance(page(one.colour), page(other.colour), vision) > 15
            assert apart or one.line != other.line, (one, other)


def test_hues_can_be_read_on_a_dark_page_and_greys_turn_round():
    for colour in (*GROUP_COLOURS.values(), *(look.colour for look in METHOD_LOOKS.values())):
        hue, _, saturation = colorsys.rgb_to_hls(*mpl.colors.to_rgb(colour))
        there = dark.on_dark(colour)
        assert dark.contrast(there) >= 4, colour
        if saturation > 0.15:
            assert colorsys.rgb_to_hls(*mpl.colors.to_rgb(there))[0] == pytest.approx(hue, abs=0.01)
    assert dark.on_dark("white") == dark.GROUND.lower()
    assert dark.on_dark("black") == dark.INK.lower()
    assert dark.contrast("#FFFFFF", "#000000") == pytest.approx(21)


def test_every_figure_can_be_dark_and_none_stays_open_in_pyplot():
    for name, figure in every_figure().items():
        with style():
            ground = dark.in_dark(figure).get_facecolor()
        assert mpl.colors.to_hex(ground) == dark.GROUND.lower(), name
        for axes in figure.axes:
            heat_map = any(isinstance(c, mpl.collections.QuadMesh) for c in axes.collections)
            texts = [] if heat_map else axes.texts
            for text in (*texts, axes.title, axes.xaxis.label, *axes.get_xticklabels()):
                assert dark.contrast(mpl.colors.to_hex(text.get_color())) > 3, (name, text)
    assert mpl.pyplot.get_fignums() == []


def test_a_dark_figure_is_saved_beside_the_light_one(tmp_path):
    figure = figures.sweeps([0, 1], "τ", {"A": [series("one", [1.0, 2.0])]})
    saving.save_figure(figure, tmp_path, "both", {}, dark=True)
    names = {"both.json", "both.png", "both.svg", "both-dark.png", "both-dark.svg"}
    assert {file.name for file in tmp_path.iterdir()} == names
    corner = [
        Image.open(tmp_path / name).convert("RGB").getpixel((2, 2))
        for name in ("both.png", "both-dark.png")
    ]
    assert corner == [(255, 255, 255), (0x0D, 0x11, 0x17)]


def test_every_method_has_a_look_of_its_own_and_no_groups_colour():
    assert METHODS.keys() <= METHOD_LOOKS.keys()
    looks = [(look.colour, look.line) for look in METHOD_LOOKS.values()]
    assert len(set(looks)) == len(looks)
    assert not {look.colour for look in METHOD_LOOKS.values()} & set(GROUP_COLOURS.values())


def test_the_style_stays_inside_its_block():
    before = dict(mpl.rcParams)
    with style():
        assert mpl.rcParams["font.size"] == 13
    assert dict(mpl.rcParams) == before


def test_a_band_over_seeds_reaches_from_the_lowest_to_the_highest():
    data, rows = toy_dataset(counts=(9, 3)), [[1, 98], [2, 100], [6, 100]]
    series = over_seeds(Look("a", "#000000"), rows)
    assert series.values == pytest.approx([3, 298 / 3])
    for figure in (
        figures.values_by_class(data, {"A": [series]}),
        figures.sweeps([0, 1], "τ", {"A": [series]}),
    ):
        (band,) = figure.axes[0].collections[:1]
        _, low, _, high = band.get_datalim(figure.axes[0].transData).extents
        assert (low, high) == pytest.approx((1, 100))
    assert over_seeds(Look("a", "#000000"), [[1, 2]]).spread is None


def series(label, values, colour="#000000"):
    return Series(Look(label, colour), values, [1.0] * len(values))


def record(method, epochs, top1):
    """A run record with a history."""
    rows = [{"train_loss": "1.5", "top1": str(x), "few": str(x / 2)} for x in top1]
    return {"method": method, "epochs": epochs, "history": [rows[:2], rows[2:]][: len(epochs)]}


DOTS = [
    figures.PaperDot("both", "#000000", 80.0, {"long": (77.0, None), "short": (75.0, 1.5)}),
    figures.PaperDot("only the paper", "#D55E00", 82.0, {}),
    figures.PaperDot("only ours", "#009E73", None, {"short": (70.0, None)}),
]


def figures_by_class(data, lines, confusion):
    """One call of each figure function that shows something of each class."""
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(len(data.test.labels), 2, generator=generator), data.test.labels
    maps = {"CE": positions, "GCL": positions}
    return {
        "values_by_class": figures.values_by_class(data, {"A": lines, "B": lines}, percent=True),
        "confusion_maps": figures.confusion_maps(data, {"A": confusion}),
        "embedding_maps": figures.embedding_maps(data, maps),
        "headline": figures.headline(data, lines, lines),
        "photographs": photographs(data, lines),
    }


def every_figure():
    """One call of each figure function."""
    data = toy_dataset(counts=(30, 12, 5))
    lines = [series("one", [90.0, 50.0, 10.0]), series("two", [80.0, 70.0, 60.0], "#D55E00")]
    x = list(np.linspace(-5, 20, 50))
    return {
        "gradient_curves": figures.gradient_curves(x, [series("a", list(1 / (1 + np.exp(x))))]),
        **figures_by_class(data, lines, [[3, 0, 0], [1, 1, 0], [4, 0, 0]]),
        "training_curves": figures.training_curves({"A": lines, "B": lines}, stage2_starts=2),
        "record_curves": figures.record_curves(
            [record("ce", [2], [3.0, 5.0]), record("gcl_crt", [2, 1], [4.0, 6.0, 9.0])]
        ),
        "sweeps": figures.sweeps([0, 1, 2], "τ", {"A": lines, "B": lines}),
        "dots": figures.dots({"T": {"a": [1.0, 2.0], "b": [3.0, 4.0]}, "U": {"c": [1.5]}}, "x"),
        "paired_gains": figures.paired_gains(
            {"T": {"a": [1.0, 2.0], "b": [3.0]}}, "x", {"T": {"a": 0.5}}
        ),
        "paper_dots": figures.paper_dots({"A": DOTS, "B": DOTS}),
        "sampling_shares": figures.sampling_shares(
            [9, 3, 1], {"a": [50.0, 30.0, 20.0]}, [0.1, 1.0], {"a": [1.0, float("nan")]}
        ),
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    for name, figure in every_figure().items():
        saving.save_figure(figure, folder, name, {"what": name})
    return folder


def test_a_figure_drawn_again_has_the_same_bytes(drawn, tmp_path):
    every = every_figure()
    for name in ("values_by_class", "embedding_maps", "paper_dots"):
        saving.save_figure(every[name], tmp_path, name, {"what": name})
        for suffix in ("svg", "png", "json"):
            file = f"{name}.{suffix}"
            assert (tmp_path / file).read_bytes() == (drawn / file).read_bytes(), file


def test_three_files_and_no_date_in_them(drawn):
    for name in (file.stem for file in drawn.glob("*.json")):
        assert "<dc:date>" not in (drawn / f"{name}.svg").read_text()
        about = json.loads((drawn / f"{name}.json").read_text())
        assert about == {"gcl_core": gcl_core.__version__, "what": name}
        with Image.open(drawn / f"{name}.png") as image:
            assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert np.asarray(image.convert("L")).std() > 5


def test_a_confusion_map_is_in_percent_of_the_true_class():
    figure = figures.confusion_maps(
        toy_dataset(counts=(9, 3, 1)), {"A": [[3, 1, 0], [0, 0, 0], [1, 0, 0]]}
    )
    (axes,) = figure.axes
    cells = axes.collections[0].get_array().reshape(3, 3)
    assert cells.tolist() == [[75, 25, 0], [0, 0, 0], [100, 0, 0]]
    assert [t.get_text() for t in axes.texts] == ["75", "25", "", "", "", "", "100", "", ""]


def test_recorded_curves_join_both_stages():
    loss, top1, few = figures.record_curves([record("gcl_crt", [2, 1], [4.0, 6.0, 9.0])]).axes
    assert [axes.lines[0].get_ydata().tolist() for axes in (loss, top1, few)] == [
        [1.5, 1.5, 1.5],
        [4.0, 6.0, 9.0],
        [2.0, 3.0, 4.5],
    ]
    assert top1.lines[1].get_xdata() == [2.5, 2.5]  # where stage 2 starts


def test_recorded_curves_have_no_line_where_stage_2_trained_nothing():
    _, top1, _ = figures.record_curves([record("ce_tau_norm", [2, 0], [4.0, 6.0])]).axes
    assert len(top1.lines) == 1


def test_recorded_curves_are_the_mean_of_a_methods_records():
    _, top1, _ = figures.record_curves(
        [record("ce", [2], [3.0, 5.0]), record("ce", [2], [5, 9])]
    ).axes
    assert [line.get_ydata().tolist() for line in top1.lines] == [[4.0, 7.0]]


def test_a_single_run_is_smoothed_within_its_stage():
    rows = [{"train_loss": "1", "top1": top1, "few": ""} for top1 in ("0", "10") * 20]
    made = {"method": "ce", "epochs": [40], "history": [rows]}
    values = figures.record_curves([made]).axes[1].lines[0].get_ydata()
    assert len(values) == 40
    assert values[:3].tolist() == pytest.approx([5, 10 / 3, 20 / 3])


def test_shades_go_from_dark_to_pale():
    assert shades("#CC79A7", 1) == ["#cc79a7"]
    dark, middle, pale = (sum(mpl.colors.to_rgb(shade)) for shade in shades("#CC79A7", 3))
    assert dark + 0.5 < middle < pale - 0.2


def test_a_group_without_classes_is_not_drawn():
    assert figures.number("81.5") == 81.5
    assert np.isnan(figures.number(""))
    texts = [text.get_text() for text in count_bars(100, 2, 10, "exp").axes[0].texts]
    assert [text.split()[0] for text in texts if "%" in text] == ["many", "few"]


def test_labels_at_line_ends_keep_apart():
    lines = [series(f"line {i}", [100.0 * (i % 2), 50 + i / 100]) for i in range(3)]
    figure = figures.values_by_class(toy_dataset(counts=(9, 3)), {"A": lines})
    places = sorted(
        t.get_position()[1] for t in figure.axes[0].texts if t.get_text().startswith("line")
    )
    assert len(places) == 3
    assert min(np.diff(places)) > 0.09
    assert places[-1] <= 1.0 + 1e-9


def test_a_label_with_room_stands_at_the_end_of_its_line():
    ends = {"low": 10.0, "middle": 40.0, "high": 90.0}
    lines = [series(label, [0.0, end]) for label, end in ends.items()]
    axes = figures.sweeps([0, 1], "τ", {"A": lines}).axes[0]
    low, high = axes.get_ylim()
    for text in axes.texts:
        place = (ends[text.get_text()] - low) / (high - low)
        assert text.get_position()[1] == pytest.approx(place)


def test_labels_that_crowd_are_moved_as_little_as_possible():
    lines = [series(f"line {i}", [0.0, 50.0]) for i in range(3)]
    axes = figures.sweeps([0, 1], "τ", {"A": lines}).axes[0]
    places = sorted(text.get_position()[1] for text in axes.texts)
    assert places[1] == pytest.approx(53 / 106)  # the middle one stays
    assert np.diff(places) == pytest.approx([0.075, 0.075])


def test_lines_that_meet_at_the_end_have_a_legend_instead_of_labels():
    lines = [series(f"line {i}", [10.0 * i, 0.0]) for i in range(4)]
    axes = figures.sweeps([0, 1], "τ", {"A": lines}).axes[0]
    assert not axes.texts
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"line {i}" for i in range(4)
    ]


def test_panels_with_the_same_lines_share_the_legend_of_the_first():
    meeting = [series(f"line {i}", [10.0 * i, 5.0, 0.0]) for i in range(4)]
    panels = {"A": meeting, "B": meeting, "C": [replace(meeting[0], look=Look("x", "red"))] * 4}
    axes = figures.values_by_class(toy_dataset(counts=(9, 5, 2)), panels).axes
    assert [each.get_legend() is not None for each in axes] == [True, False, True]


def test_lines_of_one_colour_have_a_piece_of_the_line_before_each_label():
    shared = [METHOD_LOOKS[m] for m in ("ce_crt", "ce_lws", "ce")]
    lines = [Series(look, [0.0, 20.0 * i]) for i, look in enumerate(shared)]
    axes = figures.sweeps([0, 1], "τ", {"A": lines}).axes[0]
    styles = {line.get_label(): line for line in axes.lines[:3]}
    pieces = axes.lines[3:]
    assert len(pieces) == len(axes.texts) == 3
    for text, piece in zip(axes.texts, pieces, strict=True):
        drawn = styles[text.get_text()]
        assert piece.get_linestyle() == drawn.get_linestyle()
        assert piece.get_color() == drawn.get_color()
        assert piece.get_ydata()[0] == text.get_position()[1]
        assert 1 < max(piece.get_xdata()) < text.get_position()[0]
    alone = figures.sweeps([0, 1], "τ", {"A": lines[1:]}).axes[0]
    assert len(alone.lines) == 2


def test_what_stands_beside_a_figure_names_runs_and_settings_but_no_path(tmp_path):
    settings = resolve(
        "folder:/somewhere", "ce", "smoke", network="digits_cnn", precision="float32"
    )
    finished = run(settings, tmp_path / "runs", dataset=toy_dataset(), progress="none")
    about = saving.about_runs([finished], [finished])["runs"]
    assert list(about) == [finished.path.name]
    assert about[finished.path.name]["stage1"]["epochs"] == 3
    assert about[finished.path.name]["dataset"] == "toy"
    text = json.dumps(about)
    assert "somewhere" not in text
    assert str(tmp_path) not in text


def test_curves_join_both_stages(tmp_path):
    settings = resolve("folder:x", "gcl_crt", "smoke", network="digits_cnn", precision="float32")
    finished = run(settings, tmp_path, dataset=toy_dataset(), progress="none")
    line = curve(METHOD_LOOKS["gcl_crt"], [finished], "top1")
    assert len(line.values) == 3 + 1
    assert line.values[-1] == finished.result["top1"]


def test_several_seeds_have_a_dot_each_and_one_alone_its_mean():
    groups = {"T": {"a": [1.0, 2.0], "b": [3.0, 4.0], "one": [5.0]}}
    (axes,) = figures.dots(groups, "x").axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in dots] == [[1, 2], [3, 4]]


def test_gains_have_t_intervals_and_the_quoted_number_is_hollow():
    gains = {"T": {"a": [1.0, 3.0], "b": [5.0]}}
    (axes,) = figures.paired_gains(gains, "x", {"T": {"b": 4.0}}).axes
    lengths = [(bar.get_paths()[0].vertices[:, 0]).tolist() for bar in axes.collections]
    assert lengths == [pytest.approx([2 - 12.706, 2 + 12.706], abs=1e-3), [5, 5]]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_xdata()[0] for line in hollow] == [4.0]


def test_the_papers_dots_are_hollow_and_only_measured_ones_filled():
    figure = figures.paper_dots({"A": DOTS})
    (axes,) = figure.axes
    hollow, long, short = (
        [line for line in axes.lines if line.get_marker() == marker] for marker in "oDs"
    )
    assert [line.get_xdata()[0] for line in hollow] == [80.0, 82.0]
    assert {line.get_markerfacecolor() for line in hollow} == {"white"}
    assert [line.get_xdata()[0] for line in long] == [77.0]
    assert [line.get_xdata()[0] for line in short] == [75.0, 70.0]
    assert [line.get_color() for line in short] == ["#000000", "#009E73"]
    heights = [lines[0].get_ydata()[0] for lines in (hollow, long, short)]
    assert heights == pytest.approx([-0.26, 0.0, 0.26])  # none hides another of its row
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "the paper's (¹ quoted there)",
        "ours, long",
        "ours, short",
    ]
    assert [text.get_text() for text in axes.get_yticklabels()] == [dot.label for dot in DOTS]
    assert axes.yaxis_inverted()


# Classes in any order, with any names.


def shown_of(figure):
    """What a figure says of its classes, from left to right."""
    return [
        [
            [label.get_text() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())],
            [np.asarray(line.get_ydata()).tolist() for line in axes.lines],
            [(b.get_x(), round(b.get_height(), 9), b.get_facecolor()) for b in axes.patches],
            [band.get_paths()[0].vertices.tolist() for band in axes.collections[:1]],
            [np.asarray(each.get_array()).tolist() for each in axes.collections],
        ]
        for axes in figure.axes
    ]


@pytest.mark.parametrize("number", [4, 25])
def test_a_figure_by_class_is_the_same_whatever_the_order_of_the_classes(number):
    random = np.random.default_rng(number)
    counts = (3 * np.arange(1, number + 1)[::-1]).tolist()
    confusion = random.integers(0, 9, (number, number)) + 9 * np.eye(number, dtype=int)
    values = random.uniform(0, 100, number)
    drawn = []
    for order in (np.arange(number), random.permutation(number)):
        data = toy_dataset(counts=tuple(counts[j] for j in order))
        data = replace(data, class_names=tuple(f"no. {j}" for j in order))
        lines = [series("one", values[order].tolist())]
        every = figures_by_class(data, lines, confusion[np.ix_(order, order)].tolist())
        every.pop("embedding_maps")  # its glyphs are the classes' numbers
        drawn.append({name: shown_of(figure)[:2] for name, figure in every.items()})
    assert drawn[0] == drawn[1]
    texts, lines, *_ = drawn[0]["values_by_class"][1]
    assert texts[0].startswith("no. 0")
    assert texts[0].endswith(str(counts[0]))
    assert lines[0] == values.tolist()


@pytest.mark.parametrize("number", [20, 21, 150])
def test_of_many_classes_twenty_are_pictured(number):
    counts = 1 + np.random.default_rng(0).permutation(number)
    data, lines = toy_dataset(counts=tuple(counts.tolist())), [series("one", [9.0] * number)]
    heights = [bar.get_height() for bar in photographs(data, lines).axes[1].patches]
    assert len(heights) == 20
    assert (heights[0], heights[-1]) == (number, 1)
    assert heights == sorted(heights, reverse=True)


def test_below_the_photographs_of_a_class_are_its_images_and_its_accuracies():
    dataset = toy_dataset(counts=(5, 30, 1))
    lines = [series("one", [10.0, 90.0, 0.0]), series("two", [40.0, 80.0, 20.0], "#D55E00")]
    pictures, counts, bars = photographs(dataset, lines).axes[:3]
    assert [bar.get_height() for bar in counts.patches] == [30, 5, 1]
    colours = [mpl.colors.to_hex(bar.get_facecolor()).upper() for bar in counts.patches]
    assert colours == [GROUP_COLOURS[group] for group in ("many", "medium", "few")]
    assert [bar.get_height() for bar in bars.patches] == [90, 10, 0, 80, 40, 20]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in bars.patches]
    assert np.round(middles).tolist() == [0, 1, 2, 0, 1, 2]
    assert middles[:3] < middles[3:]
    shown = [inner.images[0].get_array() for inner in pictures.child_axes]
    order = [1, 1, 0, 0, 2]  # two of each, but of the last class, which has one
    for pixels, j, number in zip(shown, order, [0, 1, 0, 1, 0], strict=True):
        index = int((dataset.train.labels == j).nonzero()[number])
        assert (np.asarray(pixels) == np.asarray(dataset.train.images.picture(index))).all()


@given(st.text())
@example("$x^2$")
@example("two\nlines")
@example("\x1b[31mred")
def test_a_name_in_a_figure_is_one_short_line_without_mathematics(name):
    label = as_label(name)
    assert not is_math_text(label)
    assert len(label.replace(r"\$", "$")) <= 22
    assert len(label.splitlines()) <= 1
    assert "\x1b" not in label


def test_any_names_can_be_drawn():
    names = (r"$\frac{", "<b>|", "two\nlines", "", "a retriever from the far north", "x")
    data = replace(toy_dataset(counts=(1, 9, 3, 5, 30, 2)), class_names=names)
    figure = figures.values_by_class(data, {"A": [series("one", [0.0] * 6)]})
    figure.draw_without_rendering()
    texts = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert texts[:3] == ["a retriever… far north: 30", "<b>|: 9", "(3): 5"]
    assert {label.get_rotation() for label in figure.axes[0].get_xticklabels()} == {90}
    assert Classes.of(data).order == [4, 1, 3, 2, 5, 0]
    (legend,) = photographs(data, [series("one", [0.0] * 6)]).legends
    keys = [text.get_text() for text in legend.get_texts()]
    assert keys[0] == "many-shot: 1 <b>|, 4 a retriever… far north"


def test_labels_of_the_study_stand_at_the_ends_of_their_lines():
    data = toy_dataset(counts=(30, 12, 5))
    lines = [series("one", [9.0, 11.0, 7.0]), series("two", [12.0, 8.0, 10.0], "#D55E00")]
    for axes in figures.headline(data, lines, lines).axes[1:]:
        to_data = axes.transAxes + axes.transData.inverted()
        places = {t.get_text(): to_data.transform(t.get_position())[1] for t in axes.texts}
        low, high = axes.get_ylim()
        assert low == 0
        for one in lines:
            assert abs(places[one.look.label] - one.values[-1]) < 0.1 * (high - low)
