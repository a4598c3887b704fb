"""Images, how many of each class, which are drawn, and the batches made of them."""

from typing import TYPE_CHECKING

from gcl_core.lazy import lazy

if TYPE_CHECKING:
    from gcl_core.data.dataset import LongTailedDataset as LongTailedDataset
    from gcl_core.data.image_folder import split_image_folder as split_image_folder
    from gcl_core.data.image_folder import write_image_folder as write_image_folder
    from gcl_core.data.imbalance import class_groups as class_groups
    from gcl_core.data.imbalance import long_tailed_counts as long_tailed_counts
    from gcl_core.data.load import DataSettings as DataSettings
    from gcl_core.data.load import load_dataset as load_dataset
    from gcl_core.data.samplers import CBENSampler as CBENSampler
    from gcl_core.data.samplers import ClassBalancedSampler as ClassBalancedSampler
    from gcl_core.data.samplers import DistributedSamplerWrapper as DistributedSamplerWrapper
    from gcl_core.data.samplers import EffectiveNumberSampler as EffectiveNumberSampler
    from gcl_core.data.samplers import InstanceBalancedSampler as InstanceBalancedSampler
    from gcl_core.data.samplers import ReversedSampler as ReversedSampler
    from gcl_core.data.samplers import SquareRootSampler as SquareRootSampler
    from gcl_core.data.samplers import labels_of as labels_of

__getattr__, __all__ = lazy(__name__, __file__)
