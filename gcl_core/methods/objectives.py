"""The objective of a stage, by name: what `objective` may be in the settings.

Each kind says which classifiers it works with (`heads`) and builds its criterion, a module with
`criterion(outputs, target)`. Where an objective has a `scale`, it multiplies the outputs: 1 for
logits, about 30 for cosines.

A method with a network of its own needs no more: its objective makes the batches that the network
takes in training (`batches`), and its criterion takes what the network then gives.
"""

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from gcl_core.config import Config, kinds_of, value
from gcl_core.data.batch import Batches, Paired
from gcl_core.data.samplers import ClassBalancedSampler, ReversedSampler
from gcl_core.losses.angular import AngularGCLLoss
from gcl_core.losses.clouds import STRATEGIES, check_strategy
from gcl_core.losses.equalization import EqualizationLoss
from gcl_core.losses.focal import FocalLoss
from gcl_core.losses.gcl import GCLLoss
from gcl_core.losses.ldam import LDAMLoss
from gcl_core.losses.priors import LADELoss, LogitAdjustedLoss
from gcl_core.losses.smoothing import LabelAwareSmoothing
from gcl_core.networks.bbn import BilateralLoss
from gcl_core.networks.contrastive import HybridPSCLoss, HybridSCLoss
from gcl_core.networks.oltr import OLTRLoss

if TYPE_CHECKING:
    from gcl_core.data.epoch import TrainingImages


class Objective(Config):
    """A kind of objective, by its name; its fields are keywords of its criterion."""

    name: ClassVar[str]
    heads: ClassVar[tuple[str, ...]] = ("linear", "cosine")
    scaled_for_logits: ClassVar[bool] = False  # its scale is 1 unless it is given: not for cosines
    own_outputs: ClassVar[bool] = False  # not (N, C) with (N,) targets: no mixup, no class weights
    needs_backbone: ClassVar[bool] = False  # what it adds is trained into the backbone
    criterion: ClassVar[type[nn.Module]]

    def build(
        self, class_counts: Tensor, generator: torch.Generator, reduction: str = "mean"
    ) -> nn.Module:
        """The criterion, of the fields and of what it takes of these.

        Args:
            class_counts: (C,) training images of each class.
            generator: source of what the criterion draws.
            reduction: "mean", or "none" for a loss of each sample; with `own_outputs` "mean" only.
        """
        offered = {"class_counts": class_counts, "generator": generator, "reduction": reduction}
        # Settings see to it that GCL has cosines; re-balanced ones rightly go beyond 1.
        offered["check_range"] = False
        taken = offered.keys() & inspect.signature(self.criterion).parameters.keys()
        return self.criterion(**self.keywords(), **{name: offered[name] for name in taken})

    def batches(self, images: "TrainingImages", progress: float) -> Batches:
        """What the network sees of the images in an epoch.

        Args:
            progress: share of the epochs that are over, in [0, 1).
        """
        return images


class CrossEntropy(Objective):
    """Softmax cross-entropy of the classifier's outputs (Eq. 1)."""

    name: ClassVar[str] = "cross_entropy"
    heads = ("linear", "multi_head")  # it has no scale, which cosines need
    criterion = nn.CrossEntropyLoss


class Focal(Objective):
    """Focal loss (1 - p_y)^gamma (-log p_y) in its softmax form (Lin et al. 2017)."""

    name: ClassVar[str] = "focal"
    criterion = FocalLoss
    scaled_for_logits = True
    gamma: float = value(criterion, "exponent of the focal factor; 1: LDAM-DRW's code", low=0)
    scale: float = value(criterion, "s, factor of the outputs; 1 for logits", above=0)


class Equalization(Objective):
    """Softmax equalization loss: rare classes are spared as negatives (Tan et al. 2020)."""

    name: ClassVar[str] = "equalization"
    heads = ("linear",)
    criterion = EqualizationLoss
    threshold: float = value(
        criterion,
        "share of images below which a class is rare; 0.05: BagofTricks-LT",
        low=0,
        high=1,
    )
    gamma: float = value(
        criterion, "probability that a rare class is spared; 0.9: BagofTricks-LT", low=0, high=1
    )


class LDAM(Objective):
    """Label-distribution-aware margins m_j ~ n_j^(-1/4) on cosines (Cao et al. 2019)."""

    name: ClassVar[str] = "ldam"
    heads = ("cosine",)
    criterion = LDAMLoss
    max_margin: float = value(criterion, "margin of the rarest class; 0.5: LDAM-DRW's code", low=0)
    scale: float = value(criterion, "s; 30: LDAM-DRW's code", above=0)


class LogitAdjustment(Objective):
    """Cross-entropy of z_j + tau log pi_j (Menon et al. 2021); tau = 1: balanced softmax."""

    name: ClassVar[str] = "logit_adjustment"
    criterion = LogitAdjustedLoss
    scaled_for_logits = True
    tau: float = value(criterion, "factor of log pi; 1: Menon et al. 2021, Ren et al. 2020", low=0)
    scale: float = value(criterion, "s, factor of the outputs; 1 for logits", above=0)


