"""The networks by name: a backbone, and the classifier with what belongs to it."""

from collections.abc import Callable

import torch
from torch import nn

from gcl_core.errors import check_known
from gcl_core.networks.backbones import BACKBONES, Backbone
from gcl_core.networks.bbn import BilateralNetwork
from gcl_core.networks.contrastive import ContrastiveNetwork, PrototypicalNetwork
from gcl_core.networks.network import CosineClassifier, Network, initialise
from gcl_core.networks.pretrained import PREFIX, check_timm_name, new_backbone
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
    weights: str = "none",
) -> Network:
    """A network with new weights, drawn from `generator` (None: torch's default generator).

    Args:
        name: a key of `BACKBONES`, or `timm:` and timm's name of a network.
        num_classes: C.
        head: a key of `NETWORKS`.
        in_channels: of the images.
        generator: source of what is drawn.
        weights: of a network of timm: none, default (timm's own) or a file; the classifier, and
            what else the file lacks, is drawn.

    Raises:
        GCLError: an unknown name or head, or weights that are not there or do not fit.
    """
    check_network(name)
    check_known("head", head, NETWORKS)
    backbone = build_backbone(name, weights, in_channels, generator)
    network = NETWORKS[head](backbone, num_classes)
    initialise(network, generator)
    return network


def build_backbone(
    name: str, weights: str, in_channels: int, generator: torch.Generator | None
) -> Backbone:
    """A backbone by name; the weights of one of timm's are in place, those of others still new."""
    if name.startswith(PREFIX):
        return new_backbone(name, weights, in_channels, generator)
    return BACKBONES[name](in_channels=in_channels)


def check_network(name: str) -> None:
    """Raise a GCLError that says which there are if there is no backbone of this name."""
    if name.startswith(PREFIX):
        check_timm_name(name)
    else:
        check_known("network", name, [*BACKBONES, "or timm:NAME"])


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
