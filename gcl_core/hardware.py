"""What the hardware offers: bfloat16, batch sizes for inference, and memory that is kept."""

import ctypes
from typing import TypeVar

import torch

BFLOAT16, FLOAT32 = "bfloat16", "float32"
PRECISIONS = (BFLOAT16, FLOAT32)

Module = TypeVar("Module", bound=torch.nn.Module)


def best_precision(accelerator: str = "auto") -> str:
    """Name the precision: "bfloat16" where the hardware multiplies it, else "float32"."""
    if accelerator != "cpu" and torch.cuda.is_available():
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        supported = torch.cpu._is_avx512_bf16_supported()
    return BFLOAT16 if supported else FLOAT32


def inference_batch(device: torch.device, shape: tuple[int, int, int]) -> int:
    """Images of a shape (channels, H, W) that go through a frozen network together.

    A GPU waits for launches and takes many; a CPU is fastest while its cache holds the activations,
    which is so for about 64 images of 32x32 (measured).
    """
    together = 64 if device.type == "cpu" else 1024
    return max(1, together * 32 * 32 // (shape[1] * shape[2]))


def channels_last(module: Module) -> Module:
    """The module with its weights laid out channels last, as convolutions are fastest."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system after every layer.

    A training step frees and asks again for the same few hundred MB; without this each request
    costs page faults, a fifth of a step on a CPU. Other C libraries: no effect.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)
    mallopt(top_pad, 2**26)
