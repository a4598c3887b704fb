"""The pictures that move: what is drawn at every position of a slider is what gcl_core gives."""

import itertools
import json
import math
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from gcl_core import CBENSampler, EffectiveNumberSampler, GCLLoss
from gcl_core.analysis.planar_network import class_accuracies

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))

from moving import BELOW, PICTURES, cloud, plane, sampling, tilt  # noqa: E402
from moving.drawing import (  # noqa: E402
    BLACK,
    LETTER,
    WIDTH,
    Axis,
    Moved,
    Panel,
    Picture,
    Slider,
    towards,
)


def frames(made, mark):
    """Of an element, from the values of its sliders to its text or path."""
    part = made.parts[int(re.search(r'data-part="(\d+)"', mark)[1])]
    positions = itertools.product(*(made.sliders[i].values for i in part["by"]))
    return {now: part["frames"][at] for now, at in zip(positions, part["at"], strict=True)}


def cells(made, label):
    """Of a row of the table, the `frames` of every cell that moves."""
    row = next(row for row in made.rows if f"{label}</th>" in row)
    return [frames(made, cell) for cell in re.findall(r"<td data-part[^>]*>", row)]


def paths(made, panel, kind):
    """Of every path of a kind in a panel, its `frames`; one that stays is the same everywhere."""
    every = [each for each in made.panels[panel].elements if f'class="{kind}"' in each]
    still = [re.search(r' d="([^"]*)"', each)[1] for each in every]
    return [
        frames(made, each) if "data-part" in each else defaultdict(lambda path=path: path)
        for each, path in zip(every, still, strict=True)
    ]


def points(panel, path):
    """The points of a path in the panel's own coordinates: `Panel.place`, undone."""
    wide, high = panel.x.high - panel.x.low, panel.y.high - panel.y.low
    return [
        (
            panel.x.low + (float(x) - panel.left) / (panel.right - panel.left) * wide,
            panel.y.low + (panel.bottom - float(y)) / (panel.bottom - panel.top) * high,
        )
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)
    ]


def records(name):
    return json.loads((ROOT / "results" / f"{name}.json").read_text())["records"]


def test_the_tilt_is_the_weighted_mean_of_recorded_accuracies():
    made = tilt.digits()
    accuracy, difference = cells(made, "GCL + cRT")
    counts = [124, 74, 44, 26, 16, 9, 5, 3, 2, 1]
    runs = {m: [r for r in records("digits") if r["method"] == m] for m in ("gcl_crt", "ce")}
    for t in (-1.0, -0.3, 0.0, 1.0):
        weights = [n**t for n in counts]
        ours, theirs = (
            [
                sum(w * a for w, a in zip(weights, run["per_class"], strict=True)) / sum(weights)
                for run in sorted(own, key=lambda run: run["seed"])
                if run["imbalance_ratio"] == 100
            ]
            for own in runs.values()
        )
        assert accuracy[t,] == f"{mean(ours):.1f}"
        pairs = stats.ttest_rel(ours, theirs).confidence_interval()
        assert difference[t,] == f"{mean(pairs):+.1f} ± {(pairs.high - pairs.low) / 2:.1f}"
        dots = [points(made.panels[1], own[t,])[0][1] for own in paths(made, 1, "dots")]
        assert min(abs(dot - mean(ours)) for dot in dots) < 0.05
        shares = [points(made.panels[0], bar[t,])[1][1] for bar in paths(made, 0, "area")]
        assert shares == pytest.approx([100 * w / sum(weights) for w in weights], abs=0.02)


def cosines(angles):
    """Cosines to the anchors of head and tail, in float64 from the angles' definition."""
    return torch.tensor(
        [[math.cos(math.radians(a + s)) for s in (60, -60)] for a in angles]
    ).double()


def gcl_gradients(angles, size, noise, scale):
    """1 - p_y of a tail image by autograd through `GCLLoss`, whose tail has a cloud of size one."""
    loss = GCLLoss([2, 1], scale=scale, noise_multiplier=0.5, reduction="sum")
    given = cosines(angles).requires_grad_()
    drawn = torch.full((len(angles), 2), size * noise, dtype=torch.float64)
    loss(given, torch.ones(len(angles), dtype=torch.int64), drawn).backward()
    return -given.grad[:, 1] / scale


