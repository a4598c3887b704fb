"""Which training images an epoch shows: instance-, class-, effective-number-, CBEN-balanced, ...

All are `torch.utils.data.Sampler`s over `labels`; they differ in one line, the sampling weight
of a class. With n_j images in class j and rho_j the weight of one image of it,

    P(class j) = n_j rho_j / sum_i n_i rho_i,      images of a class equally likely.

Drawing the class first and then the image keeps every step O(N log C) and vectorised, with no limit
on N (`torch.multinomial` stops at 2^24 images). All take

    labels:       (N,) integers from 0; of a data set, `Subset` or `ConcatDataset`: `labels_of`.
    num_samples:  length of an epoch, N by default.
    generator:    source of randomness; None is torch's default generator.

With several processes each takes its share: see `DistributedSamplerWrapper`.
"""

import itertools
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Sampler, Subset

from gcl_core.data.imbalance import HOW_TO_NUMBER, class_counts_of
from gcl_core.errors import GCLError
from gcl_core.losses.clouds import Counts, checked_counts, cloud_sizes
from gcl_core.losses.criterion import check_generator
from gcl_core.processes import several


def labels_of(dataset: Dataset[Any]) -> Tensor:
    """Labels (N,) of a data set with `targets` or `labels`, as torchvision's have, or of its parts.

    A `Subset` and a `ConcatDataset` are followed to what they are made of; others are refused.
    """
    if isinstance(dataset, Subset):
        indices = torch.as_tensor(dataset.indices, device="cpu")
        if indices.dtype == torch.bool:
            raise GCLError("a Subset takes indices, not booleans: give mask.nonzero()[0] (NumPy)")
        return labels_of(dataset.dataset)[indices.long()]
    if isinstance(dataset, ConcatDataset):
        return torch.cat([labels_of(part) for part in dataset.datasets])
    for name in ("targets", "labels"):
        if hasattr(dataset, name):
            return checked_labels(getattr(dataset, name))
    raise GCLError(
        f"{type(dataset).__name__} has neither targets nor labels: give the labels of its images"
    )


def checked_labels(labels: Any) -> Tensor:
    """A tensor, array, list or Series of labels as (N,) int64 on a CPU; others are refused."""
    if isinstance(labels, Dataset):
        raise GCLError("labels must be (N,), got a data set: give labels_of(dataset)")
    try:  # a Series by way of numpy: torch would ask it for the rows that are labelled 0, 1, ...
        labels = labels.cpu() if isinstance(labels, Tensor) else torch.from_numpy(np.array(labels))
    except (TypeError, ValueError):
        raise GCLError(f"labels must be integers: {HOW_TO_NUMBER}") from None
    if labels.ndim != 1:
        hint = "give labels.argmax(1) of one-hot rows, labels.flatten() of a column"
        shape = tuple(labels.shape)
        raise GCLError(f"labels must be (N,), got {shape}; {hint}; see labels_of(dataset)")
    if labels.is_floating_point() and bool(labels.isnan().any()):
        place = int(labels.isnan().nonzero()[0])
        raise GCLError(f"image {place} has no label (NaN): leave such images out")
    if len(labels) and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise GCLError(f"labels must be integers, got {labels.dtype}: {HOW_TO_NUMBER}")
    return labels.long()  # torch takes uint8 for a mask, and no other short type, as an index


