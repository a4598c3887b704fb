"""gcl_core: Gaussian clouded logit adjustment and what trains, evaluates and explains it."""

from typing import TYPE_CHECKING

from gcl_core.errors import GCLError
from gcl_core.lazy import lazy

if TYPE_CHECKING:
    from gcl_core import data, losses, networks
    from gcl_core.data.imbalance import class_groups, long_tailed_counts
    from gcl_core.data.load import load_dataset
    from gcl_core.data.samplers import (
        CBENSampler,
        ClassBalancedSampler,
        EffectiveNumberSampler,
        InstanceBalancedSampler,
    )
    from gcl_core.inference.saved import load_run
    from gcl_core.losses.clouds import cloud_sizes
    from gcl_core.losses.gcl import GCLLoss
    from gcl_core.methods.registry import METHODS, resolve
    from gcl_core.networks.models import digits_cnn, resnet32
    from gcl_core.networks.network import CosineClassifier
    from gcl_core.training.two_stages import run

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "CBENSampler",
    "ClassBalancedSampler",
    "CosineClassifier",
    "EffectiveNumberSampler",
    "GCLError",
    "GCLLoss",
    "InstanceBalancedSampler",
    "class_groups",
    "cloud_sizes",
    "data",
    "digits_cnn",
    "load_dataset",
    "load_run",
    "long_tailed_counts",
    "losses",
    "networks",
    "resnet32",
    "resolve",
    "run",
]

__getattr__ = lazy(__name__, __file__)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