def test_the_cloud_moves_boundary_and_gradient_as_the_loss_has_them():
    made = cloud.picture()
    circle, curves = made.panels
    (step,) = (own for own in paths(made, 0, "line") if (1.0, 0.3) in own)
    at_noise, gradient = cells(made, "at this noise")
    _, own_noise, held, over_cloud = paths(made, 1, "line")
    angles = cloud.DIRECTIONS.tolist()
    for size, noise, scale in ((1.0, 1.0, 30.0), (0.7, 0.4, 5.0), (0.0, 0.5, 1.0)):
        x, y = points(circle, step[size, noise])[-1]
        angle = math.degrees(math.atan2(y, x))
        assert math.hypot(x, y) == pytest.approx(1, abs=1e-3)
        assert float(gcl_gradients([angle], size, noise, 1.0)[0]) == pytest.approx(0.5, abs=1e-3)
        assert float(at_noise[size, noise][:-1]) == pytest.approx(angle, abs=0.1)
        right = gcl_gradients(angles, size, noise, scale).tolist()
        drawn = points(curves, own_noise[size, noise, scale])
        assert [x for x, _ in drawn] == pytest.approx(angles, abs=0.02)
        assert [y for _, y in drawn] == pytest.approx(right, abs=3e-4)
        shown = float(gradient[size, noise, scale])
        assert shown == pytest.approx(float(gcl_gradients([0.0], size, noise, scale)[0]), abs=6e-4)
        # The mean over the cloud, from its distribution function at 100 even steps.
        draws = stats.halfnorm.ppf((torch.arange(100) + 0.5) / 100, scale=1 / 3).clip(max=1)
        mid = sum(gcl_gradients(angles, size, float(e), scale) for e in draws) / len(draws)
        drawn = [y for _, y in points(curves, over_cloud[size, scale])]
        assert drawn == pytest.approx(mid.tolist(), abs=2e-3)
        at_mean = gcl_gradients(angles, size, 0.26571, scale).tolist()  # E|eps|
        drawn = [y for _, y in points(curves, held[size, scale])]
        assert drawn == pytest.approx(at_mean, abs=3e-4)


@pytest.fixture(scope="module")
def in_the_plane():
    return plane.picture(), *plane.trained()


@pytest.mark.parametrize(("panel", "loss"), [(0, "CE"), (1, "GCL")])
def test_the_plane_shows_the_network_of_the_epoch(in_the_plane, panel, loss):
    made, digits, planes = in_the_plane
    drawing = made.panels[panel]
    for epoch in (0, 5, 200):
        now = planes[loss][epoch]
        unit = float(now.train.norm(dim=1).median())
        right = class_accuracies(now.test, digits.test_labels, now.anchors)
        for j, own in enumerate(paths(made, panel, "dots")):
            features = now.train[digits.train_labels == j] / unit
            drawn = torch.tensor(points(drawing, own[epoch,]))
            assert drawn.shape == features.shape
            inside = features.norm(dim=1) < 0.96 * plane.RIM
            assert torch.allclose(drawn[inside], features[inside], atol=2e-3)
            assert bool((drawn.norm(dim=1) < 0.97 * plane.RIM).all())
            shown = cells(made, f"{digits.class_names[j]}, of {digits.class_counts[j]} images")
            assert shown[panel][epoch,] == f"{float(right[j]):.0f}"
        # Of every degree, the class with the largest cosine; the drawn ends are within 0.2 of it.
        degrees = torch.arange(360.0)
        all_round = torch.tensor([towards(float(angle)) for angle in degrees])
        owners = (all_round @ F.normalize(now.anchors).T).argmax(1)
        for j, own in enumerate(paths(made, panel, "thick")):
            ends = [math.degrees(math.atan2(y, x)) for x, y in points(drawing, own[epoch,])]
            low, wide = ends[0], (ends[-1] - ends[0]) % 360
            inside = (degrees - low) % 360
            sure = ((inside - wide).abs() > 0.2) & (inside > 0.2) & (inside < 359.8)
            assert int(sure.sum()) >= 358
            assert torch.equal(owners[sure] == j, inside[sure] <= wide)


def test_the_plane_shows_each_cloud_where_training_is_undecided(in_the_plane):
    made, _, planes = in_the_plane
    full = [own for i, own in enumerate(paths(made, 1, "shade")) if i % 5 == 4]
    anchors = F.normalize(planes["GCL"][200].anchors).double()
    sizes = [0, math.log(120 / 30) / math.log(120 / 8), 1]
    leads = []
    for own in full:
        _, *rim = points(made.panels[1], own[200,])
        start, end = (anchors @ torch.tensor(rim[i]).double() / 2 for i in (0, -1))
        first, second = start.topk(2).values
        assert float(first - second) == pytest.approx(0, abs=2e-3)  # undecided without a cloud
        first, second = end.topk(2).values
        leads.append((int(end.argmax()), float(first - second)))
    # In its own arc a class is ahead by as much as its full cloud takes away; twice, as each has
    # two neighbours.
    ahead = sorted(lead for lead in leads if lead[1] > 0.01)
    assert [j for j, _ in ahead] == [1, 1, 2, 2]
    assert [lead for _, lead in ahead] == pytest.approx([sizes[1]] * 2 + [sizes[2]] * 2, abs=2e-3)
    assert len(leads) == 6
    assert paths(made, 0, "shade") == []


