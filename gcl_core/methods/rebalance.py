"""Re-balancing after stage 1: what `rebalance` may be in the settings.

Most kinds turn the classifier of stage 1 into one that stage 2 trains on frozen features; one
without trainable weights needs no training. Where the backbone changes too (`on_images`), stage 2
trains, or at least runs, the whole network on images. A module, or a part of it, may have
`lr_factors`: factors of the learning rate, by the prefix of a weight's name in it.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_core.config import Config, kinds_of, value
from gcl_core.losses.priors import logit_adjustment
from gcl_core.networks.backbones import Backbone
from gcl_core.networks.heads import (
    CalibratedHead,
    NearestMeanHead,
    NormalisedHead,
    ScaledHead,
    ShiftedHead,
)
from gcl_core.networks.network import Network, initialise
from gcl_core.networks.oltr import MetaEmbedding, ModulatedBackbone, OLTRNetwork
from gcl_core.networks.tde import CounterfactualHead, MultiHeadClassifier
from gcl_core.processes import summed


@dataclass(frozen=True)
class RebalanceInputs:
    """What a re-balancing may use besides the classifier.

    Attributes:
        class_counts: (C,) training images of each class.
        features: gives the frozen features (n, D) of the training images, without augmentation, and
            their labels (n,), batch by batch; in several processes, those of this one's share.
        generator: source of new weights.
    """

    class_counts: Tensor
    features: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    generator: torch.Generator

    def class_sums(self, place: Callable[[Tensor], Tensor] = lambda features: features) -> Tensor:
        """Sum of the features of each class, (C, D) float64, after `place`.

        The features are seen once and never all at a time.
        """
        sums = torch.zeros(())
        for features, labels in self.features():
            placed = place(features.double())
            if not sums.ndim:
                sums = placed.new_zeros(len(self.class_counts), placed.shape[1])
            sums.index_add_(0, labels, placed)
        return summed(sums)

    def class_means(self, place: Callable[[Tensor], Tensor] = lambda features: features) -> Tensor:
        """Mean feature of each class, (C, D) float32, after `place`."""
        return (self.class_sums(place) / self.class_counts[:, None]).float()


BATCH_NORMS = ("frozen", "shifted")


def _batch_norm() -> str:
    return value(
        "frozen",
        "statistics in stage 2; frozen: stage 1's (published code); shifted: they go on, weights "
        "do not (MiSLAS; Kang et al. 2020)",
        allowed=BATCH_NORMS,
    )


class Rebalancing(Config):
    """A kind of re-balancing, by its name: here a new classifier on the backbone as it is."""

    name: ClassVar[str]
    heads: ClassVar[tuple[str, ...]] = ("linear", "cosine")  # of stage 1
    scaled_for_logits: ClassVar[bool] = False  # its scale is 1 unless it is given: not for cosines
    makes: ClassVar[str | None] = None  # kind of its own outputs, for the objective; None: as heads
    trains: ClassVar[bool] = True  # whether its classifier has trainable weights
    needs_backbone: ClassVar[bool] = False  # it changes the backbone

    @property
    def on_images(self) -> bool:
        """Whether features change in stage 2, so that it has to see images."""
        return getattr(self, "batch_norm", "frozen") == "shifted"

    def build(self, head: nn.Module, inputs: RebalanceInputs) -> nn.Module:
        """The classifier to train, or to use, made from that of stage 1."""
        raise NotImplementedError

    def network(self, network: Network, inputs: RebalanceInputs) -> Network:
        """The network of stage 2."""
        backbone = network.backbone.requires_grad_(False)
        return Network(backbone, self.build(network.head, inputs))


class CRT(Rebalancing):
    """Classifier re-training: every weight of the classifier is trained (Kang et al. 2020)."""

    name: ClassVar[str] = "crt"
    fresh_head: bool = value(
        False, "start from new weights (Kang et al. 2020) instead of stage 1's (published code)"
    )
    batch_norm: str = _batch_norm()

    def build(self, head: nn.Module, inputs: RebalanceInputs) -> nn.Module:
        """The classifier to train: a copy of stage 1's, or new weights of the same shape."""
        head = copy.deepcopy(head)
        if self.fresh_head:
            initialise(head, inputs.generator)
        return head


class LWS(Rebalancing):
    """Learnable weight scaling: one scale for each class (Kang et al. 2020)."""

    name: ClassVar[str] = "lws"
    head_lr_factor: float = value(
        0.0, "learning rate of the classifier itself, as a factor; 0: frozen; 0.5: MiSLAS", low=0
    )
    batch_norm: str = _batch_norm()

    def build(self, head: nn.Module, inputs: RebalanceInputs) -> nn.Module:
        """The classifier of stage 1 with a trainable scale, initially 1, on each output."""
        return ScaledHead(copy.deepcopy(head), self.head_lr_factor)


