"""gcl_core: Gaussian clouded logit adjustment and what trains, evaluates and explains it."""

from typing import TYPE_CHECKING

from gcl_core.errors import GCLError as GCLError
from gcl_core.lazy import lazy

if TYPE_CHECKING:
    from gcl_core import data as data
    from gcl_core import losses as losses
    from gcl_core import networks as networks
    from gcl_core.data.imbalance import class_groups as class_groups
    from gcl_core.data.imbalance import long_tailed_counts as long_tailed_counts
    from gcl_core.data.load import load_dataset as load_dataset
    from gcl_core.data.samplers import CBENSampler as CBENSampler
    from gcl_core.data.samplers import ClassBalancedSampler as ClassBalancedSampler
    from gcl_core.data.samplers import EffectiveNumberSampler as EffectiveNumberSampler
    from gcl_core.data.samplers import InstanceBalancedSampler as InstanceBalancedSampler
    from gcl_core.inference.saved import load_run as load_run
    from gcl_core.losses.clouds import cloud_sizes as cloud_sizes
    from gcl_core.losses.gcl import GCLLoss as GCLLoss
    from gcl_core.methods.registry import METHODS as METHODS
    from gcl_core.methods.registry import resolve as resolve
    from gcl_core.networks.models import digits_cnn as digits_cnn
    from gcl_core.networks.models import resnet32 as resnet32
    from gcl_core.networks.network import CosineClassifier as CosineClassifier
    from gcl_core.training.two_stages import run as run

__version__ = "0.1.0"
__getattr__, __all__ = lazy(__name__, __file__)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
