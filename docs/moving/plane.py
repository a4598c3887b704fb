"""A network with two features by epoch, with cross-entropy and with GCL; trained in two seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gcl_core.analysis.planar_network import (
    FewDigits,
    Plane,
    boundaries,
    class_accuracies,
    directions,
    few_digits,
    train_plane,
)
from gcl_core.figures.looks import Look
from gcl_core.losses.clouds import cloud_sizes
from gcl_core.losses.gcl import GCLLoss
from moving.cloud import FIFTHS
from moving.drawing import (
    BLACK,
    Moved,
    Panel,
    Picture,
    Point,
    Slider,
    arc,
    arrow,
    group_looks,
    towards,
    wedge,
)

EPOCHS = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200]
SCALE = 10.0  # as notebook 5
MULTIPLIERS = {"CE": 0.0, "GCL": 1.0}  # k of each loss
RIM = 2.0  # of the picture, in median lengths of a training feature


@cache
def trained() -> tuple[FewDigits, dict[str, dict[int, Plane]]]:
    """The digits, and the plane by loss and epoch."""
    digits = few_digits()
    planes = {}
    for name, multiplier in MULTIPLIERS.items():
        draws = torch.Generator().manual_seed(0)
        options = {"scale": SCALE, "noise_multiplier": multiplier, "generator": draws}
        loss = GCLLoss(digits.class_counts, **options)
        planes[name] = train_plane(digits, loss, keep=EPOCHS)
    return digits, planes


@dataclass(frozen=True)
class Scene:
    """A plane in the picture's coordinates; angles in degrees, and C of each but `shades`.

    Attributes:
        anchors: directions.
        ends: of the arc that a class owns.
        shades: wedges between a boundary and where a part of a cloud puts it.
        train, test: points of the images.
        right: test images that are classified right, in percent.
    """

    anchors: list[float]
    ends: list[tuple[float, float]]
    shades: list[list[Point]]
    train: list[list[Point]]
    test: list[list[Point]]
    right: list[float]

    @classmethod
    def of(cls, plane: Plane, digits: FewDigits, clouds: Sequence[float]) -> "Scene":
        """What is drawn of a plane; clouds are the C full ones, k delta_j."""
        lines = boundaries(plane.anchors)
        low = {line.second: line.angle for line in lines}
        high = {line.first: line.angle for line in lines}
        classes = range(len(plane.anchors))
        return cls(
            anchors=directions(plane.anchors).tolist(),
            ends=[(low[j], low[j] + (high[j] - low[j]) % 360) for j in classes],
            shades=[
                wedge(line.angle, line.moved(sign * clouds[j] * end), RIM)
                for line in lines
                for j, sign in ((line.first, 1), (line.second, -1))
                for end in FIFTHS
            ],
            train=_by_class(plane, plane.train, digits.train_labels),
            test=_by_class(plane, plane.test, digits.test_labels),
            right=class_accuracies(plane.test, digits.test_labels, plane.anchors).tolist(),
        )


def _by_class(plane: Plane, features: Tensor, labels: Tensor) -> list[list[Point]]:
    """Features of each class in median lengths; what lies beyond the rim is drawn at it."""
    points = features / plane.train.norm(dim=1).median()
    length = points.norm(dim=1, keepdim=True).clamp(min=1e-12)
    inside = points / length * length.clamp(max=0.96 * RIM)
    return [inside[labels == j].tolist() for j in range(len(plane.anchors))]


def picture() -> Picture:
    """Features, anchors, boundaries and clouds by epoch."""
    digits, planes = trained()
    sizes = cloud_sizes(digits.class_counts)
    counts = zip(digits.class_names, digits.class_counts, strict=True)
    looks = group_looks(digits.class_counts, [f"{name}, of {n} images" for name, n in counts])
    epoch = Slider("epoch", EPOCHS, EPOCHS[-1], plays=True)
    made = Picture(
        "Three digits in a network with two features.",
        "Dots are training images, pale ones test images, arrows the anchors. The rim has the"
        " colour of the class that a direction is given to. Grey: where the clouds put the"
        " boundaries in training, a fifth of all steps each.",
        epoch,
    )

    def add_panel(name: str) -> list[Moved]:
        clouds = (MULTIPLIERS[name] * sizes).tolist()
        scenes = {e: Scene.of(plane, digits, clouds) for e, plane in planes[name].items()}
        panel = Panel.round(
            made,
            name,
            "Features of the training and test images, the anchors and the boundaries of the"
            " classes.",
            middle=0, half=2.3, height=360,
        )  # fmt: skip

        def draw(kind: str, look: Look, of: Callable[[Scene], Any]) -> None:
            panel.draw(kind, look, [epoch], lambda e: of(scenes[e]))

        def add_class(j: int) -> Moved:
            look, name = looks[j], digits.class_names[j]
            draw("thick", look, lambda scene: arc(*scene.ends[j], RIM))
            draw("thin", BLACK, lambda scene: [(0, 0), towards(scene.ends[j][0], RIM)])
            draw("pale", look, lambda scene: scene.test[j])
            draw("dots", look, lambda scene: scene.train[j])
            draw("line", BLACK, lambda scene: arrow(scene.anchors[j], 0.75 * RIM, 0.95 * RIM))

            def tip(e: float) -> Point:
                return towards(scenes[e].anchors[j], 1.1 * RIM)

            panel.write(name, look, [epoch], tip, "middle")
            return Moved([epoch], lambda e: f"{scenes[e].right[j]:.0f}")

        for i in range(len(scenes[0].shades) if any(clouds) else 0):
            draw("shade", BLACK, lambda scene, i=i: scene.shades[i])
        return [add_class(j) for j in range(len(looks))]

    columns = [add_panel(name) for name in planes]
    made.header("test images right (%)", *planes)
    for look, *cells in zip(looks, *columns, strict=True):
        made.row(look, *cells)
    return made