POWERS = {"IB": 0.0, "SQRT": -0.5, "CB": -1.0, "REV": -2.0}  # of n_j, the weight of an image


@pytest.mark.parametrize("ratio", [1.0, 100.0])
def test_the_samplers_show_what_they_draw(ratio):
    made = sampling.picture()
    counts = sampling.counts(ratio)
    labels = torch.arange(10).repeat_interleave(torch.tensor(counts))
    expected = {
        name: ((ratio,), [n ** (1 + power) for n in counts]) for name, power in POWERS.items()
    }
    expected["EN"] = (
        (ratio, 0.99),
        EffectiveNumberSampler(labels, beta=0.99).class_probabilities.tolist(),
    )
    cben = CBENSampler(labels, a=0.99, b=0.009).class_probabilities.tolist()
    expected["CBEN"] = ((ratio, 0.99, 0.9), cben)
    left, right = made.panels
    lines = zip(sampling.SAMPLER_LOOKS, paths(made, 0, "line"), paths(made, 1, "line"), strict=True)
    for name, drawn, repeated in lines:
        now, mass = expected[name]
        shares = [m / sum(mass) for m in mass]
        assert [y / 100 for _, y in points(left, drawn[now])] == pytest.approx(shares, abs=3e-4)
        times = [sum(counts) * p / n for p, n in zip(shares, counts, strict=True)]
        found = [10**y for _, y in points(right, repeated[now])]
        assert found == pytest.approx(times, rel=0.01)
    head, rarest, _ = cells(made, "CBEN")
    now = expected["CBEN"][0]
    assert (head[now], rarest[now]) == (f"{100 * cben[0]:.2f}", f"{100 * cben[-1]:.2f}")


@pytest.mark.parametrize("make", [tilt.digits, tilt.photographs, cloud.picture, sampling.picture])
def test_no_line_leaves_its_panel(make):
    made = make()
    for i, panel in enumerate(made.panels):
        for kind in ("line", "area", "dots"):
            for path in itertools.chain(*(own.values() for own in paths(made, i, kind))):
                x, y = zip(*re.findall(r"(-?[\d.]+) (-?[\d.]+)", path), strict=True)
                assert panel.left <= min(map(float, x)) <= max(map(float, x)) <= panel.right
                assert panel.top <= min(map(float, y)) <= max(map(float, y)) <= panel.bottom


@pytest.mark.parametrize("make", [tilt.digits, tilt.photographs, cloud.picture, sampling.picture])
def test_no_text_leaves_its_panel(make):
    made = make()
    for panel in made.panels:
        for side, x, more, text in re.findall(
            r'<text class="(end|middle)" x="([^"]*)"[^>]*?( data-part="\d+")?>([^<]*)<',
            "".join(panel.elements),
        ):
            shown = frames(made, more).values() if more else [text]
            width = LETTER * max(map(len, shown))
            left = float(x) - (width if side == "end" else width / 2)
            assert left > -0.1, text
            assert left + width < WIDTH + 0.1, text


def test_a_part_knows_its_sliders_and_ends_no_script():
    one, two = Slider("<one>", [1, 2], 2), Slider("two", [10, 20, 30], 10)
    made = Picture("a < b", "", one, two)
    panel = Panel(
        made, "", "", Axis(0, 1, {0: Moved([two], lambda b: f"</script>{b}")}), Axis(0, 1, {})
    )
    panel.draw("line", BLACK, [two, one], lambda b, a: [(0, 0), (a / 2, b / 30)])
    assert made.part(Moved([one], lambda a: "same")) == ("", "same")
    text, line = made.parts
    assert text["frames"] == ["</script>10", "</script>20", "</script>30"]
    assert (line["by"], line["at"]) == ([1, 0], [0, 1, 2, 3, 4, 5])
    page = made.html()
    assert page.count("</script>") == 1
    assert json.loads(re.search(r'json">(.*?)</script>', page)[1]) == made.parts
    assert f'd="{line["frames"][1]}"' in page  # as it stands at the start: a = 2, b = 10


def test_every_picture_in_a_notebook_has_its_figure():
    texts = "".join(file.read_text() for file in (ROOT / "notebooks").rglob("*.py"))
    assert [figure for figure in BELOW if f'"{figure}"' not in texts] == []
    assert set(BELOW.values()) <= set(PICTURES)