class LADE(Objective):
    """Balanced softmax and a regulariser that disentangles the label prior (Hong et al. 2021)."""

    name: ClassVar[str] = "lade"
    heads = ("linear",)
    criterion = LADELoss
    weight: float = value(criterion, "weight of the regulariser; 0.1: LADE's code for CIFAR", low=0)
    regulariser: float = value(criterion, "lambda in the regulariser; 0.1: LADE's code", low=0)


class LabelAware(Objective):
    """Label-aware smoothing, strongest for the head (MiSLAS, Zhong et al. 2021)."""

    name: ClassVar[str] = "label_aware"
    heads = ("linear",)
    criterion = LabelAwareSmoothing
    smooth_head: float = value(
        criterion, "smoothing of the head; 0.3: MiSLAS for CIFAR-10, ratio 100", low=0, below=1
    )
    smooth_tail: float = value(
        criterion, "smoothing of the tail; 0: MiSLAS for CIFAR-10", low=0, below=1
    )


class GCL(Objective):
    """Gaussian clouded logits (Eq. 11 and 12)."""

    name: ClassVar[str] = "gcl"
    heads = ("cosine",)
    criterion = GCLLoss
    scale: float = value(criterion, "s; 30 in stage 1, 20 in stage 2: published code", above=0)
    noise_multiplier: float = value(
        criterion,
        "factor of the cloud; 0.5: published code for CIFAR; 1: the paper's formula",
        low=0,
    )
    sigma: float = value(criterion, "standard deviation of eps; 1/3: the paper, Sec. 4.2", low=0)
    strategy: str = value(
        criterion, "cloud sizes; log: the paper, Eq. 9 and Table 3", allowed=STRATEGIES
    )
    exponent: float | None = value(
        criterion, "e of strategy power: 1/3, 1/4 in Table 3", above=0, below=1
    )
    margin: float = value(
        criterion, "m taken from the target's cosine; 0 in stage 1, 0.1 in stage 2: published code"
    )
    focal_gamma: float = value(
        criterion, "exponent of the focal factor; 0 in stage 1, 1 in stage 2: published code", low=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strategy(self.strategy, self.exponent)


class AngularGCL(Objective):
    """The cloud on the angle instead of the cosine (the follow-up, arXiv 2305.10648)."""

    name: ClassVar[str] = "gcl_angular"
    heads = ("cosine",)
    criterion = AngularGCLLoss
    scale: float = value(criterion, "s; 30: the follow-up's code", above=0)
    noise_multiplier: float = value(
        criterion, "largest cloud, in right angles; 0.5: the follow-up's code, Places-LT", low=0
    )
    margin: float = value(
        criterion, "angle added for the target; 0: the follow-up's code, Places-LT"
    )
    easy_margin: bool = value(
        criterion, "perturb only where cos > 0; yes: the follow-up's code, Places-LT"
    )
    focal_gamma: float = value(
        criterion,
        "exponent of the focal factor; 0 in stage 1, 1 in stage 2: the follow-up's code",
        low=0,
    )


class _TwoBranches(Objective):
    """One of two branches: the weight of the first falls, alpha = 1 - (epoch / epochs)^2."""

    own_outputs = True
    needs_backbone = True
    views: ClassVar[int] = 1  # of the first branch's images
    second: ClassVar[Any]  # sampler of the second branch; the first has that of the settings

    def batches(self, images: "TrainingImages", progress: float) -> Batches:
        """Pairs of batches, one for each branch."""
        sampler = self.second(images.dataset.train.labels, generator=images.streams.order)
        first, second = replace(images, views=self.views), replace(images, sampler=sampler)
        return Paired(first, second, 1 - progress**2)


class BBN(_TwoBranches):
    """Cumulative learning of two branches, one on reversed samples (Zhou et al. 2020)."""

    name: ClassVar[str] = "bbn"
    heads = ("bilateral",)
    criterion = BilateralLoss
    second = ReversedSampler


class HybridSC(_TwoBranches):
    """Supervised contrast of two views; cross-entropy on balanced classes (Wang et al. 2021)."""

    name: ClassVar[str] = "hybrid_sc"
    heads = ("contrastive",)
    criterion = HybridSCLoss
    second = ClassBalancedSampler
    views = 2
    temperature: float = value(0.1, "of the contrast; 0.1: the paper, not verified", above=0)


class HybridPSC(_TwoBranches):
    """Contrast with class prototypes; cross-entropy on balanced classes (Wang et al. 2021)."""

    name: ClassVar[str] = "hybrid_psc"
    heads = ("prototypical",)
    criterion = HybridPSCLoss
    second = ClassBalancedSampler
    temperature: float = value(
        1.0, "of the contrast; 1: the paper for CIFAR-10, as a reproduction reports it", above=0
    )


class OLTR(Objective):
    """Cross-entropy, and class centroids that attract their own features (Liu et al. 2019)."""

    name: ClassVar[str] = "oltr"
    own_outputs = True
    heads = ("meta",)
    criterion = OLTRLoss
    weight: float = value(0.01, "of the centroids' loss; 0.01: OLTR's code", low=0)


OBJECTIVES = kinds_of(Objective)
