"""The networks by name: a backbone, and the classifier with what belongs to it."""

from collections.abc import Callable

import torch
from torch import nn

from gcl_core.errors import GCLError
from gcl_core.networks.backbones import BACKBONES, Backbone
from gcl_core.networks.bbn import BilateralNetwork
from gcl_core.networks.contrastive import ContrastiveNetwork, PrototypicalNetwork
from gcl_core.networks.network import CosineClassifier, Network, initialise
from gcl_core.networks.tde import MultiHeadClassifier


def _with(head: Callable[[int, int], nn.Module]) -> Callable[[Backbone, int], Network]:
    return lambda backbone, classes: Network(backbone, head(backbone.out_features, classes))


NETWORKS: dict[str, Callable[[Backbone, int], Network]] = {
    "cosine": _with(CosineClassifier),
    "linear": _with(nn.Linear),
    "multi_head": _with(MultiHeadClassifier),
    "bilateral": BilateralNetwork,
    "contrastive": ContrastiveNetwork,
    "prototypical": PrototypicalNetwork,
}


def build_network(
    name: str,
    num_classes: int,
    head: str = "cosine",
    in_channels: int = 3,
    generator: torch.Generator | None = None,
) -> Network:
    """A freshly initialised network, drawn from `generator` (None: torch's default generator).

    Raises:
        GCLError: an unknown name or head.
    """
    for what, given, known in (("network", name, BACKBONES), ("head", head, NETWORKS)):
        if given not in known:
            raise GCLError(f"{what} {given!r} is unknown; allowed: {', '.join(known)}")
    network = NETWORKS[head](BACKBONES[name](in_channels=in_channels), num_classes)
    initialise(network, generator)
    return network


def resnet32(
    num_classes: int, head: str = "cosine", generator: torch.Generator | None = None
) -> Network:
    """ResNet-32 for 32x32 RGB images: the backbone of the CIFAR tables (0.46 M weights)."""
    return build_network("resnet32", num_classes, head, generator=generator)


def digits_cnn(
    num_classes: int, head: str = "cosine", generator: torch.Generator | None = None
) -> Network:
    """A small network for 8x8 grey images (24 k weights)."""
    return build_network("digits_cnn", num_classes, head, in_channels=1, generator=generator)
