"""A run: train the network, then re-balance its classifier on the frozen backbone."""

import contextlib
import copy
import functools
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gcl_core.data.batch import Batches
from gcl_core.data.batches import FrozenFeatures, Streams, TrainingImages
from gcl_core.data.dataset import LongTailedDataset, load_dataset
from gcl_core.errors import GCLError
from gcl_core.hardware import channels_last, keep_freed_memory
from gcl_core.methods.rebalance import RebalanceInputs
from gcl_core.methods.reweight import ClassWeights, Reweighted
from gcl_core.methods.sampling import InstanceBalanced
from gcl_core.methods.settings import Settings, Stage, to_dict
from gcl_core.networks.models import build_network
from gcl_core.networks.network import Network
from gcl_core.training.evaluation import accuracies, confusion_matrix, frozen, outputs_of
from gcl_core.training.runs import RunFolder
from gcl_core.training.stage import train_stage


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
) -> Run:
    """Train, or continue, or reuse a run; stage 1 is shared by all runs that differ after it.

    Args:
        settings: what to compute.
        runs: folder of all runs; each stage gets a folder in it, named by a hash of its settings.
        accelerator: "cpu", "gpu" or "auto" (a GPU if there is one).
        progress: "bar", "log", "none", or "auto" (a bar in a terminal or notebook, else a log).
        dataset: the data that `settings.data` describes, if they are already loaded.
        keep: epochs of stage 1 that `Run.at` shall show later; 0 is before the first. The run has
            a folder of its own, for what is finished is never trained again.

    Raises:
        GCLError: data, settings or files that the user has to mend; an epoch to keep that there is
            not.
        OSError: a folder that cannot be written.
    """
    dataset = load_dataset(settings.data) if dataset is None else dataset
    fabric = make_fabric(accelerator, settings.precision, settings.devices)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    for epoch in keep:
        if not 0 <= epoch <= settings.stage1.epochs:
            raise GCLError(f"keep must be epochs from 0 to {settings.stage1.epochs}, got {epoch}")
    folders = [stage1_folder(settings, dataset, runs, keep)]
    with _all_or_none(fabric):
        network = _stage1(fabric, settings, dataset, folders[0], progress, keep)
        if settings.stage2 is not None:
            folders.append(stage2_folder(settings.stage2, folders[0]))
            network = _stage2(fabric, settings, dataset, network, folders[1], progress)
    result = folders[-1].result
    assert result is not None
    return Run(settings, dataset, network.cpu().eval(), result, tuple(folders))


def make_fabric(accelerator: str, precision: str, devices: int = 1) -> Fabric:
    """Device, precision ("float32" or "bfloat16") and processes, started.

    Raises:
        GCLError: there is no such device, or not as many.
    """
    # Fabric announces precision and processes in lines of its own; a run's settings have them.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            # A run starts its processes itself. Fabric would else want SLURM's srun for them: it
            # refuses to work in a job of several tasks, and warns wherever srun is installed.
            plugins=LightningEnvironment(),
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise GCLError(
            f"accelerator {accelerator!r} with devices {devices} is not here: {error}"
        ) from error
    fabric.launch()
    return fabric


@contextlib.contextmanager
def _all_or_none(fabric: Fabric) -> Iterator[None]:
    """When the first process fails, the others end with it, instead of waiting for it."""
    try:
        yield
    except BaseException:
        for process in getattr(fabric.strategy.launcher, "procs", ()):
            process.kill()
        raise


def stage1_folder(
    settings: Settings, dataset: LongTailedDataset, runs: Path, keep: Collection[int] = ()
) -> RunFolder:
    """Folder of stage 1; the images count by their fingerprint, not by where they lie."""
    images = {
        "fingerprint": dataset.fingerprint,
        "class_counts": dataset.class_counts,
        "crop_padding": dataset.crop_padding,
        "flip": dataset.flip,
        "mean": dataset.mean,
        "std": dataset.std,
    }
    every = to_dict(settings)
    rest = {key: part for key, part in every.items() if key not in ("data", "stage2")}
    if keep:
        rest["keep"] = sorted(set(keep))
    return RunFolder(runs, {"images": images, **rest}, {"dataset": dataset.name})


def stage2_folder(stage: Stage, first: RunFolder) -> RunFolder:
    """Folder of stage 2: all that stage 1 is, and the settings of stage 2."""
    identity = {**first.identity, "stage2": to_dict(stage)}
    return RunFolder(first.path.parent, identity, first.about)