class _BalancedSampler(Sampler[int]):
    """Draws images with replacement, image i with probability `weights[i]`.

    Attributes:
        class_counts: (C,) int64, images of each class; C is the largest label + 1.
        class_probabilities: (C,) float64, summing to 1; 0 for a label that does not occur.
        weights: (N,) float64, summing to 1; the probability of each image in one draw.
    """

    power = 0.0

    def __init__(
        self,
        labels: Tensor | Sequence[int],
        *,
        num_samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        labels = checked_labels(labels)
        self.class_counts = class_counts_of(labels)
        if num_samples is not None and not (isinstance(num_samples, Integral) and num_samples >= 1):
            raise GCLError(f"num_samples must be a whole number >= 1, got {num_samples!r}")
        check_generator(generator)
        if generator is not None and generator.device.type != "cpu":
            raise GCLError(f"a sampler's generator must be on the CPU, got {generator.device}")
        self.num_samples = len(labels) if num_samples is None else num_samples
        self.generator = generator
        counts = self.class_counts.double()
        present = counts > 0
        mass = torch.zeros_like(counts)
        mass[present] = counts[present] * self._image_weights(counts[present])
        self.class_probabilities = mass / mass.sum()
        self.weights = (self.class_probabilities / counts.clamp(min=1))[labels]
        self._by_class = torch.argsort(labels, stable=True)
        self._start = self.class_counts.cumsum(0) - self.class_counts

    def _image_weights(self, counts: Tensor) -> Tensor:
        """Weight rho_j of one image of each class, up to a factor; counts (C,) are positive."""
        return counts**self.power

    def draw(self) -> Tensor:
        """One epoch of image indices, (num_samples,) int64."""
        uniform = torch.rand(
            (2, self.num_samples), dtype=torch.float64, generator=self.generator, device="cpu"
        )
        edges = self.class_probabilities.cumsum(0)
        edges[-1] = 1.0  # a sum rounded below 1 must not let a draw fall past the last class
        classes = torch.searchsorted(edges, uniform[0], right=True)
        within = (uniform[1] * self.class_counts[classes]).long()
        return self._by_class[self._start[classes] + within]

    def __iter__(self) -> Iterator[int]:
        yield from self.draw().tolist()

    def __len__(self) -> int:
        return self.num_samples


class InstanceBalancedSampler(_BalancedSampler):
    """Every image equally often: the ordinary shuffled epoch, without replacement; rho_j = 1.

    `num_samples` above N starts a further shuffle (Kang et al. 2020, "instance-balanced").
    """

    def draw(self) -> Tensor:
        """One epoch of image indices, (num_samples,) int64, a permutation when that is N."""
        total = len(self.weights)
        rounds = -(-self.num_samples // total)
        shuffles = [
            torch.randperm(total, generator=self.generator, device="cpu") for _ in range(rounds)
        ]
        return torch.cat(shuffles)[: self.num_samples]


class ClassBalancedSampler(_BalancedSampler):
    """Every class equally often; rho_j = 1 / n_j (Kang et al. 2020, "class-balanced")."""

    power = -1.0


class SquareRootSampler(_BalancedSampler):
    """Classes by the square root of their size; rho_j = n_j^(-1/2) (Kang et al. 2020)."""

    power = -0.5


class ReversedSampler(_BalancedSampler):
    """Rare classes most often, P(class j) = (1 / n_j) / sum_i (1 / n_i); rho_j = n_j^(-2).

    The sampler of BBN's re-balancing branch (Zhou et al. 2020).
    """

    power = -2.0


def effective_weights(counts: Tensor, beta: Tensor | float) -> Tensor:
    """rho_j = (1 - beta_j) / (1 - beta_j^n_j), exact for beta near 1.

    Shape:
        counts: (C,) float64, positive; beta: (C,) or one for all, in [0, 1); returns (C,).
    """
    beta = torch.as_tensor(beta, dtype=torch.float64, device=counts.device)
    return (1 - beta) / -torch.expm1(counts * torch.log(beta))


class EffectiveNumberSampler(_BalancedSampler):
    """Classes in proportion to n_j / effective number; rho_j = (1 - beta) / (1 - beta^n_j).

    Args:
        beta: in [0, 1); 0 is instance-balanced, beta -> 1 is class-balanced. Default 0.9999, the
            value of Cui et al. (2019) for CIFAR.
        labels, num_samples, generator: as for all samplers, see the module.
    """

    def __init__(
        self,
        labels: Tensor | Sequence[int],
        beta: float = 0.9999,
        *,
        num_samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if not 0 <= beta < 1:
            raise GCLError(f"beta must be in [0, 1), got {beta}")
        self.beta = beta
        super().__init__(labels, num_samples=num_samples, generator=generator)

    def _image_weights(self, counts: Tensor) -> Tensor:
        return effective_weights(counts, self.beta)


def check_cben(a: float, b: float) -> None:
    """Refuse an a, or an a + b, that is no beta: see `CBENSampler`."""
    if not (0 <= a < 1 and 0 <= a + b < 1):
        raise GCLError(f"a and a + b must be in [0, 1), got a = {a}, b = {b}")


def cben_weights(counts: Tensor, a: float, b: float) -> Tensor:
    """rho_j of `CBENSampler`, (C,) float64 up to a factor; counts (C,) are positive."""
    sizes = cloud_sizes(counts) if len(counts) > 1 else torch.zeros_like(counts)
    return effective_weights(counts, a + b * sizes)


class CBENSampler(_BalancedSampler):
    """Class-based effective number (Equations 13, 14): beta grows with the class's cloud size.

        beta_j = a + b * delta_j,   delta = cloud_sizes(class_counts)
        rho_j = (1 - beta_j) / (1 - beta_j^n_j)

    Args:
        a: beta of the head class, in [0, 1). Default 0.9999: the published code; the paper's own
            value is not known.
        b: range of beta, with a + b in [0, 1). Default 1e-5: the published code. At these values
            the probabilities differ from `EffectiveNumberSampler(beta=a)` by less than 0.1 % on
            CIFAR-10-LT at ratios 100 and 200, and by 0.13 % at 50; by more with more images.
        labels, num_samples, generator: as for all samplers, see the module.
    """

    def __init__(
        self,
        labels: Tensor | Sequence[int],
        a: float = 0.9999,
        b: float = 1e-5,
        *,
        num_samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check_cben(a, b)
        self.a, self.b = a, b
        super().__init__(labels, num_samples=num_samples, generator=generator)

    def _image_weights(self, counts: Tensor) -> Tensor:
        return cben_weights(counts, self.a, self.b)


class DistributedSamplerWrapper(Sampler[int]):
    """One process's share of what a sampler draws, for a `DataLoader` in each of several.

    Every process draws the same epoch and takes each R-th image of it, beginning with its rank: a
    batch of all together is the batch of R times the size in one process. All get as many images;
    where they do not divide, the first are drawn again at the end, as by torch's own
    `DistributedSampler`. It has no `set_epoch`: the generator goes on from epoch to epoch.

    Args:
        sampler: one of this module, or another with a `generator` that is seeded alike in every
            process.
        num_replicas: R, the number of processes; None: of torch's process group.
        rank: of this process, from 0; None: in torch's process group.

    Raises:
        GCLError: a sampler without a generator, a rank out of range, or no process group.
    """

    def __init__(
        self, sampler: Any, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        if getattr(sampler, "generator", None) is None:
            raise GCLError("give the sampler a generator, seeded alike in every process")
        if num_replicas is None or rank is None:
            if not several():
                raise GCLError("give num_replicas and rank, or call init_process_group before")
            num_replicas = torch.distributed.get_world_size()
            rank = torch.distributed.get_rank()
        if not 0 <= rank < num_replicas:
            raise GCLError(f"rank must be >= 0 and below num_replicas {num_replicas}, got {rank}")
        self.sampler, self.num_replicas, self.rank = sampler, num_replicas, rank

    def __iter__(self) -> Iterator[int]:
        drawn = itertools.cycle(list(self.sampler))
        return itertools.islice(drawn, self.rank, len(self) * self.num_replicas, self.num_replicas)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.num_replicas)


def cben_shares(class_counts: Counts, a: float = 0.9999, b: float = 1e-5) -> Tensor:
    """Share of each class in what `CBENSampler` draws, (C,) float64, without labels.

    Args:
        class_counts: (C,) images of each class, all positive.
        a, b: as for `CBENSampler`; b = 0 is `EffectiveNumberSampler` with beta = a.
    """
    check_cben(a, b)
    counts = checked_counts(class_counts)
    mass = counts * cben_weights(counts, a, b)
    return mass / mass.sum()
