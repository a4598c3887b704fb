"""An embedding in the plane: two-dimensional features, which a picture shows as they are.

A small network with two outputs, trained in a plain loop on three digits. A cosine classifier sees
only directions, so each class owns an arc of the circle, and all of it can be computed exactly.
Angles are in degrees, counter-clockwise from the first axis.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.data.dataset import Split
from gcl_core.data.imbalance import nested_subset
from gcl_core.data.load import DataSettings
from gcl_core.data.sources import read_digits
from gcl_core.networks.network import CosineClassifier, initialise

DIGITS = (3, 5, 9)  # many, medium and few; a choice of this study: 3 and 9, 3 and 5 look alike
COUNTS = (120, 30, 8)
HIDDEN = 64


@dataclass(frozen=True)
class FewDigits:
    """Some of the digits as points for a small network, centred on the training images.

    Attributes:
        class_names: C digits.
        class_counts: C training counts.
        train_images: (N, 64) float32; train_labels: (N,) int64 in [0, C).
        test_images, test_labels: the same, 50 images of each class.
    """

    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def few_digits(seed: int = 0) -> FewDigits:
    """Long-tailed training images and balanced test images of `DIGITS`, drawn by `seed`."""
    whole, digits = read_digits("", DataSettings(data_seed=seed)), torch.tensor(DIGITS)

    def chosen(part: Split) -> tuple[Tensor, Tensor]:
        own = torch.isin(part.labels, digits)
        labels = torch.searchsorted(digits, part.labels[own])
        return part.images.pixels[own].flatten(1) / 255, labels

    images, labels = chosen(whole.train)
    kept = nested_subset(labels, list(COUNTS), torch.Generator().manual_seed(seed))
    test_images, test_labels = chosen(whole.test)
    centre = images[kept].mean(0)
    return FewDigits(
        class_names=tuple(map(str, DIGITS)),
        class_counts=COUNTS,
        train_images=images[kept] - centre,
        train_labels=labels[kept],
        test_images=test_images - centre,
        test_labels=test_labels,
    )


@dataclass(frozen=True)
class Plane:
    """An embedding in the plane as it is after an epoch.

    Attributes:
        anchors: (C, 2) rows of the classifier.
        train: (N, 2) features of the training images; test: (M, 2) of the test images.
    """

    anchors: Tensor
    train: Tensor
    test: Tensor


def train_plane(
    data: FewDigits,
    criterion: nn.Module,
    *,
    epochs: int = 200,
    seed: int = 0,
    keep: Collection[int] = (),
) -> dict[int, Plane]:
    """Train a network with two features in a plain loop; returns its planes by epoch, in order.

    64 pixels, 64 ReLU, 2 features, and a cosine classifier whose anchors start at equal angles.
    Adam on all images at once, so that an epoch is one step; its rate of 0.01 and the 200 epochs
    are choices of this study: seconds, and every class is learned.

    Args:
        data: what to learn.
        criterion: loss of (N, C) cosines and (N,) labels, such as `GCLLoss`.
        seed: of the initial weights.
        keep: epochs to return besides the last; 0 is before the first.
    """
    classes, pixels = len(data.class_names), data.train_images.shape[1]
    with torch.random.fork_rng(devices=[]):  # layers draw weights as they are made, for nothing
        features = nn.Sequential(nn.Linear(pixels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))
        head = CosineClassifier(2, classes)
    initialise(features, torch.Generator().manual_seed(seed))
    angles = 2 * math.pi * torch.arange(classes) / classes
    with torch.no_grad():
        head.weight.copy_(torch.stack([angles.cos(), angles.sin()], 1))
    optimizer = torch.optim.Adam([*features.parameters(), *head.parameters()], lr=0.01)
    criterion.train()
    planes = {}
    for epoch in range(epochs + 1):
        if epoch in keep or epoch == epochs:
            with torch.no_grad():
                train, test = features(data.train_images), features(data.test_images)
            planes[epoch] = Plane(head.weight.detach().clone(), train, test)
        if epoch < epochs:
            loss = criterion(head(features(data.train_images)), data.train_labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return planes


@dataclass(frozen=True)
class Boundary:
    """Where two classes that are neighbours on the circle have the same cosine: their bisector.

    Attributes:
        first, second: the classes; `second` follows `first` counter-clockwise.
        angle: of the bisector.
        half: half of the angle from the first anchor to the second.
    """

    first: int
    second: int
    angle: float
    half: float

    def moved(self, shift: float) -> float:
        """Angle at which cos theta_first - cos theta_second = shift, as training has it.

        cos theta_first - cos theta_second = -2 sin(psi) sin(half),  psi = angle - bisector

        A positive shift goes towards the first anchor. Where no direction has such a difference it
        is the one with the largest, a right angle away.
        """
        largest = 2 * math.sin(math.radians(self.half))
        if abs(shift) >= largest:
            return self.angle - math.copysign(90, shift) if shift else self.angle
        return self.angle - math.degrees(math.asin(shift / largest))


def boundaries(anchors: Tensor) -> list[Boundary]:
    """The C boundaries of a cosine classifier in the plane, counter-clockwise.

    Shape:
        anchors: (C, 2), C >= 2.
    """
    angles = directions(anchors).tolist()
    order = sorted(range(len(angles)), key=lambda j: angles[j])
    found = []
    for j, following in zip(order, [*order[1:], order[0]], strict=True):
        turn = 360 if following == order[0] else 0
        half = (angles[following] + turn - angles[j]) / 2
        found.append(Boundary(j, following, angles[j] + half, half))
    return found


def directions(points: Tensor) -> Tensor:
    """Angle of each point, in [0, 360): (N, 2) to (N,) float64."""
    x, y = points.double().unbind(1)
    return torch.rad2deg(torch.atan2(y, x)) % 360


def circle_shares(anchors: Tensor) -> Tensor:
    """Share of all directions that a cosine classifier gives to each class: (C, 2) to (C,), sum 1.

    An arc reaches half of the way to either neighbour.
    """
    shares = torch.zeros(len(anchors), dtype=torch.float64)
    for boundary in boundaries(anchors):
        shares[boundary.first] += boundary.half / 360
        shares[boundary.second] += boundary.half / 360
    return shares


def angles_to_boundary(features: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    """Angle from each feature to the nearer end of its own class's arc; negative outside of it.

    Shape:
        features: (N, 2); labels: (N,); anchors: (C, 2); returns (N,) float64.
    """
    start, end = torch.zeros(2, len(anchors), dtype=torch.float64)
    for boundary in boundaries(anchors):
        end[boundary.first] = boundary.angle
        start[boundary.second] = boundary.angle
    angle = directions(features)
    inside = (angle - start[labels]) % 360 <= (end - start)[labels] % 360
    distance = torch.minimum(_between(angle, start[labels]), _between(angle, end[labels]))
    return torch.where(inside, distance, -distance)


def class_medians(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Median over the images of each class: (N,) values to (C,)."""
    return torch.stack([values[labels == j].median() for j in range(num_classes)])


def class_accuracies(features: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    """Share of the images of each class that a cosine classifier gets right, in percent: (C,)."""
    right = ((features @ F.normalize(anchors).T).argmax(1) == labels).double()
    return torch.stack([100 * right[labels == j].mean() for j in range(len(anchors))])


def _between(angle: Tensor, other: Tensor) -> Tensor:
    """Smaller angle between two directions, in [0, 180]."""
    return 180 - ((angle - other) % 360 - 180).abs()
