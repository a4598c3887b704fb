"""Features of a frozen backbone in place of the images, computed once and kept in the cache."""

import hashlib
import logging
from dataclasses import replace

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

    Raises:
        GCLError: an image cannot be read.
    """
    kept = cache_folder() / f"features-{_key(dataset, backbone, fabric)}.pt"
    parts = {"train": dataset.train, "test": dataset.test, "validation": dataset.validation}
    present = {name: part for name, part in parts.items() if part is not None}
    features: dict[str, Tensor] = {}
    if kept.exists():
        try:
            features = load_tensors(kept)
        except GCLError as error:
            log.warning("%s; features are computed again", error)
    if not features:
        features = _computed(dataset, present, backbone, fabric, progress)
        if fabric.is_global_zero:
            try:
                kept.parent.mkdir(parents=True, exist_ok=True)
                atomic_save(kept, features)
            except OSError as error:
                log.warning("features are not cached: %s; GCL_CACHE names another folder", error)

    def split(name: str) -> Split:
        return Split(MemoryImages(features[name][:, :, None, None]), present[name].labels)

    return replace(
        dataset,
        train=split("train"),
        test=split("test"),
        validation=split("validation") if "validation" in present else None,
        mean=(),
        std=(),
        augment=PadCrop(0, False),
    )


def _key(dataset: LongTailedDataset, backbone: nn.Module, fabric: Fabric) -> str:
    digest = hashlib.sha256(f"1 {fabric.strategy.precision.precision}".encode())
    digest.update(f" {dataset.mean} {dataset.std} {fabric.device.type} ".encode())
    digest.update(dataset.fingerprint.encode())
    if dataset.validation is not None:
        dataset.validation.images.hash_into(digest)
    hash_weights(digest, backbone)
    return digest.hexdigest()[:32]


def _computed(
    dataset: LongTailedDataset,
    parts: dict[str, Split],
    backbone: nn.Module,
    fabric: Fabric,
    progress: str,
) -> dict[str, Tensor]:
    total = sum(map(len, parts.values()))
    log.info("computing features of %d images, once", total)
    infer = frozen(channels_last(backbone.to(fabric.device)), fabric)
    features = {}
    bar = Progress(progress if fabric.is_global_zero else "none", "features", 0, 1, total)
    for name, part in parts.items():
        own = []
        for images, labels in clean_batches(part, dataset, fabric.device):
            own.append(infer(images).cpu())
            bar.step(len(labels))
        features[name] = torch.cat(own)
    bar.close()
    backbone.cpu()
    return features
