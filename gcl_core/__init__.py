"""gcl_core: Gaussian clouded logit adjustment and what trains, evaluates and explains it."""

from gcl_core.data.imbalance import class_groups, long_tailed_counts
from gcl_core.data.samplers import (
    CBENSampler,
    ClassBalancedSampler,
    EffectiveNumberSampler,
    InstanceBalancedSampler,
)
from gcl_core.errors import GCLError
from gcl_core.losses.clouds import cloud_sizes
from gcl_core.losses.gcl import GCLLoss
from gcl_core.networks.models import digits_cnn, resnet32
from gcl_core.networks.network import CosineClassifier

__version__ = "0.1.0"
__all__ = [
    "CBENSampler",
    "ClassBalancedSampler",
    "CosineClassifier",
    "EffectiveNumberSampler",
    "GCLError",
    "GCLLoss",
    "InstanceBalancedSampler",
    "class_groups",
    "cloud_sizes",
    "digits_cnn",
    "long_tailed_counts",
    "resnet32",
]
