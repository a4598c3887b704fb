"""What the hardware offers: bfloat16, threads, batch sizes for inference, memory that is kept."""

import contextlib
import ctypes
import os
import time
from pathlib import Path
from typing import TypeVar

import torch

from gcl_core.errors import GCLError

BFLOAT16, FLOAT32 = "bfloat16", "float32"
PRECISIONS = (BFLOAT16, FLOAT32)
SMALL_NETWORKS = ("digits_cnn", "features")

Module = TypeVar("Module", bound=torch.nn.Module)


def device_kind(accelerator: str, network: str) -> str:
    """Name the kind of device, "cpu" or "gpu", that an accelerator is for a network.

    "auto" is a GPU where there is one; a small network, whose steps are shorter than a GPU's
    launches, stays on the CPU.
    """
    if accelerator != "auto":
        return accelerator
    return "gpu" if torch.cuda.is_available() and network not in SMALL_NETWORKS else "cpu"


def gpus() -> int:
    """GPUs that this process may use."""
    return torch.cuda.device_count()


def take_gpu(number: int) -> None:
    """Let this process, which has used none yet, see one GPU of several: number n of N, n mod N."""
    if (several := gpus()) > 1:
        every = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(several))))
        os.environ["CUDA_VISIBLE_DEVICES"] = every.split(",")[number % several]


def best_precision(accelerator: str = "auto") -> str:
    """Name the precision: "bfloat16" where the hardware multiplies it, else "float32".

    A GPU of another machine is taken for one that does, as all since 2020.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "gpu":
        supported = True
    else:
        supported = torch.cpu._is_avx512_bf16_supported()
    return BFLOAT16 if supported else FLOAT32


def use_threads(threads: int | None, network: str, processes: int = 1) -> int:
    """Let PyTorch use so many CPU threads in each process of a run; returns how many these are.

    None: what OMP_NUM_THREADS says; else one for a small network, whose steps are too short to be
    shared, and for others as many as there are idle cores. Threads wait for each other several
    times a layer: with a busy core among theirs two are slower than one (3 to 8 times, measured).
    """
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    if threads is None:
        free = 1 if network in SMALL_NETWORKS else min(torch.get_num_threads(), idle_cores())
        threads = max(1, free // processes)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for the processes that this one starts
    torch.set_num_threads(threads)
    return threads


def usable_cores() -> int:
    """Cores that this process may use: those of its SLURM job or container, not of the machine."""
    import joblib  # slow to import, and asked for once

    return int(joblib.cpu_count())


def idle_cores(seconds: float = 0.2) -> int:
    """Cores that nobody used for a moment; all of them where the system does not tell."""
    cores = os.cpu_count() or 1
    try:
        before = _ticks()
        time.sleep(seconds)
        idle, passed = (after - then for after, then in zip(_ticks(), before, strict=True))
    except OSError:
        return cores
    return round(cores * idle / max(1, passed))


def _ticks() -> tuple[int, int]:
    """Ticks in which the cores had nothing to do, and all ticks, since the system started."""
    spent = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(spent[3:5]), sum(spent)


def memory_budget() -> int:
    """Bytes that decoded images may take in memory: GCL_MEMORY_GB, of 2^30 bytes each; 1 if unset.

    Raises:
        GCLError: it is no number from 0 to 1e9.
    """
    return int(from_environment("GCL_MEMORY_GB", 1) * 2**30)


def from_environment(variable: str, default: float) -> float:
    """The number from 0 to 1e9 that an environment variable has; the default where it is not set.

    Raises:
        GCLError: it has something else.
    """
    text = os.environ.get(variable, str(default))
    with contextlib.suppress(ValueError):
        if 0 <= (given := float(text)) <= 1e9:
            return given
    raise GCLError(f"{variable} must be a number from 0 to 1e9, got {text!r}")


def inference_batch(device: torch.device, shape: tuple[int, int, int]) -> int:
    """Images of a shape (channels, H, W) that go through a frozen network together.

    A GPU waits for launches and takes many, 83 of 224x224; a CPU is fastest while its cache holds
    the activations, which is so for about 64 images of 32x32, and for 4 of 224x224 (measured).
    """
    together = 64 if device.type == "cpu" else 4096
    return max(4, together * 32 * 32 // (shape[1] * shape[2]))


def channels_last(module: Module) -> Module:
    """The module with its weights laid out channels last, as convolutions are fastest."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def repeatable_gpu() -> None:
    """Let GPUs give the same bits again, and let float32 be float32, not TF32.

    An operation that cannot give them raises. For the whole process, and before it uses a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS: see PyTorch's notes
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"


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
