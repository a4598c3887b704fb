"""One training step, a function of a batch: called from the host, or replayed by a GPU as a graph.

A step of a small network has some hundreds of kernels, each shorter than its launch from Python: a
GPU waits for the host. Captured once in a CUDA graph, all of them are launched together. The graph
has the same kernels in the same order, and moves the same generators: the bits are the same.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from gcl_core.data.batch import Batch
from gcl_core.errors import GCLError, check_known

EAGER, CAPTURED = "eager", "captured"
STEPS = ("auto", EAGER, CAPTURED)
WARM_UP = 3  # eager steps before a capture, which make momentum and the libraries' workspaces

Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


def step_kind(asked: str, fabric: Fabric) -> str:
    """Name the step, "eager" or "captured"; "auto" captures on a GPU, in a run of one process.

    Raises:
        GCLError: an unknown name, or "captured" where that cannot be.
    """
    check_known("step", asked, STEPS)
    possible = fabric.device.type == "cuda" and fabric.world_size == 1
    if asked == CAPTURED and not possible:
        raise GCLError(
            f"step 'captured' needs a GPU and one process, got {fabric.world_size} on "
            f"{fabric.device.type}; 'auto' and 'eager' work everywhere"
        )
    return CAPTURED if possible and asked != EAGER else EAGER


class Step:
    """Forward, loss, backward and optimiser for one batch; returns the loss, ().

    Args:
        fabric, module, optimizer: as `Fabric.setup` gives them.
    """

    def __init__(self, fabric: Fabric, module: nn.Module, optimizer: Any) -> None:
        self.fabric, self.module, self.optimizer = fabric, module, optimizer

    def __call__(self, criterion: nn.Module, batch: Batch) -> Tensor:
        loss = batch.loss(criterion, self.module(batch.inputs))
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss if batch.weight == 1 else batch.weight * loss)
        self.optimizer.step()
        return loss.detach()


class CapturedStep(Step):
    """The same, recorded once and then replayed on one batch of tensors that are filled anew.

    The first steps with a criterion are eager. It is recorded again for another criterion and
    another learning rate, which is a constant in it. A batch of another shape than the first, as
    the last of an epoch, is eager. The loss is overwritten by the next step.

    Args:
        record: makes a function that replays what another one does.
    """

    def __init__(self, fabric: Fabric, module: nn.Module, optimizer: Any, record: Record) -> None:
        super().__init__(fabric, module, optimizer)
        self.record = record
        self.criterion: nn.Module | None = None
        self.shapes: list[torch.Size] = []
        self.rates: list[float] = []

    def __call__(self, criterion: nn.Module, batch: Batch) -> Tensor:
        given = batch.tensors()
        shapes = [tensor.shape for tensor in given]
        if criterion is not self.criterion:
            self.criterion, self.shapes, self.rates = criterion, shapes, []
            self.eager_left = WARM_UP
        if shapes != self.shapes or self.eager_left:
            self.eager_left -= shapes == self.shapes
            return super().__call__(criterion, batch)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if rates != self.rates:
            self.rates, self.batch = rates, copy.deepcopy(batch)
            self.replay = self.record(lambda: Step.__call__(self, criterion, self.batch))
        for ours, theirs in zip(self.batch.tensors(), given, strict=True):
            ours.copy_(theirs)
        return self.replay()


def make_step(
    kind: str,
    fabric: Fabric,
    module: nn.Module,
    optimizer: Any,
    generators: Sequence[torch.Generator],
) -> Step:
    """The step of a kind that `step_kind` gives; `generators` are those that it draws from."""
    if kind == EAGER:
        return Step(fabric, module, optimizer)
    return CapturedStep(fabric, module, optimizer, lambda body: _recorded(body, generators))


def _recorded(
    body: Callable[[], Tensor], generators: Sequence[torch.Generator]
) -> Callable[[], Tensor]:
    """A CUDA graph of what the body does; making it does none of it."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # Other threads, such as those of a Dask worker, may go on using the GPU.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        loss = body()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay
