"""What a report counts, beside scikit-learn, SciPy and naive loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from gcl_core.report.findings import BINS, Share, findings, nearest, reliability, surest_mistakes
from toys import seeded

COUNTS = (40, 7, 90, 3, 12)
NAMES = tuple("abcde")
LARGEST_FIRST = [2, 0, 4, 1, 3]


@pytest.fixture(scope="module")
def tested():
    """Probabilities and labels of 300 test images, most of them right, none of class 3."""
    labels = torch.randint(3, (300,), generator=seeded(0))
    labels[::7] = 4
    logits = 2 * torch.randn(300, 5, generator=seeded(1), dtype=torch.float64)
    logits[torch.arange(300), labels] += 2
    return logits.softmax(1), labels


@given(st.integers(1, 400), st.floats(0, 1))
def test_interval_is_scipys(total, share):
    images = round(share * total)
    expected = binomtest(images, total).proportion_ci(method="wilson")
    assert Share(images, total).interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_nothing_is_known_without_images():
    assert Share(0, 0).value is None
    assert Share(0, 0).interval == (0, 1)


def test_precision_recall_and_f1_are_scikit_learns(tested):
    probabilities, labels = tested
    found = findings(probabilities, labels, NAMES, COUNTS)
    assert [each.name for each in found.classes] == [NAMES[j] for j in LARGEST_FIRST]
    assert [each.training for each in found.classes] == [COUNTS[j] for j in LARGEST_FIRST]
    present = [0, 1, 2, 4]
    expected = precision_recall_fscore_support(
        labels.numpy(), probabilities.argmax(1).numpy(), labels=present, zero_division=0
    )
    by_name = {each.name: each for each in found.classes}
    own = [by_name[NAMES[j]] for j in present]
    got = [(e.precision.value, e.recall.value, e.f1, e.recall.total) for e in own]
    np.testing.assert_allclose(np.array(got, dtype=float), np.array(expected).T)
    assert found.macro_f1 == pytest.approx(expected[2].mean())
    assert found.mean_of_classes == pytest.approx(expected[1].mean())
    untested = by_name["d"]
    assert untested.recall.value is None and untested.f1 is None
    assert untested.precision.total == (probabilities.argmax(1) == 3).sum() > 0


def test_accuracies_are_those_of_a_loop(tested):
    probabilities, labels = tested
    found = findings(probabilities, labels, NAMES, COUNTS)
    right = [int(p.argmax()) == int(y) for p, y in zip(probabilities, labels, strict=True)]
    assert found.accuracy() == Share(sum(right), 300)
    groups = {"c": "many", "a": "many", "e": "medium", "b": "few", "d": "few"}
    assert {each.name: each.group for each in found.classes} == groups
    few = [r for r, y in zip(right, labels.tolist(), strict=True) if y in (1, 3)]
    assert found.accuracy("few") == Share(sum(few), len(few))
    # As if the test part had as many images of each class as training: class d has none to count.
    mixed = sum(
        COUNTS[j]
        * sum(r for r, y in zip(right, labels, strict=True) if y == j)
        / (labels == j).sum()
        for j in (0, 1, 2, 4)
    )
    assert found.accuracy_under() == pytest.approx(float(mixed) / (40 + 7 + 90 + 12))


def test_confusions_are_counted_and_the_surely_frequent_come_first(tested):
    probabilities, labels = tested
    found = findings(probabilities, labels, NAMES, COUNTS).confusions
    said = probabilities.argmax(1)
    expected = {
        (NAMES[t], NAMES[s]): int(((labels == t) & (said == s)).sum())
        for t in range(5)
        for s in range(5)
        if t != s
    }
    got = {(each.true, each.said): each.images.images for each in found}
    assert got == {pair: images for pair, images in expected.items() if images}
    assert all(each.images.total == int((labels == NAMES.index(each.true)).sum()) for each in found)
    ends = [each.images.interval[0] for each in found]
    assert ends == sorted(ends, reverse=True)


def test_seven_of_twelve_matter_more_than_one_of_one_or_forty_of_two_hundred():
    # True and said: 12 of a (7 for b), one of b (for a), 200 of c (40 for a).
    cases = [(0, 0)] * 5 + [(0, 1)] * 7 + [(1, 0)] + [(2, 2)] * 160 + [(2, 0)] * 40
    labels, said = torch.tensor(cases).T
    first, *rest = findings(torch.eye(3)[said], labels, "abc", (12, 1, 200)).confusions
    assert (first.true, first.said, first.images) == ("a", "b", Share(7, 12))
    assert len(rest) == 2


@pytest.mark.parametrize("group", ["all", "many", "medium", "few"])
def test_calibration_error_is_that_of_a_loop(tested, group):
    probabilities, labels = tested
    members = {"all": range(5), "many": (2, 0), "medium": (4,), "few": (1, 3)}[group]
    bins = [[] for _ in range(BINS)]
    for p, y in zip(probabilities.tolist(), labels.tolist(), strict=True):
        if y in members:
            sure = max(p)
            bins[max(1, math.ceil(sure * BINS)) - 1].append((sure, p.index(sure) == y))
    images = sum(map(len, bins))
    gaps = [abs(sum(sure for sure, _ in b) - sum(right for _, right in b)) for b in bins]
    found = findings(probabilities, labels, NAMES, COUNTS).reliability[group]
    assert found.ece == pytest.approx(sum(gaps) / images)
    assert found.confidence == pytest.approx(sum(s for b in bins for s, _ in b) / images)
    assert found.right == Share(sum(r for b in bins for _, r in b), images)


def test_the_end_of_a_bin_is_in_it():
    confidence = torch.tensor([1.0, 0.99, 0.2, 0.19, 0.4, 0.35, 0.35], dtype=torch.float64)
    others = ((1 - confidence) / 6)[:, None].repeat(1, 6)
    probabilities = torch.cat([confidence[:, None], others], 1)
    found = reliability(probabilities, torch.tensor([0, 1, 0, 1, 0, 1, 1]))
    assert [(b.confidence, b.right) for b in found.bins] == [
        (pytest.approx(0.195), Share(1, 2)),
        (pytest.approx(1.1 / 3), Share(1, 3)),
        (pytest.approx(0.995), Share(1, 2)),
    ]


def test_a_group_without_test_images_has_no_calibration():
    found = findings(torch.eye(5)[[2, 0]], torch.tensor([2, 0]), NAMES, COUNTS)
    assert found.reliability.keys() == {"all", "many"}
    assert found.accuracy("few").value is None


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 60), st.integers(1, 30))
def test_surest_mistakes(seed, classes, images, limit):
    probabilities = torch.randn(images, classes, generator=seeded(seed)).softmax(1)
    labels = torch.randint(classes, (images,), generator=seeded(seed + 1))
    chosen = surest_mistakes(probabilities, labels, limit)
    wrong = (probabilities.argmax(1) != labels).nonzero().flatten().tolist()
    assert set(chosen) <= set(wrong) and len(set(chosen)) == len(chosen) <= limit
    sure = probabilities.max(1).values[chosen].tolist()
    assert sure == sorted(sure, reverse=True)
    of_class = torch.bincount(labels[chosen], minlength=classes).tolist()
    allowed = max(3, -(-limit // classes))
    assert max(of_class) <= allowed
    # What is left out is less sure than all that are shown, or of a class that has its share.
    if len(chosen) < limit:
        assert all(of_class[labels[i]] == allowed for i in wrong if i not in chosen)
    else:
        left = [i for i in wrong if i not in chosen and of_class[labels[i]] < allowed]
        assert all(probabilities[i].max() <= sure[-1] for i in left)


def test_nearest_is_by_angle():
    others = torch.tensor([[10.0, 0.0], [0.1, 0.1], [0.0, 3.0]])
    index, cosine = nearest(torch.tensor([[2.0, 2.1], [0.0, 0.5]]), others)
    assert index.tolist() == [1, 2]
    assert cosine.tolist() == pytest.approx([(2 + 2.1) / (2 * (4 + 2.1**2)) ** 0.5, 1.0])
