"""One stage of training: epochs over batches, a checkpoint after each, a result at the end."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Collection
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from gcl_core.data.batch import Batches
from gcl_core.data.batches import Streams
from gcl_core.errors import GCLError
from gcl_core.methods.settings import Stage, learning_rate
from gcl_core.training.progress import Progress
from gcl_core.training.runs import RunFolder


def train_stage(
    fabric: Fabric,
    stage: Stage,
    module: nn.Module,
    parts: Callable[[int], tuple[Batches, nn.Module]],
    streams: Streams,
    evaluate: Callable[[], dict[str, Any]],
    folder: RunFolder,
    title: str,
    progress: str = "none",
    keep: Collection[int] = (),
) -> None:
    """Train `module` in place until the folder holds a result, going on from its checkpoint.

    Everything that the next epoch depends on (weights, optimiser, random streams, epoch) is saved
    after the last epoch, and after each that ends a second or more after the last save (environment
    variable GCL_CHECKPOINT_SECONDS), so that a run that is killed and started again ends with the
    same bits. A finished folder is only read; a module without trainable weights is only evaluated.

    Args:
        parts: batches and criterion of an epoch (0-based).
        evaluate: accuracies of the module as it is now; `top1` among them.
        title, progress: see `Progress`.
        keep: epochs after which weights and accuracies are kept in the folder; 0 is before the
            first.

    Raises:
        GCLError: the loss is no longer finite, a file of the folder is not fit for use, or
            GCL_CHECKPOINT_SECONDS is no number >= 0.
        OSError: the folder cannot be written; the last checkpoint stays.
    """
    writes = fabric.is_global_zero
    between_saves = _checkpoint_seconds()
    with folder.opened() if writes else contextlib.nullcontext():
        fabric.barrier()
        saved, finished = folder.load_checkpoint(), folder.result is not None
        fabric.barrier()  # every process has read before any writes
        if saved is not None:
            module.load_state_dict(saved["module"])
        elif finished:
            raise GCLError(
                f"{folder.path} has a result but no checkpoint.pt; move it away and run again"
            )
        if finished:
            return
        history: list[dict[str, Any]] = saved["history"] if saved else []
        if writes:
            folder.write_metrics(history)  # killed after a checkpoint, it may lack that row
        weights = parameter_groups(module)
        epochs = stage.epochs if weights else 0
        if weights:
            optimizer = torch.optim.SGD(
                weights,
                stage.lr,
                momentum=stage.momentum,
                weight_decay=stage.weight_decay,
                fused=True,
            )
            if saved is not None:
                optimizer.load_state_dict(saved["optimizer"])
                streams.restore(saved["streams"][fabric.global_rank])
            trained, stepper = fabric.setup(module, optimizer)
        bar = Progress(
            progress if writes else "none", title, len(history), epochs, len(parts(0)[0])
        )
        if writes and 0 in keep and not history:
            folder.keep(0, {"module": module.state_dict(), "result": evaluate()})
        last_save, timings = time.monotonic(), list[dict[str, float]]()
        with contextlib.closing(bar):
            for epoch in range(len(history), epochs):
                began = time.perf_counter()
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(stage, epoch) * group["lr_factor"]
                batches, criterion = parts(epoch)
                loss = train_epoch(fabric, trained, stepper, criterion, batches, bar)
                if not math.isfinite(loss):
                    raise GCLError(
                        f"{title}, epoch {epoch + 1}: the training loss is {loss}; "
                        "a smaller lr or scale, or precision float32, may help"
                    )
                seconds = time.perf_counter() - began
                row = {"epoch": epoch + 1, "lr": learning_rate(stage, epoch), "train_loss": loss}
                accuracy = evaluate()
                history.append(row | _one_row(accuracy))
                state = {
                    "module": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "streams": _of_all_ranks(fabric, streams),
                    "history": history,
                }
                if writes:
                    if epoch + 1 in keep:
                        folder.keep(epoch + 1, {"module": state["module"], "result": accuracy})
                    timings.append({"epoch": epoch + 1, "train_seconds": round(seconds, 3)})
                    if epoch + 1 == epochs or time.monotonic() - last_save >= between_saves:
                        folder.save_checkpoint(state, timings)
                        last_save, timings = time.monotonic(), []
                bar.epoch(history[-1])
        if writes:
            if not weights:
                folder.save_checkpoint({"module": module.state_dict(), "history": history}, [])
            folder.finish(evaluate() | {"epochs": epochs} | _best_on_test(history))
        fabric.barrier()


def _checkpoint_seconds() -> float:
    text = os.environ.get("GCL_CHECKPOINT_SECONDS", "1")
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise GCLError(f"GCL_CHECKPOINT_SECONDS must be a number >= 0, got {text!r}")


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
    fabric: Fabric,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: nn.Module,
    batches: Batches,
    bar: Progress,
) -> float:
    """One epoch; returns the mean loss. The host waits for the device once, at the end."""
    module.train()
    criterion.train()
    total = torch.zeros((), device=fabric.device)
    images = 0
    for batch in batches:
        loss = batch.loss(criterion, module(batch.inputs))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        total += loss.detach() * len(batch.target)
        images += len(batch.target)
        bar.step()
    return float(total) / images


def _one_row(accuracy: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in accuracy.items() if not isinstance(value, list)}


def _of_all_ranks(fabric: Fabric, streams: Streams) -> list[dict[str, Tensor]]:
    states = [streams.state()] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(states, states[fabric.global_rank])
    return states


def _best_on_test(history: list[dict[str, Any]]) -> dict[str, Any]:
    if not history:
        return {}
    best = max(history, key=lambda row: row["top1"])
    note = "optimistic: this epoch was chosen on the test set"
    return {"best_on_test": {"top1": best["top1"], "epoch": best["epoch"], "note": note}}
