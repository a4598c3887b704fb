"""Features of a frozen backbone in place of the images, computed once and kept in the cache."""

import hashlib
import logging
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from gcl_core.data.augment import PadCrop
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.epoch import clean_batches
from gcl_core.data.image_files import cache_folder
from gcl_core.data.images import MemoryImages
from gcl_core.errors import GCLError
from gcl_core.files import atomic_save, load_tensors
from gcl_core.hardware import channels_last
from gcl_core.networks.pretrained import hash_weights
from gcl_core.training.evaluation import frozen
from gcl_core.training.progress import Progress

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
    parts = [part for part in (dataset.train, dataset.test, dataset.validation) if part is not None]
    contents = sorted({own for part in parts for own in part.images.contents})
    kept = cache_folder() / f"features-{_key(contents, dataset, backbone, fabric)}.pt"
    features = torch.empty(0)
    if kept.exists():
        try:
            features = load_tensors(kept)["features"]
        except GCLError as error:
            log.warning("%s; features are computed again", error)
    if not len(features):
        features = _computed(contents, dataset, parts, backbone, fabric, progress)
        if fabric.is_global_zero:
            try:
                kept.parent.mkdir(parents=True, exist_ok=True)
                atomic_save(kept, {"features": features})
            except OSError as error:
                log.warning("features are not cached: %s; GCL_CACHE names another folder", error)
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


def _key(
    contents: list[bytes], dataset: LongTailedDataset, backbone: nn.Module, fabric: Fabric
) -> str:
    digest = hashlib.sha256(f"2 {fabric.strategy.precision.precision}".encode())
    digest.update(f" {dataset.mean} {dataset.std} {fabric.device.type} ".encode())
    digest.update(f"{dataset.train.images.shape} ".encode())
    for own in contents:
        digest.update(own)
    hash_weights(digest, backbone)
    return digest.hexdigest()[:32]


def _computed(
    contents: list[bytes],
    dataset: LongTailedDataset,
    parts: list[Split],
    backbone: nn.Module,
    fabric: Fabric,
    progress: str,
) -> Tensor:
    """(M, D) of the images that have these contents, in their order."""
    log.info("computing features of %d images, once", len(contents))
    first: Any = parts[0].images  # all parts have the same kind of images
    every = first.joined([part.images for part in parts[1:]])
    found = (own for part in parts for own in part.images.contents)
    places = {own: place for place, own in enumerate(found)}
    order = torch.tensor([places[own] for own in contents])
    images = Split(every.subset(order), torch.zeros(len(order), dtype=torch.int64))
    infer = frozen(channels_last(backbone.to(fabric.device)), fabric)
    bar = Progress(progress if fabric.is_global_zero else "none", "features", 0, 1, len(images))
    features = []
    for pixels, labels in clean_batches(images, dataset, fabric.device):
        features.append(infer(pixels).cpu())
        bar.step(len(labels))
    bar.close()
    backbone.cpu()
    return torch.cat(features)
