"""A GPU that computes nothing: tensors that say they are on `cuda:0`, beside real ones on the CPU.

Inside `fake_cuda()` every operation on the device has the shapes and types of the real one, and
what a GPU would refuse or wait for is seen: two devices in one operation and shapes that depend on
values raise, and each copy to the host is written down with the line that asked for it. It needs
private parts of torch, so it is for the locked version.
"""

import contextlib
import traceback
from collections import Counter
from pathlib import Path
from typing import ClassVar
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import gcl_core

CUDA = torch.device("cuda:0")
PACKAGE = str(Path(gcl_core.__file__).parent)
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default}


class Generator(torch.Generator):
    """One that says it is on the device it was asked for; operations know those by their seeds."""

    on_device: ClassVar[set[int]] = set()

    def __new__(cls, device="cpu"):
        return super().__new__(cls)

    def __init__(self, device="cpu"):
        self.place = torch.device(device)

    @property
    def device(self):
        return self.place

    def manual_seed(self, seed):
        if self.place.type == "cuda":
            self.on_device.add(seed)
        return super().manual_seed(seed)


class Guard(TorchDispatchMode):
    """Sends what happens on the device to `FakeTensorMode`; the host's own work stays real.

    Attributes:
        reads: (file, function) of the package -> copies to the host that it asked for.
        uploads: shape -> tensors of that shape that went to the device.
    """

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.reads, self.uploads = Counter(), Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        there = [each for each in tensors if isinstance(each, FakeTensor)]
        target = kwargs.get("device")
        on_device = bool(there) if target is None else torch.device(target).type == "cuda"
        for generator in (leaf for leaf in leaves if isinstance(leaf, torch._C.Generator)):
            if (generator.initial_seed() in Generator.on_device) != on_device:
                raise RuntimeError(f"{operation} has a generator of another device")
        if on_device:
            args, kwargs = tree_map_only(torch._C.Generator, lambda _: None, (args, kwargs))
        if not there and not on_device:
            return operation(*args, **kwargs)
        to_host = operation in COPIES and not (on_device and isinstance(args[0], FakeTensor))
        if operation in READS or (there and to_host):
            self.reads[_asked()] += 1
            if operation in READS:
                return there[0].dtype.is_floating_point or 1
            source = args[0] if operation is torch.ops.aten._to_copy.default else args[1]
            return torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        if operation not in COPIES and len(there) < len(tensors):
            raise RuntimeError(f"{operation} mixes tensors of the host and of the device")
        with self.fake:
            if operation is torch.ops.aten._to_copy.default and not there:
                self.uploads[tuple(args[0].shape)] += 1
                kind = kwargs.get("dtype") or args[0].dtype
                return torch.empty_strided(args[0].shape, args[0].stride(), dtype=kind, device=CUDA)
            return operation(*args, **kwargs)


def _asked():
    """The innermost function of the package that is at work."""
    for frame, _ in traceback.walk_stack(None):
        if frame.f_code.co_filename.startswith(PACKAGE):
            return Path(frame.f_code.co_filename).name, frame.f_code.co_name
    return "outside", ""


def _backward(loss, *_, **__):
    """Reverse-mode differentiation by hand: torch's engine asks the driver for streams."""
    order, seen = [], set()

    def visit(node):
        stack = [(node, iter(node.next_functions))]
        seen.add(node)
        while stack:
            _, following = stack[-1]
            for other, _ in following:
                if other is not None and other not in seen:
                    seen.add(other)
                    stack.append((other, iter(other.next_functions)))
                    break
            else:
                order.append(stack.pop()[0])

    visit(loss.grad_fn)
    with torch.no_grad():
        gradients = {loss.grad_fn: {0: torch.ones_like(loss)}}
        for node in reversed(order):
            given = gradients.pop(node, {})
            if hasattr(node, "variable"):
                weight, gradient = node.variable, given[0]
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
                continue
            incoming = [given.get(i) for i in range(len(node._input_metadata))]
            outgoing = (node.apply if hasattr(node, "apply") else node)(*incoming)
            outgoing = outgoing if isinstance(outgoing, tuple) else (outgoing,)
            for (other, index), gradient in zip(node.next_functions, outgoing, strict=False):
                if other is None or gradient is None:
                    continue
                about = other._input_metadata[index]
                gradient = gradient.sum_to_size(about.shape).to(about.dtype)
                assert gradient.device == about.device
                into = gradients.setdefault(other, {})
                into[index] = into[index] + gradient if index in into else gradient


def _apply(module, function, recurse=True):
    """`Module._apply` with new parameters: real ones cannot become fake in place."""
    for child in module.children():
        child._apply(function)
    for name, weight in module._parameters.items():
        if weight is not None:
            new = torch.nn.Parameter(function(weight.detach()), weight.requires_grad)
            module._parameters[name] = new
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


@contextlib.contextmanager
def fake_cuda():
    """Yields a `Guard`; inside, `cuda:0` is there."""
    torch._C._ensureCUDADeviceGuardSet()  # what asks the driver for its device does nothing
    guard = Guard()
    patches = {
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.set_device": lambda _: None,
        "torch.cuda.get_device_capability": lambda *_: (9, 0),
        "torch.cuda.is_bf16_supported": lambda *_, **__: True,
        "torch.cuda.get_device_name": lambda *_: "a GPU that computes nothing",
        "torch.Generator": Generator,
        "torch.Tensor.backward": _backward,
        "torch.nn.Module._apply": _apply,
        "gcl_core.training.two_stages.repeatable_gpu": lambda: None,  # for the whole process
    }
    with contextlib.ExitStack() as stack:
        for name, value in patches.items():
            stack.enter_context(mock.patch(name, value))
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device=)` by way of the host
        stack.enter_context(guard)
        yield guard
