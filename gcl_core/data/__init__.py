"""Images, how many of each class, which are drawn, and the batches made of them."""

from typing import TYPE_CHECKING

from gcl_core.lazy import lazy

if TYPE_CHECKING:
    from gcl_core.data.dataset import LongTailedDataset
    from gcl_core.data.image_folder import split_image_folder, write_image_folder
    from gcl_core.data.imbalance import class_groups, long_tailed_counts
    from gcl_core.data.load import DataSettings, load_dataset
    from gcl_core.data.samplers import (
        CBENSampler,
        ClassBalancedSampler,
        DistributedSamplerWrapper,
        EffectiveNumberSampler,
        InstanceBalancedSampler,
        ReversedSampler,
        SquareRootSampler,
        labels_of,
    )

__all__ = [
    "CBENSampler",
    "ClassBalancedSampler",
    "DataSettings",
    "DistributedSamplerWrapper",
    "EffectiveNumberSampler",
    "InstanceBalancedSampler",
    "LongTailedDataset",
    "ReversedSampler",
    "SquareRootSampler",
    "class_groups",
    "labels_of",
    "load_dataset",
    "long_tailed_counts",
    "split_image_folder",
    "write_image_folder",
]

__getattr__ = lazy(__name__, __file__)
