"""The embedding of a trained network: features, t-SNE, and numbers that a picture cannot give.

A cosine classifier sees only directions, so everything here looks at features of unit length, also
where the classifier is linear: the same measure for every method.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE, trustworthiness
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from gcl_core.bars import Bar
from gcl_core.errors import GCLError
from gcl_core.networks.heads import ScaledHead
from gcl_core.training.evaluation import outputs_of
from gcl_core.training.two_stages import Run

BETWEEN = 20_000  # points of `shares_between`
ITERATIONS = 1000  # of t-SNE: scikit-learn's default


@torch.no_grad()
def features_of(run: Run, split: str = "test", limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Unit features f / |f| of a run's images, without augmentation, and their labels.

    Args:
        split: "train" or "test".
        limit: of about so many of them, see `thinned`; None: of all.

    Shape:
        returns (N, D) float32 and (N,) int64, in the order of the data set.
    """
    part = {"train": run.dataset.train, "test": run.dataset.test}[split]
    if limit is not None:
        part = part.subset(thinned(part.labels, limit))
    features = outputs_of(run.network.features, part, run.dataset, torch.device("cpu"))
    return F.normalize(features), part.labels


def class_anchors(run: Run) -> Tensor:
    """Unit anchors w_j / |w_j| of a run's classifier, (C, D); a bias is left out."""
    return F.normalize(_weights(run.network.head))


def weight_norms(run: Run) -> Tensor:
    """Length |w_j| of each class's weight vector, with the scale that LWS has learned: (C,)."""
    head = run.network.head
    norms = _weights(head).norm(dim=1)
    return norms * head.scales.detach().abs() if isinstance(head, ScaledHead) else norms


def _weights(head: nn.Module) -> Tensor:
    inner: Any = getattr(head, "head", head)  # LWS keeps the anchors one level down
    return inner.weight.detach()


def answer_shares(confusion: Tensor) -> Tensor:
    """Share of balanced images that are taken for each class: (C,) float64, sum 1.

    mean over the true classes i of P(answer j | i), so that the images need not be balanced.

    Shape:
        confusion: (C, C) images by true (row) and answered (column) class.
    """
    images = confusion.double()
    there = images[images.sum(1) > 0]
    return (there / there.sum(1, keepdim=True)).mean(0)


