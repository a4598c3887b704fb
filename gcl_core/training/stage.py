"""One stage of training: epochs over batches, checkpoints after and within them, a result."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from gcl_core.data.batch import Batches
from gcl_core.data.dataset import LongTailedDataset, Split
from gcl_core.data.epoch import FrozenFeatures, TrainingImages, clean_batches
from gcl_core.data.streams import Streams
from gcl_core.errors import GCLError
from gcl_core.hardware import from_environment
from gcl_core.methods.reweight import ClassWeights, Reweighted
from gcl_core.methods.sampling import InstanceBalanced
from gcl_core.methods.settings import Stage, learning_rate
from gcl_core.networks.network import Network
from gcl_core.processes import same_buffers, summed
from gcl_core.training.evaluation import Inference, Tally, frozen
from gcl_core.training.progress import Progress
from gcl_core.training.runs import RunFolder
from gcl_core.training.step import EAGER, Step, make_step

log = logging.getLogger(__name__)
BETWEEN_LOOKS = 16  # steps after which several processes look together at the time
KEPT = 2**26  # numbers: 256 MB of features that are computed once instead of in every epoch


@dataclass(frozen=True)
class StageRun:
    """A stage of a run: a frozen prefix of the network, and the rest, which is trained.

    Attributes:
        number: 1 or 2.
        stage: its settings.
        dataset: the images.
        network: the whole network, on the device.
        prefix: the frozen backbone, for inference; None where the whole network is trained.
        streams: what is drawn in this stage.
        folder: where its files go.
        fabric: device, precision and processes.
        step: its kind; see `gcl_core.training.step`.
        progress: see `Progress`.
    """

    number: int
    stage: Stage
    dataset: LongTailedDataset
    network: Network
    prefix: Inference | None
    streams: Streams
    folder: RunFolder
    fabric: Fabric
    step: str = EAGER
    progress: str = "none"

    @property
    def trained(self) -> nn.Module:
        """What is trained: the network, or its head on the features of a frozen prefix."""
        return self.network if self.prefix is None else self.network.head

    @cached_property
    def _phases(self) -> tuple[tuple[TrainingImages, nn.Module], ...]:
        """Images and criterion before sampler and class weights are in force, and from then on."""
        stage, labels, order = self.stage, self.dataset.train.labels, self.streams.order
        images = TrainingImages(
            self.dataset,
            stage.sampler.build(labels, order),
            stage.batch_size,
            self.streams,
            self.fabric.device,
            mixup_alpha=stage.mixup_alpha,
            rank=self.fabric.global_rank,
            ranks=self.fabric.world_size,
        )
        shuffled = replace(images, sampler=InstanceBalanced().build(labels, order))
        return (shuffled, self._criterion(None)), (images, self._criterion(stage.class_weights))

    def _criterion(self, weights: ClassWeights | None) -> nn.Module:
        counts = torch.tensor(self.dataset.class_counts)
        reduction = "none" if weights else "mean"
        built = self.stage.objective.build(counts, self.streams.noise, reduction)
        if weights:
            built = Reweighted(built, weights.weights(counts), by_images=weights.by_images)
        return built.to(self.fabric.device)

    def epoch(self, number: int) -> tuple[Batches, nn.Module]:
        """Batches and criterion of an epoch (0-based)."""
        images, criterion = self._phases[number >= self.stage.balanced_from]
        batches: Any = self.stage.objective.batches(images, number / self.stage.epochs)
        return batches if self.prefix is None else FrozenFeatures(batches, self.prefix), criterion

    def _features(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        fabric = self.fabric
        backbone = self.prefix or frozen(self.network.backbone, fabric)
        own = split, self.dataset, fabric.device, fabric.global_rank, fabric.world_size
        for images, labels in clean_batches(*own, title="testing", progress=self.progress):
            yield backbone(images), labels

    @cached_property
    def _kept_features(self) -> dict[int, list[tuple[Tensor, Tensor]]]:
        """Of a frozen prefix, by the identity of the part; those of a large one are not kept."""
        backbone: Any = self.network.backbone
        parts = self.dataset.parts[1:]  # all but the training images
        small = [part for part in parts if len(part) * backbone.out_features <= KEPT]
        return {id(part): list(self._features(part)) for part in small}

    @torch.no_grad()
    def evaluate(self, split: Split | None = None) -> dict[str, Any]:
        """Accuracies of the network as it is now on a part of the data, the test part if not said.

        Each process has its share of the images.
        """
        split = split or self.dataset.test
        tally = Tally(self.dataset.num_classes, self.fabric.device)
        head = self.network.head.eval()
        kept = self._kept_features if self.prefix is not None else {}
        for features, labels in kept.get(id(split)) or self._features(split):
            tally.add(head(features), labels)
        tally.cells = summed(tally.cells)
        return tally.accuracies(self.dataset.groups)


def train_stage(
    part: StageRun,
    keep: Collection[int] = (),
    save_more: Callable[[], object] | None = None,
) -> None:
    """Train in place until the folder holds a result, going on from its checkpoint.

    Everything that the next epoch depends on (weights, optimiser, random streams, epoch) is saved
    after the last epoch, and after each that ends a second or more after the last save (environment
    variable GCL_CHECKPOINT_SECONDS), and within an epoch whenever the last save is ten minutes ago
    (GCL_CHECKPOINT_STEP_SECONDS), so that a run that is killed and started again ends with the same
    bits. Then an epoch that was begun is drawn again, without reading an image of the steps that
    are done. A finished folder is only read; a module without trainable weights is only evaluated.

    Args:
        keep: epochs after which weights and accuracies are kept in the folder; 0 is before the
            first.
        save_more: writes what else a finished folder has, in one process: before the result, which
            says that all is there, or after it where that is there already.

    Raises:
        GCLError: the loss is no longer finite, a file of the folder is not fit for use, or
            one of the variables is no number >= 0.
        OSError: the folder cannot be written; the last checkpoint stays.
    """
    folder, fabric = part.folder, part.fabric
    between_saves = from_environment("GCL_CHECKPOINT_SECONDS", 1)
    between_step_saves = from_environment("GCL_CHECKPOINT_STEP_SECONDS", 600)
    with _opened(folder, fabric):
        saved, finished = folder.load_checkpoint(), folder.result is not None
        fabric.barrier()  # every process has read before any writes
        if saved is not None:
            part.trained.load_state_dict(saved["module"])
            part.dataset.refused.update(saved.get("refused", ()))
        elif finished:
            raise GCLError(
                f"{folder.path} has a result but no checkpoint.pt; move it away and run again"
            )
        if finished:
            if fabric.is_global_zero and save_more:
                save_more()
            return
        training = _Training(part, saved, between_saves, between_step_saves)
        training.run(keep)
        training.finish(save_more)
        fabric.barrier()


class _Training:
    """A stage that is being trained: what is done of it, and when that was saved.

    Args:
        saved: the checkpoint that it goes on from; None: from the start.
        between_saves, between_step_saves: see `train_stage`, in seconds.
    """

    def __init__(
        self,
        part: StageRun,
        saved: dict[str, Any] | None,
        between_saves: float,
        between_step_saves: float,
    ) -> None:
        self.part, self.fabric, self.module = part, part.fabric, part.trained
        self.title, self.writes = f"stage {part.number}", part.fabric.is_global_zero
        self.between_saves, self.between_step_saves = between_saves, between_step_saves
        self.history: list[dict[str, Any]] = saved["history"] if saved else []
        self.timings: list[dict[str, Any]] = []  # of the epochs since the last save
        self.accuracy: dict[str, Any] | None = None
        stage, weights = part.stage, parameter_groups(self.module)
        self.epochs = stage.epochs if weights else 0
        if weights:
            self.optimizer = torch.optim.SGD(
                weights,
                stage.lr,
                momentum=stage.momentum,
                weight_decay=stage.weight_decay,
                fused=True,
            )
            if saved is not None:
                self.optimizer.load_state_dict(saved["optimizer"])
                part.streams.restore(saved["streams"][self.fabric.global_rank])
            trained, stepper = self.fabric.setup(self.module, self.optimizer)
            self.step = make_step(part.step, self.fabric, trained, stepper, [part.streams.noise])
        # A checkpoint that was made after an epoch has none of it.
        within = saved["done"][self.fabric.global_rank] if saved and "done" in saved else None
        self.done = Done.on(self.fabric.device, within)

    def run(self, keep: Collection[int]) -> None:
        """Train and test the epochs that are left."""
        part, first = self.part, len(self.history)
        if self.writes:
            part.folder.write_metrics(self.history)  # killed after a checkpoint, it may lack a row
        if self.done.steps:
            about = self.title, first + 1, self.done.steps
            log.info("%s: going on in epoch %d, after step %d", *about)
        steps = len(part.epoch(0)[0])
        bar = Progress(part.progress, self.title, first, self.epochs, steps)
        if 0 in keep and not first:
            self._keep(0, part.evaluate())
        self.last_save = time.monotonic()
        with contextlib.closing(bar):
            bar.skip(self.done.steps)
            for epoch in range(first, self.epochs):
                row = self._train(epoch, bar)
                bar.testing()
                self.accuracy = part.evaluate()
                numbers = {k: own for k, own in self.accuracy.items() if not isinstance(own, list)}
                self.history.append(row | numbers | _on_validation(part))
                if epoch + 1 in keep:
                    self._keep(epoch + 1, self.accuracy)
                last = epoch + 1 == self.epochs
                if last or _is_time(self.fabric, 0, self.last_save + self.between_saves):
                    self._save(part.streams.state())
                bar.epoch(self.history[-1])

    def finish(self, save_more: Callable[[], object] | None) -> None:
        """Write the result, and what there is to load of a module without trainable weights."""
        # No epoch of it was trained here where it was killed after the last checkpoint, too.
        accuracy, folder = self.accuracy or self.part.evaluate(), self.part.folder
        if not self.writes:
            return
        if not self.epochs:
            state = {"module": self.module.state_dict(), "history": self.history}
            folder.save_checkpoint(state, [])
        dataset = self.part.dataset
        more: dict[str, Any] = {"class_names": list(dataset.class_names)}
        more |= {"unreadable": len(dataset.refused)} if dataset.refused else {}
        if save_more:
            save_more()
        folder.finish(accuracy | more | {"epochs": self.epochs} | _best(self.history))

    def _train(self, epoch: int, bar: Progress) -> dict[str, Any]:
        """Train an epoch (0-based), or the rest of it; returns its row, without accuracies."""
        part, began = self.part, time.perf_counter()
        rate = learning_rate(part.stage, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        batches, criterion = part.epoch(epoch)
        begun = part.streams.state()

        def after_step(done: Done) -> None:
            # Their states at the epoch's begin draw it again; noise is not drawn ahead.
            if _is_time(self.fabric, done.steps, self.last_save + self.between_step_saves):
                noise = {"noise": part.streams.noise.get_state()}
                self._save(begun | noise, done=_of_all_ranks(self.fabric, done.state()))

        try:
            loss = train_epoch(self.step, criterion, batches, bar, self.done, after_step)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # PyTorch's
                raise
            raise GCLError(
                f"{self.title}: a batch of one image, whose feature maps are one pixel, has no "
                "batch normalisation; another batch_size, or a larger image_size"
            ) from error
        same_buffers(self.module)
        self.done = Done.on(self.fabric.device)
        if not math.isfinite(loss):
            raise GCLError(
                f"{self.title}, epoch {epoch + 1}: the training loss is {loss}; "
                "a smaller lr or scale, or precision float32, may help"
            )
        seconds = round(time.perf_counter() - began, 3)
        self.timings.append({"epoch": epoch + 1, "train_seconds": seconds, "step": part.step})
        return {"epoch": epoch + 1, "lr": rate, "train_loss": loss}

    def _save(self, streams: dict[str, Tensor], **more: Any) -> None:
        refused = set[str]().union(*_of_all_ranks(self.fabric, self.part.dataset.refused))
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "streams": _of_all_ranks(self.fabric, streams),
            "history": self.history,
        }
        state |= {"refused": sorted(refused)} if refused else {}
        if self.writes:
            self.part.folder.save_checkpoint(state | more, self.timings)
        self.last_save, self.timings = time.monotonic(), []

    def _keep(self, epoch: int, result: dict[str, Any]) -> None:
        if self.writes:
            self.part.folder.keep(epoch, {"module": self.module.state_dict(), "result": result})


@contextlib.contextmanager
def _opened(folder: RunFolder, fabric: Fabric) -> Iterator[None]:
    """The folder, opened by rank 0; while it waits for another run, the others hear of it."""
    if fabric.is_global_zero:
        with folder.opened(waiting=lambda: fabric.broadcast(False)):
            fabric.broadcast(True)
            yield
    else:
        while not fabric.broadcast(False):
            pass
        yield


@dataclass
class Done:
    """What a process has done of an epoch: steps, images and the sum of their losses, ()."""

    steps: int
    images: int
    total: Tensor

    @classmethod
    def on(cls, device: torch.device, state: dict[str, Any] | None = None) -> "Done":
        """Nothing, or what the `state` of another one says."""
        state = state or {"steps": 0, "images": 0, "total": torch.zeros(())}
        return cls(**state | {"total": state["total"].to(device)})

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return vars(self) | {"total": self.total.cpu()}


def _is_time(fabric: Fabric, steps: int, moment: float) -> bool:
    """Whether a moment has come; several processes look, now and then, at the clock of rank 0."""
    if fabric.world_size == 1:
        return time.monotonic() >= moment
    return steps % BETWEEN_LOOKS == 0 and bool(fabric.broadcast(time.monotonic() >= moment))


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Trainable weights by the factor of their learning rate: `lr_factors`, by prefix.

    Those of the module and of every part of it; where several name a weight, the outermost counts.
    """
    factors = {
        f"{path}.{prefix}" if path else prefix: factor
        for path, part in module.named_modules()
        for prefix, factor in getattr(part, "lr_factors", {}).items()
    }
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            own = [factor for prefix, factor in factors.items() if name.startswith(prefix)]
            groups.setdefault(own[0] if own else 1.0, []).append(parameter)
    return [{"params": params, "lr_factor": factor} for factor, params in groups.items()]