def _stage1(
    fabric: Fabric,
    settings: Settings,
    dataset: LongTailedDataset,
    folder: RunFolder,
    progress: str,
    keep: Collection[int],
) -> Network:
    streams = Streams.seeded(settings.seed, 1, fabric.global_rank, fabric.device)
    channels = dataset.train_images.shape[1]
    network = build_network(
        settings.network, dataset.num_classes, settings.head, channels, streams.weights
    )
    channels_last(network.to(fabric.device))

    train_stage(
        fabric,
        settings.stage1,
        network,
        _parts(fabric, settings.stage1, dataset, streams),
        streams,
        lambda: _network_accuracy(fabric, network, dataset),
        folder,
        "stage 1",
        progress,
        keep,
    )
    return network


def _stage2(
    fabric: Fabric,
    settings: Settings,
    dataset: LongTailedDataset,
    network: Network,
    folder: RunFolder,
    progress: str,
) -> Network:
    stage = settings.stage2
    assert stage is not None and stage.rebalance is not None
    streams = Streams.seeded(settings.seed, 2, fabric.global_rank, fabric.device)
    backbone = frozen(network.backbone, fabric)
    inputs = RebalanceInputs(
        torch.tensor(dataset.class_counts),
        lambda: outputs_of(backbone, dataset.train_images, dataset, fabric.device).cpu(),
        dataset.train_labels,
        streams.weights,
    )
    network = channels_last(stage.rebalance.network(network.cpu(), inputs).to(fabric.device))
    on_images = stage.rebalance.on_images

    @functools.cache
    def test_features() -> Tensor:
        return outputs_of(backbone, dataset.test_images, dataset, fabric.device)

    def seen(batches: Any) -> Batches:
        return batches if on_images else FrozenFeatures(batches, backbone)

    def evaluate() -> dict[str, Any]:
        if on_images:
            return _network_accuracy(fabric, network, dataset)
        return _accuracy(network.head, test_features(), dataset)

    train_stage(
        fabric,
        stage,
        network if on_images else network.head,
        _parts(fabric, stage, dataset, streams, seen),
        streams,
        evaluate,
        folder,
        "stage 2",
        progress,
    )
    return network


def _parts(
    fabric: Fabric,
    stage: Stage,
    dataset: LongTailedDataset,
    streams: Streams,
    seen: Callable[[Any], Batches] = lambda batches: batches,
) -> Callable[[int], tuple[Batches, nn.Module]]:
    """Batches and criterion of each epoch; what is deferred counts from its epoch on.

    Args:
        seen: what the trained module sees of the images.
    """
    counts = torch.tensor(dataset.class_counts)

    def criterion(weights: ClassWeights | None) -> nn.Module:
        built = stage.objective.build(counts, streams.noise, "none" if weights else "mean")
        if weights:
            built = Reweighted(built, weights.weights(counts), by_images=weights.by_images)
        return built.to(fabric.device)

    images = TrainingImages(
        dataset,
        stage.sampler.build(dataset.train_labels, streams.order),
        stage.batch_size,
        streams,
        fabric.device,
        mixup_alpha=stage.mixup_alpha,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
    )
    balanced = images, criterion(stage.class_weights)
    plain = InstanceBalanced().build(dataset.train_labels, streams.order)
    before = images.drawn_by(plain), criterion(None)

    def parts(epoch: int) -> tuple[Batches, nn.Module]:
        drawn, criterion = balanced if epoch >= stage.balanced_from else before
        return seen(stage.objective.batches(drawn, epoch / stage.epochs)), criterion

    return parts


def _network_accuracy(
    fabric: Fabric, network: Network, dataset: LongTailedDataset
) -> dict[str, Any]:
    backbone = frozen(network.backbone, fabric)
    features = outputs_of(backbone, dataset.test_images, dataset, fabric.device)
    return _accuracy(network.head, features, dataset)


@torch.no_grad()
def _accuracy(head: nn.Module, features: Tensor, dataset: LongTailedDataset) -> dict[str, Any]:
    confusion = confusion_matrix(head.eval()(features), dataset.test_labels)
    result = accuracies(confusion, dataset.groups)
    if dataset.num_classes <= 100:  # 8,142 classes would make 66 million cells
        result["confusion"] = confusion.tolist()
    return result