class TauNorm(Rebalancing):
    """tau-normalisation: w_j / |w_j|^tau and no bias, without training (Kang et al. 2020).

    A cosine classifier is its own tau = 1: there the outputs do not change. Any other tau gives
    |w_j|^(1 - tau) cos theta_j.
    """

    name: ClassVar[str] = "tau_norm"
    trains = False
    tau: float = value(1.0, "exponent of the norm; 1: BagofTricks-LT for CIFAR, not tuned", low=0)

    def build(self, head: nn.Module, inputs: RebalanceInputs) -> nn.Module:
        """The re-normalised classifier; it has no trainable weight."""
        return NormalisedHead(head, self.tau)


class NearestMean(Rebalancing):
    """Nearest class mean: no classifier is trained (Kang et al. 2020)."""

    name: ClassVar[str] = "ncm"
    trains = False
    transform: str = value(
        "cl2n",
        "of the features: none; l2n: unit length; cl2n: centred first, classifier-balancing's code",
        allowed=("none", "l2n", "cl2n"),
    )

    def build(self, head: nn.Module, inputs: RebalanceInputs) -> nn.Module:
        """Minus the squared distance to the mean training feature of each class."""
        unit, centre = self.transform != "none", torch.zeros((), dtype=torch.float64)
        if self.transform == "cl2n":
            centre = inputs.class_sums().sum(0) / inputs.class_counts.sum()

        def placed(features: Tensor) -> Tensor:
            return F.normalize(features - centre) if unit else features

        means = inputs.class_means(placed)
        return NearestMeanHead(means, centre.float().expand(means.shape[1]).clone(), unit)


class PostHoc(Rebalancing):
    """Post-hoc logit adjustment z_j - tau log pi_j, without training (Menon et al. 2021)."""

    name: ClassVar[str] = "post_hoc"
    scaled_for_logits = True
    trains = False
    tau: float = value(1.0, "factor of log pi; 1: Menon et al. 2021, their code", low=0)
    scale: float = value(1.0, "of the outputs before; 1 for logits, s for cosines", above=0)

    def build(self, head: nn.Module, inputs: RebalanceInputs) -> nn.Module:
        """The classifier of stage 1 with tau log pi taken from its (scaled) outputs."""
        shift = logit_adjustment(inputs.class_counts, self.tau)
        return ShiftedHead(copy.deepcopy(head), shift.float(), self.scale)


class DisAlign(Rebalancing):
    """Adaptive calibration of a frozen classifier's outputs (Zhang et al. 2021)."""

    name: ClassVar[str] = "disalign"

    def build(self, head: nn.Module, inputs: RebalanceInputs) -> nn.Module:
        """The classifier of stage 1, calibrated by a confidence that is learned."""
        return CalibratedHead(copy.deepcopy(head))


class TDE(Rebalancing):
    """Counterfactual inference: the mean feature's direction is taken away (Tang et al. 2020)."""

    name: ClassVar[str] = "tde"
    trains = False
    heads = ("multi_head",)
    alpha: float = value(
        1.0, "how much is taken away; 1: TDE's code for CIFAR-10, 1.5: for CIFAR-100", low=0
    )

    def build(self, head: nn.Module, inputs: RebalanceInputs) -> nn.Module:
        """The classifier of stage 1 with counterfactual inference, without training."""
        assert isinstance(head, MultiHeadClassifier)
        return CounterfactualHead(copy.deepcopy(head), self.alpha)


class MetaEmbed(Rebalancing):
    """Modulated attention and meta-embedding; the backbone is trained on (Liu et al. 2019)."""

    name: ClassVar[str] = "oltr"
    heads = ("linear",)
    makes = "meta"
    needs_backbone = True
    slow_factor: float = value(
        0.1,
        "learning rate of backbone, attention and centroids, as a factor; 0.1: OLTR's code for "
        "ImageNet-LT",
        low=0,
    )
    reach: float = value(
        10.0,
        "numerator of the factor 10 / distance to the nearest centroid; 10: OLTR's code",
        above=0,
    )

    @property
    def on_images(self) -> bool:
        return True

    def network(self, network: Network, inputs: RebalanceInputs) -> Network:
        """The backbone with attention, and a meta-embedding from mean features and classifier."""
        head, backbone = copy.deepcopy(network.head), network.backbone
        assert isinstance(head, nn.Linear) and isinstance(backbone, Backbone)
        embedding = MetaEmbedding(head, inputs.class_means(), self.reach)
        modulated = ModulatedBackbone(backbone)
        for new in (modulated.attention, embedding.selector, embedding.classifier):
            initialise(new, inputs.generator)
        nn.init.zeros_(modulated.attention.out.weight)
        factors = {"backbone.": self.slow_factor, "head.centroids": self.slow_factor}
        return OLTRNetwork(modulated, embedding, factors)


REBALANCERS = kinds_of(Rebalancing)