def train_epoch(
    step: Step,
    criterion: nn.Module,
    batches: Batches,
    bar: Progress,
    done: Done | None = None,
    after_step: Callable[[Done], None] = lambda done: None,
) -> float:
    """One epoch, or what is not `done`; its mean loss. The host waits for the device once."""
    fabric = step.fabric
    step.module.train()
    criterion.train()
    done = done or Done.on(fabric.device)
    for batch in batches.without_first(done.steps) if done.steps else batches:
        done.total += step(criterion, batch) * len(batch.target)
        done.images += len(batch.target)
        done.steps += 1
        bar.step()
        after_step(done)
    total, images = done.total, torch.tensor(done.images)
    if fabric.world_size > 1:
        total, images = summed(torch.stack((total.double(), images.to(total))))
    return float(total) / float(images)


def _of_all_ranks(fabric: Fabric, state: Any) -> list[Any]:
    states = [state] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(states, states[fabric.global_rank])
    return states


def _on_validation(part: StageRun) -> dict[str, Any]:
    """Top-1 and mean of classes on the validation part, if there is one."""
    if part.dataset.validation is None:
        return {}
    accuracy = part.evaluate(part.dataset.validation)
    classes = [own for own in accuracy["per_class"] if own is not None]
    mean = round(sum(classes) / len(classes), 4)
    return {"validation_top1": accuracy["top1"], "validation_class_mean": mean}


def _best(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The epochs that would be chosen on the test part and, if there is one, on validation."""
    if not history:
        return {}
    best = max(history, key=lambda row: row["top1"])
    note = "optimistic: this epoch was chosen on the test set"
    found = {"best_on_test": {"top1": best["top1"], "epoch": best["epoch"], "note": note}}
    if "validation_class_mean" in best:
        chosen = max(history, key=lambda row: row["validation_class_mean"])
        note = "test accuracy after the epoch with the best class mean on the validation part"
        last = ("top1", "class_mean")
        found["validation"] = {name: history[-1][f"validation_{name}"] for name in last}
        own = {"top1": chosen["top1"], "epoch": chosen["epoch"], "note": note}
        found["best_on_validation"] = own
    return found
