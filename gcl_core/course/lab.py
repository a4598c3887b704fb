"""What the lab's notebooks share: small data, a small network, and its training in seconds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from torch import Tensor, nn

from gcl_core.analysis.intervals import detectable as detectable  # notebook 3 says lab.detectable
from gcl_core.course.notebook import picture
from gcl_core.data.dataset import LongTailedDataset
from gcl_core.data.imbalance import by_size
from gcl_core.data.load import load_dataset
from gcl_core.methods.registry import resolve
from gcl_core.networks.network import CosineClassifier, initialise
from gcl_core.training.evaluation import Tally

HIDDEN = 64
# Choices of the lab: every class is learned within seconds, on clothes and on digits.
EPOCHS, BATCH, LR, MOMENTUM, WEIGHT_DECAY = 20, 64, 0.02, 0.9, 0.005


@dataclass(frozen=True)
class LabData:
    """Training and test images of a long-tailed data set, as vectors.

    Attributes:
        dataset: class names, groups, and `train.images.picture(i)`.
        x, y: (N, D) float32, centred and of mean variance 1, and (N,) labels of the training part.
        x_test, y_test: the same of the test part, by the training part's mean and deviation.
    """

    dataset: LongTailedDataset
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def classes(self) -> int:
        return self.dataset.num_classes

    @cached_property
    def counts(self) -> Tensor:
        """Training images of each class, (C,) int64."""
        return torch.tensor(self.dataset.class_counts)

    @cached_property
    def from_head_to_tail(self) -> list[int]:
        """Class indices, the most training images first."""
        return by_size(self.dataset.class_counts)

    @property
    def few(self) -> list[int]:
        return self.dataset.groups["few"]


def lab_data(dataset: str, imbalance_ratio: float = 0.0, seed: int = 0) -> LabData:
    """A data set as vectors: features where it has them, else pixels.

    Args:
        dataset: "clothes", "digits", or "folder:PATH" with small images of one size.
        imbalance_ratio: n_max / n_min of the training part; 0: the data as they are.
        seed: of the split and the subset.

    Raises:
        GCLError: as `load_dataset`.
    """
    changes: dict[str, Any] = {"imbalance_ratio": imbalance_ratio or None, "data_seed": seed}
    data = load_dataset(resolve(dataset, "ce", **changes).data)
    x, x_test = (
        next(iter(part.images.batches([torch.arange(len(part))]))).flatten(1).float()
        for part in (data.train, data.test)
    )
    mean, deviation = x.mean(0), x.std()
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    return LabData(data, x, data.train.labels, x_test, data.test.labels)


def network(data: LabData, seed: int, *, cosine: bool = False) -> nn.Sequential:
    """D inputs, 64 ReLU, C logits; or C cosines. Weights are drawn by the seed."""
    with torch.random.fork_rng(devices=[]):  # layers draw weights as they are made, for nothing
        head = CosineClassifier(HIDDEN, data.classes) if cosine else None
        layers = [nn.Linear(data.x.shape[1], HIDDEN), nn.ReLU()]
        model = nn.Sequential(*layers, head or nn.Linear(HIDDEN, data.classes))
    initialise(model, torch.Generator().manual_seed(seed))
    return model


def optimizer_of(weights: nn.Module) -> torch.optim.SGD:
    """The lab's optimiser of the weights of a module."""
    return torch.optim.SGD(
        weights.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


def train(
    data: LabData,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    seed: int = 0,
    *,
    cosine: bool = False,
) -> nn.Sequential:
    """Train the `network` for 20 epochs; notebook 1 of the lab has the same loop, written out.

    Args:
        data: what to learn.
        loss_of: mean loss of (n, C) logits, or cosines, and (n,) labels.
        seed: of the weights and of the order of the images.
        cosine: whether the classifier gives cosines.
    """
    model, order = network(data, seed, cosine=cosine), torch.Generator().manual_seed(seed)
    optimizer = optimizer_of(model)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(data.y), generator=order).split(BATCH):
            loss = loss_of(model(data.x[batch]), data.y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def recalls(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the images of each class that are right, in percent: (N, C), (N,) to (C,)."""
    per_class = Tally(logits.shape[1]).add(logits.detach(), labels).accuracies({})["per_class"]
    return torch.tensor([torch.nan if value is None else value for value in per_class])


def moved(what: str, before: float, after: float) -> str:
    """A sentence about a number in percent, with the verb that its shown digits allow."""
    one, other = f"{before:.1f}", f"{after:.1f}"
    if one == other:
        return f"{what} stays at {one} %."
    return f"{what} {'rises' if after > before else 'falls'} from {one} to {other} %."


def see(figure: Figure, alt: str, *sentences: str) -> None:
    """Display a figure, and below it what its numbers say."""
    display(picture(figure, alt))
    if sentences:
        display(Markdown(" ".join(sentences)))
