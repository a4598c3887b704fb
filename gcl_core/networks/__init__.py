"""Backbones and classifiers, and the networks of methods that need their own."""

from gcl_core.networks.models import build_network, digits_cnn, resnet32
from gcl_core.networks.network import CosineClassifier, Network

__all__ = ["CosineClassifier", "Network", "build_network", "digits_cnn", "resnet32"]
