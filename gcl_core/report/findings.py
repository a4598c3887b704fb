"""What the test images say of a model: accuracy with its interval, confusions, calibration."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_core.data.imbalance import by_size, class_groups
from gcl_core.inference.calibration import BINS, expected_calibration_error
from gcl_core.training.evaluation import f1_score, macro_f1, weighted_accuracy

Z95 = 1.959964  # quantile of the normal distribution for intervals of 95 %


@dataclass(frozen=True)
class Share:
    """Some images out of `total`, as a proportion in [0, 1]."""

    images: int
    total: int

    @property
    def value(self) -> float | None:
        """Images / total; None without any image."""
        return self.images / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson (1927); [0, 1] without any image.

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
        """
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.images / self.total
        centre = p + Z95**2 / (2 * n)
        half = Z95 * (p * (1 - p) / n + (Z95 / (2 * n)) ** 2) ** 0.5
        low, high = ((centre + side) / (1 + Z95**2 / n) for side in (-half, half))
        return max(0.0, low), min(1.0, high)


def added(shares: Iterable[Share]) -> Share:
    """The share of all their images."""
    parts = list(shares)
    return Share(sum(each.images for each in parts), sum(each.total for each in parts))


@dataclass(frozen=True)
class ClassFinding:
    """One class.

    Attributes:
        group: "many", "medium" or "few".
        training: training images.
        recall: of its test images, those that were recognised: the accuracy of the class.
        precision: of the test images that were taken for it, those that are of it.
    """

    name: str
    group: str
    training: int
    recall: Share
    precision: Share

    @property
    def counts(self) -> tuple[int, int, int]:
        """Test images that are right, of the class, and taken for it: for `f1_score`."""
        return self.recall.images, self.recall.total, self.precision.total

    @property
    def f1(self) -> float | None:
        """F1 in [0, 1]; None without test images."""
        return f1_score(*self.counts)


@dataclass(frozen=True)
class Confusion:
    """How many of the test images of class `true` were taken for class `said`."""

    true: str
    said: str
    images: Share


@dataclass(frozen=True)
class Bin:
    """Test images whose class was said with about the same probability.

    Attributes:
        confidence: their mean probability of the class that was said.
        right: how many of them are of that class.
    """

    confidence: float
    right: Share


@dataclass(frozen=True)
class Reliability:
    """How far the probability of the class that is said can be trusted, in bins that are not empty.

    Attributes:
        bins: of equal widths; each begins above its lower end.
        ece: expected calibration error; above 0 by chance alone, the more so the fewer the images.
    """

    bins: tuple[Bin, ...]
    ece: float

    @property
    def right(self) -> Share:
        """Images whose class was said."""
        return added(each.right for each in self.bins)

    @property
    def confidence(self) -> float:
        """Mean probability of the class that was said."""
        return sum(b.confidence * b.right.total for b in self.bins) / self.right.total


@dataclass(frozen=True)
class Findings:
    """What the test images say of a model.

    Attributes:
        classes: the largest first.
        confusions: every pair that occurs, first those whose share of the class is surely large:
            by the lower end of its interval.
        reliability: of all test images ("all"), and of each group of classes that has any.
    """

    classes: tuple[ClassFinding, ...]
    confusions: tuple[Confusion, ...]
    reliability: dict[str, Reliability]

    @cached_property
    def tested(self) -> tuple[ClassFinding, ...]:
        """The classes that have test images."""
        return tuple(each for each in self.classes if each.recall.total)

    def accuracy(self, group: str | None = None) -> Share:
        """Test images that were recognised, of all classes or of one group."""
        return added(each.recall for each in self.classes if group in (None, each.group))

    def accuracy_under(self, weights: Sequence[float] | None = None) -> float:
        """Accuracy if test images had the classes' shares in training, or other weights.

        Args:
            weights: of each of the classes in `tested`; None: their training images.
        """
        recalls = [each.recall.images / each.recall.total for each in self.tested]
        return weighted_accuracy(recalls, weights or [each.training for each in self.tested])

    @property
    def mean_of_classes(self) -> float:
        """Accuracy if every class had as many test images as any other."""
        return self.accuracy_under([1.0] * len(self.tested))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have test images."""
        return macro_f1(each.counts for each in self.classes)


def findings(
    probabilities: Tensor, labels: Tensor, class_names: Sequence[str], class_counts: Sequence[int]
) -> Findings:
    """Count what the test images say; the class that is said is the most probable one.

    Args:
        probabilities: (N, C), N at least 1.
        labels: (N,) true classes.
        class_names, class_counts: name and training images of each of the C classes.
    """
    said = probabilities.argmax(1)
    pairs = Counter(zip(labels.tolist(), said.tolist(), strict=True))
    tests, taken = Counter(labels.tolist()), Counter(said.tolist())
    groups = class_groups(class_counts)
    group_of = {j: group for group, members in groups.items() for j in members}
    confusions = [
        Confusion(class_names[true], class_names[guess], Share(images, tests[true]))
        for (true, guess), images in sorted(pairs.items())
        if true != guess
    ]
    parts = {"all": torch.ones_like(labels, dtype=torch.bool)}
    parts |= {group: torch.isin(labels, torch.tensor(own)) for group, own in groups.items()}
    found = []
    for j in by_size(class_counts):
        recall, precision = (Share(pairs[j, j], of[j]) for of in (tests, taken))
        found.append(ClassFinding(class_names[j], group_of[j], class_counts[j], recall, precision))
    confusions.sort(key=lambda each: -each.images.interval[0])
    trust = {
        name: reliability(probabilities[of], labels[of]) for name, of in parts.items() if of.any()
    }
    return Findings(tuple(found), tuple(confusions), trust)


def reliability(probabilities: Tensor, labels: Tensor) -> Reliability:
    """Sort images into bins by the probability of the class that is said.

    Args:
        probabilities: (N, C), N at least 1.
        labels: (N,) true classes.
    """
    confidence, said = probabilities.double().max(1)
    number, right = (confidence * BINS).ceil().long(), said == labels
    members = [number == b for b in number.unique().tolist()]
    shares = (Share(int(right[own].sum()), int(own.sum())) for own in members)
    means = (float(confidence[own].mean()) for own in members)
    ece = expected_calibration_error(probabilities, labels)
    return Reliability(tuple(map(Bin, means, shares)), ece)


def surest_mistakes(probabilities: Tensor, labels: Tensor, limit: int = 24) -> list[int]:
    """Test images that were taken for another class, those with the highest probability first.

    No class has more than its share of the `limit`, nor fewer than three of its own are allowed:
    else the largest classes would fill the list.
    """
    confidence, said = probabilities.max(1)
    each = max(3, -(-limit // probabilities.shape[1]))
    shown: Counter[int] = Counter()
    chosen: list[int] = []
    for image in confidence.argsort(descending=True, stable=True).tolist():
        true = int(labels[image])
        if int(said[image]) != true and shown[true] < each:
            shown[true] += 1
            chosen.append(image)
    return chosen[:limit]


def nearest(features: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Of each feature (n, D), the index of the other (N, D) with the largest cosine, and that."""
    cosine, index = (F.normalize(features) @ F.normalize(others).T).max(1)
    return index, cosine
