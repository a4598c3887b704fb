"""A run: train the network, then re-balance its classifier on the frozen backbone."""

import contextlib
import copy
import functools
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gcl_core import processes
from gcl_core.data.dataset import Described, LongTailedDataset
from gcl_core.data.epoch import clean_batches
from gcl_core.data.load import decoded_by, load_dataset
from gcl_core.data.streams import Streams
from gcl_core.errors import GCLError
from gcl_core.files import load_json
from gcl_core.hardware import channels_last, device_kind, keep_freed_memory, repeatable_gpu
from gcl_core.inference.saved import save_model
from gcl_core.methods.rebalance import RebalanceInputs
from gcl_core.methods.settings import Settings, Stage, to_dict
from gcl_core.networks.models import build_backbone, build_network
from gcl_core.networks.network import CosineClassifier, Network
from gcl_core.networks.pretrained import (
    PREFIX,
    freeze,
    renew_last_block,
    slow_down,
    synchronise,
    weights_identity,
)
from gcl_core.training.evaluation import Inference, frozen, outputs_of
from gcl_core.training.features import features_of
from gcl_core.training.runs import RunFolder
from gcl_core.training.stage import StageRun, train_stage
from gcl_core.training.step import step_kind

TOO_SMALL = 16  # pixels: networks of timm halve them five times, the last time in a convolution
CALIBRATED = 2**22  # outputs of validation images at most; two numbers are fitted on them


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        settings: what was asked for.
        dataset: the images it was trained and tested on.
        network: with the final weights, in evaluation mode, on the CPU.
        result: last-epoch accuracies in percent, `best_on_test`, confusion matrix.
        folders: the folder of stage 1 and, for a two-stage method, of stage 2.
    """

    settings: Settings
    dataset: LongTailedDataset
    network: Network
    result: dict[str, Any]
    folders: tuple[RunFolder, ...]

    @property
    def path(self) -> Path:
        """Folder of the last stage, which holds the result."""
        return self.folders[-1].path

    @property
    def kept(self) -> list[int]:
        """The epochs that `at` can show."""
        return list(self.folders[0].identity.get("keep", []))

    def at(self, epoch: int) -> "Run":
        """This run as it was after one of the epochs that `run` was asked to keep.

        Its `network` has the weights and its `result` the accuracies of that epoch; the folders are
        those of the whole run.

        Raises:
            GCLError: the epoch was not kept, or the method has a second stage.
        """
        if self.settings.stage2 is not None:
            raise GCLError("epochs are kept of stage 1 only; ask for a method of one stage")
        kept = self.folders[0].load_kept(epoch)
        network = copy.deepcopy(self.network)
        network.load_state_dict(kept["module"])
        return replace(self, network=network, result=kept["result"])


def run(
    settings: Settings,
    runs: Path,
    *,
    accelerator: str = "auto",
    progress: str = "auto",
    dataset: LongTailedDataset | None = None,
    keep: Collection[int] = (),
    step: str = "auto",
    workers: int | None = None,
) -> Run:
    """Train, or continue, or reuse a run; stage 1 is shared by all runs that differ after it.

    Args:
        settings: what to compute.
        runs: folder of all runs; each stage gets a folder in it, named by a hash of its settings.
        accelerator: "cpu", "gpu" or "auto"; see `gcl_core.hardware.device_kind`.
        progress: "bar", "log", "none", or "auto" (a bar in a terminal or notebook, else a log).
        dataset: the data that `settings.data` describes, if they are already loaded.
        keep: epochs of stage 1 that `Run.at` shall show later; 0 is before the first. The run has
            a folder of its own, for what is finished is never trained again.
        step: "eager", "captured" (on a GPU, replayed from a CUDA graph: faster, with the same bits)
            or "auto"; see `gcl_core.training.step`.
        workers: processes that decode image files; see `gcl_core.data.load.decoded_by`.

    Raises:
        GCLError: data, settings or files that the user has to mend; an epoch to keep that there is
            not.
        OSError: a folder that cannot be written.
    """
    dataset = load_dataset(settings.data) if dataset is None else dataset
    device = device_kind(accelerator, settings.network)
    if settings.sync_norm and device == "cpu":
        raise GCLError("sync_norm needs GPUs, as PyTorch has none for a CPU; leave it out")
    fabric = make_fabric(device, settings.precision, settings.devices)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    for epoch in keep:
        if not 0 <= epoch <= settings.stage1.epochs:
            raise GCLError(f"keep must be epochs from 0 to {settings.stage1.epochs}, got {epoch}")
    folders = run_folders(settings, dataset.described, runs, keep, device)
    prefix: Inference | None = None
    reading = decoded_by(dataset, workers, fabric.device, settings.devices)
    with processes.together(settings.devices), reading:
        fabric.launch()
        kind = step_kind(step, fabric)
        progress = progress if fabric.is_global_zero else "none"  # of several processes one says it
        images, backbone = _inputs(settings, dataset, fabric, progress)
        for number, (stage, folder) in enumerate(zip(settings.stages, folders, strict=True), 1):
            streams = Streams.seeded(settings.seed, number, fabric.global_rank, fabric.device)
            if number == 1:
                network = first_network(settings, images, streams, fabric, progress)
            else:
                network, prefix = second_network(network, stage, images, streams, fabric, progress)
            if settings.sync_norm:
                synchronise(network)
            channels_last(network.to(fabric.device))
            rest = (prefix, streams, folder, fabric, kind, progress)
            part = StageRun(number, stage, images, network, *rest)
            whole = network if backbone is None else Network(backbone, network.head)
            outputs = functools.partial(_validation_outputs, network, images, fabric, progress)
            save = functools.partial(save_model, folder.path, settings, dataset, whole, outputs)
            is_last = folder is folders[-1]
            train_stage(part, keep if number == 1 else (), save if is_last else None)
    result = folders[-1].result
    assert result is not None
    return Run(settings, dataset, whole.cpu().eval(), result, tuple(folders))


def make_fabric(accelerator: str, precision: str, devices: int = 1) -> Fabric:
    """Device, precision ("float32" or "bfloat16") and processes, which are not launched yet.

    Raises:
        GCLError: there is no such device, or not as many.
    """
    # Fabric announces precision and processes in lines of its own; a run's settings have them.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # Without a look for unused weights, DDP adds gradients in other groups after the first step
    # than before: from three processes on, a continued run would end with other bits.
    ddp = DDPStrategy(find_unused_parameters=True, timeout=processes.PATIENCE)
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            strategy=ddp if devices > 1 else "auto",
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            # A run starts its processes itself. Fabric would else want SLURM's srun for them: it
            # refuses to work in a job of several tasks, and warns wherever srun is installed.
            plugins=LightningEnvironment(),
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise GCLError(
            f"accelerator {accelerator!r} with devices {devices} is not here: {error}"
        ) from error
    if fabric.device.type != "cpu":
        repeatable_gpu()
    return fabric


def run_folders(
    settings: Settings,
    images: Described,
    runs: Path,
    keep: Collection[int] = (),
    device: str = "cpu",
) -> list[RunFolder]:
    """The folder of each stage; the images count by what they are, not by where they lie.

    That of stage 2 is named by all that stage 1 is, and by the settings of stage 2. A run on a GPU
    draws other noise, so it is another run: `device`, "cpu" or "gpu", counts too.
    """
    every = to_dict(settings)
    rest = {key: part for key, part in every.items() if key not in ("data", "stage2")}
    if settings.weights != "none":  # they count by what they are, too
        rest["weights"] = weights_identity(settings.network, settings.weights)
    if keep:
        rest["keep"] = sorted(set(keep))
    identity = {"images": images.identity, **rest}
    if device != "cpu":  # not named there: older runs keep their folders
        identity["device"] = device
    folders = [RunFolder(runs, identity, images.about)]
    if settings.stage2 is not None:
        second = identity | {"stage2": to_dict(settings.stage2)}
        folders.append(RunFolder(runs, second, images.about))
    return folders


def threads_so_far(folders: Sequence[RunFolder]) -> int | None:
    """CPU threads that an unfinished run was begun with, as its last bits depend on them."""
    for folder in reversed(folders):
        if not folder.is_finished and (folder.path / "settings.json").exists():
            with contextlib.suppress(LookupError, TypeError):  # damaged: `opened` says so
                return int(load_json(folder.path / "settings.json")["versions"]["threads"])
    return None


def _inputs(
    settings: Settings, dataset: LongTailedDataset, fabric: Fabric, progress: str
) -> tuple[LongTailedDataset, nn.Module | None]:
    """What is trained on: the images or, for classifiers alone, their features and the backbone."""
    takes = "features" if settings.network == "features" else "pixels"
    has = "pixels" if dataset.has_pixels else "features"
    if takes != has:
        raise GCLError(
            f"network {settings.network!r} takes {takes}, and {dataset.name} has {has}: "
            "leave network out"
        )
    if not settings.on_features or not dataset.has_pixels:
        return dataset, None
    channels = dataset.train.images.shape[0]
    streams = Streams.seeded(settings.seed, 1, 0, torch.device("cpu"))
    backbone = build_backbone(settings.network, settings.weights, channels, streams.weights)
    return features_of(dataset, backbone, fabric, progress), backbone


def first_network(
    settings: Settings,
    dataset: LongTailedDataset,
    streams: Streams,
    fabric: Fabric,
    progress: str = "none",
) -> Network:
    """The network of stage 1: new weights but for those that are given.

    Raises:
        GCLError: the images are too small for the network in bfloat16 on a CPU.
    """
    name, weights = settings.network, settings.weights
    if settings.on_features:
        name, weights = "features", "none"
    channels, *sides = dataset.train.images.shape
    stage = settings.stage1
    # Where a map has one pixel, PyTorch 2.12 leaves numbers of other memory in the gradients of a
    # 3x3 convolution with stride 2, in bfloat16 on a CPU.
    on_cpu = fabric.device.type == "cpu" and settings.precision == "bfloat16"
    if on_cpu and name.startswith(PREFIX) and min(sides) <= TOO_SMALL:
        raise GCLError(
            f"images of {min(sides)} px leave {name} maps of one pixel, whose gradients PyTorch "
            "gets wrong in bfloat16 on a CPU: give --image-size 32, or --precision float32"
        )
    network = build_network(
        name, dataset.num_classes, settings.head, channels, streams.weights, weights
    )
    if stage.head_start == "means":
        network.to(fabric.device)
        backbone = frozen(network.backbone, fabric)
        inputs = _rebalance_inputs(backbone, dataset, streams, fabric, progress)
        assert isinstance(network.head, CosineClassifier)
        with torch.no_grad():
            network.head.weight.copy_(F.normalize(inputs.class_means()))
    if stage.trains == "new_block":
        renew_last_block(network, streams.weights)
    slow_down(network, stage.layer_decay)
    freeze(network, stage.trains)
    return network


def second_network(
    network: Network,
    stage: Stage,
    dataset: LongTailedDataset,
    streams: Streams,
    fabric: Fabric,
    progress: str = "none",
) -> tuple[Network, Inference | None]:
    """The network of stage 2, made from that of stage 1, and its backbone if that is frozen."""
    assert stage.rebalance is not None
    network.backbone.requires_grad_(True)  # stage 1 may have frozen a part of it
    backbone = frozen(network.backbone, fabric)
    inputs = _rebalance_inputs(backbone, dataset, streams, fabric, progress)
    rebalanced = stage.rebalance.network(network.cpu(), inputs)
    if stage.trains not in (None, "head"):
        rebalanced.backbone.requires_grad_(True)
        slow_down(rebalanced, stage.layer_decay)
        freeze(rebalanced, stage.trains)
        return rebalanced, None
    return rebalanced, None if stage.rebalance.on_images else backbone


@torch.no_grad()
def _validation_outputs(
    network: Network, images: LongTailedDataset, fabric: Fabric, progress: str
) -> tuple[Tensor, Tensor]:
    """Outputs (N, C) and labels (N,) of the validation images, or of every n-th where too large."""
    assert images.validation is not None
    every = max(1, -(-len(images.validation) * images.num_classes // CALIBRATED))
    some = images.validation.subset(torch.arange(0, len(images.validation), every))
    outputs = outputs_of(network.eval(), some, images, fabric.device, progress=progress)
    return outputs.cpu(), some.labels


def _rebalance_inputs(
    backbone: Inference,
    dataset: LongTailedDataset,
    streams: Streams,
    fabric: Fabric,
    progress: str,
) -> RebalanceInputs:
    def features() -> Iterator[tuple[Tensor, Tensor]]:
        own = dataset.train, dataset, fabric.device, fabric.global_rank, fabric.world_size
        for images, labels in clean_batches(*own, title="features", progress=progress):
            yield backbone(images).cpu(), labels

    return RebalanceInputs(torch.tensor(dataset.class_counts), features, streams.weights)
