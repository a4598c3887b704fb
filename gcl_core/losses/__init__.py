"""Losses of outputs and labels: GCL, and what it is compared with."""

from gcl_core.losses.angular import AngularGCLLoss
from gcl_core.losses.clouds import cloud_sizes
from gcl_core.losses.criterion import Criterion
from gcl_core.losses.equalization import EqualizationLoss
from gcl_core.losses.focal import FocalLoss
from gcl_core.losses.gcl import GCLLoss
from gcl_core.losses.ldam import LDAMLoss
from gcl_core.losses.priors import LADELoss, LogitAdjustedLoss, logit_adjustment
from gcl_core.losses.smoothing import LabelAwareSmoothing

__all__ = ["AngularGCLLoss", "Criterion", "EqualizationLoss", "FocalLoss", "GCLLoss", "LADELoss"]
__all__ += ["LDAMLoss", "LabelAwareSmoothing", "LogitAdjustedLoss"]
__all__ += ["cloud_sizes", "logit_adjustment"]