@torch.no_grad()
def shares_between(run: Run) -> Tensor:
    """Share of the space between the test images that belongs to each class: (C,), sum 1.

    Of points half-way between the features of two test images of different classes, drawn such
    that all pairs of classes come alike, the share that the run's classifier gives to each class.
    If no class had more room than another, each would have 1/C.
    """
    part, classes = run.dataset.test, run.dataset.num_classes
    features = outputs_of(run.network.features, part, run.dataset, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    alike = 1 / torch.bincount(part.labels, minlength=classes)[part.labels].double()
    one, other = alike.multinomial(2 * BETWEEN, True, generator=generator).chunk(2)
    apart = part.labels[one] != part.labels[other]
    between = (features[one[apart]] + features[other[apart]]) / 2
    answers = run.network.head(between).argmax(1)
    return torch.bincount(answers, minlength=classes).double() / len(answers)


def thinned(labels: Tensor, limit: int) -> Tensor:
    """Indices of about `limit` random images, (n,), sorted; all when there are no more than that.

    Each class in its proportion, rounded down, but one image of it at least. The same every time.
    """
    if len(labels) <= limit:
        return torch.arange(len(labels))
    generator = torch.Generator().manual_seed(0)
    chosen = []
    for j in labels.unique().tolist():
        members = (labels == j).nonzero().flatten()
        keep = max(1, len(members) * limit // len(labels))
        chosen.append(members[torch.randperm(len(members), generator=generator)[:keep]])
    return torch.cat(chosen).sort().values


def tsne(features: Tensor, *, perplexity: float, progress: str = "auto") -> Tensor:
    """A t-SNE map of unit features: started from PCA, with a fixed seed (van der Maaten 2008).

    Axes, sizes of clusters and distances between them have no meaning; who is whose neighbour has.
    The perplexity is lowered to (N - 1) / 3 where there are few images, as its inventors advise.

    Args:
        progress: the kind of its `Bar`.

    Shape:
        features: (N, D); returns (N, 2) float32.
    """
    perplexity = min(perplexity, (len(features) - 1) / 3)
    about: Any = {"init": "pca", "learning_rate": "auto", "random_state": 0}
    # scikit-learn calls nobody back, but prints every 50th iteration if it is asked to.
    mapper = TSNE(perplexity=perplexity, max_iter=ITERATIONS, verbose=2, **about)
    with Bar("t-SNE", ITERATIONS, "iteration", progress) as bar, redirect_stdout(_Reader(bar)):
        positions = mapper.fit_transform(F.normalize(features).numpy())
    return torch.from_numpy(positions)


class _Reader(io.TextIOBase):
    """Moves a bar by the iterations that are printed into it."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def write(self, text: str) -> int:
        """Take what is printed."""
        if found := re.match(r"\[t-SNE\] Iteration (\d+):", text):
            self.bar.update(int(found[1]) - self.bar.done)
        return len(text)


def map_of(run: Run, split: str, *, points: int, perplexity: float) -> tuple[Tensor, Tensor]:
    """A `tsne` map of about `points` images of a run: (n, 2) positions and their (n,) labels."""
    features, labels = features_of(run, split, points)
    return tsne(features, perplexity=perplexity), labels


def room(positions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Radius of each class in a map, in units of that of the whole map.

    sqrt(mean_i |x_i - c_j|^2) over the images of class j around their centre c_j, divided by the
    same over all images.

    Shape:
        positions: (N, 2); labels: (N,); returns (C,) float64, NaN for an absent class.
    """
    radii = []
    for chosen in [labels == labels, *(labels == j for j in range(num_classes))]:
        points = positions[chosen].double()
        radii.append((points - points.mean(0)).square().sum(1).mean().sqrt())
    return torch.stack(radii[1:]) / radii[0]


def neighbours_kept(features: Tensor, positions: Tensor, k: int = 10) -> float:
    """Trustworthiness of a map: 1 if the k nearest neighbours in it are neighbours in the space.

    Lower by the ranks of the wrong ones in the space; about 0.5 for a random map (Venna and Kaski
    2001, as scikit-learn has it).

    Raises:
        GCLError: k is not in [1, N / 2).
    """
    if not 1 <= k < len(features) / 2:
        raise GCLError(f"k must be at least 1 and below half of {len(features)} images, got {k}")
    return float(trustworthiness(F.normalize(features).numpy(), positions.numpy(), n_neighbors=k))


def angular_spread(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean angle in degrees between the features of a class and their mean direction.

    mean_i arccos(f_i . m_j),  m_j the unit vector along sum_i f_i / |f_i|

    Shape:
        features: (N, D); labels: (N,); returns (C,) float64, NaN for a class with fewer than two
        images, of which there is no spread.
    """
    unit = F.normalize(features.double())
    spread = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    for j in range(num_classes):
        members = unit[labels == j]
        if len(members) > 1:
            centre = F.normalize(members.sum(0), dim=0)
            spread[j] = _degrees(members @ centre).mean()
    return spread


def anchor_angles(anchors: Tensor) -> Tensor:
    """Angle in degrees between every two class anchors: (C, D) to (C, C) float64.

    If all C are equally far apart it is at most 180 / pi arccos(-1 / (C - 1)): the angle of a
    simplex (96.4 for 10 classes). NaN of an anchor with itself.
    """
    unit = F.normalize(anchors.double())
    return _degrees(unit @ unit.T).fill_diagonal_(torch.nan)


def overlap(features: Tensor, labels: Tensor, num_classes: int, k: int = 10) -> Tensor:
    """Share of the k nearest neighbours (by angle, itself excluded) that have another label.

    Compare classes only where they have equally many images, and more than k, such as in a
    balanced test set: a class of n <= k images cannot have an overlap below 1 - (n - 1) / k.

    Shape:
        features: (N, D), N > k; labels: (N,); returns (C,) float64 in [0, 1], NaN for an absent
        class.
    """
    search = NearestNeighbors(n_neighbors=k, metric="cosine").fit(features.double().numpy())
    nearest = torch.from_numpy(search.kneighbors(return_distance=False))
    others = (labels[nearest] != labels[:, None]).double().mean(1)
    return torch.stack([others[labels == j].mean() for j in range(num_classes)])


def group_means(values: Tensor, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean of (C,) values over the classes of each group, classes without a value left out."""
    return {group: float(values[list(classes)].nanmean()) for group, classes in groups.items()}


def _degrees(cosine: Tensor) -> Tensor:
    return torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))
