"""Features of a frozen backbone in place of the images, computed once and kept in the cache."""

import hashlib
import logging
from dataclasses import replace
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from gcl_core.data.augment import PadCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.epoch import clean_batches
from gcl_core.data.image_files import cached
from gcl_core.data.images import MemoryImages
from gcl_core.hardware import channels_last
from gcl_core.networks.pretrained import weights_hash
from gcl_core.training.evaluation import frozen
from gcl_core.training.runs import identity_hash

log = logging.getLogger(__name__)


def features_of(
    dataset: LongTailedDataset, backbone: nn.Module, fabric: Fabric, progress: str = "none"
) -> LongTailedDataset:
    """The same data with (N, D, 1, 1) float32 features in place of images, as they are unvaried.

    They are kept in the cache by what decides them: weights, images, normalisation and precision.
    Equal images are computed once, and in an order that their contents decide: another division of
    the same images into parts finds the same bits there.

    Raises:
        GCLError: an image cannot be read.
    """
    contents = sorted({own for part in dataset.parts for own in part.images.contents})
    identity = {
        "version": 3,
        "images": hashlib.sha256(b"".join(contents)).hexdigest(),
        "shape": dataset.train.images.shape,
        "mean": dataset.mean,
        "std": dataset.std,
        "weights": weights_hash(backbone),
        "precision": fabric.strategy.precision.precision,
        "device": fabric.device.type,
    }

    def computed() -> dict[str, Tensor]:
        return {"features": _computed(contents, dataset, backbone, fabric, progress)}

    features = cached(f"features-{identity_hash(identity)}", "features", computed)["features"]
    row = {own: number for number, own in enumerate(contents)}

    def split(part: Split) -> Split:
        rows = torch.tensor([row[own] for own in part.images.contents])
        return Split(MemoryImages(features[rows][:, :, None, None]), part.labels)

    return replace(
        dataset,
        train=split(dataset.train),
        test=split(dataset.test),
        validation=None if dataset.validation is None else split(dataset.validation),
        mean=(),
        std=(),
        augment=PadCrop(0, False),
    )


def _computed(
    contents: list[bytes],
    dataset: LongTailedDataset,
    backbone: nn.Module,
    fabric: Fabric,
    progress: str,
) -> Tensor:
    """(M, D) of the images that have these contents, in their order."""
    log.info("computing features of %d images, once", len(contents))
    first, *others = (part.images for part in dataset.parts)
    every = cast(Any, first).joined(others)  # all parts have the same kind of images
    found = (own for part in dataset.parts for own in part.images.contents)
    places = {own: place for place, own in enumerate(found)}
    order = torch.tensor([places[own] for own in contents])
    images = Split(every.subset(order), torch.zeros(len(order), dtype=torch.int64))
    infer = frozen(channels_last(backbone.to(fabric.device)), fabric)
    own = images, dataset, fabric.device
    batches = clean_batches(*own, title="features", progress=progress)
    features = torch.cat([infer(pixels).cpu() for pixels, _ in batches])
    backbone.cpu()
    return features
