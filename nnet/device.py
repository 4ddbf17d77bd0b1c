"""What a device can do, and how tensors get there; settings of the memory. utils/device.py finds the device."""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Parameters of the C library's mallopt, and their values.
MALLOPT = ((-4, 0),   # M_MMAP_MAX: large blocks come from the heap, too, ...
           (-1, -1),  # M_TRIM_THRESHOLD: ... which is never given back to the system ...
           (-8, 1))   # M_ARENA_MAX: ... and which all threads share


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next allocations.

    By default it returns large blocks to the system, which fills their pages with zeros again at each step: a third of
    the time of an x-vector's step on a CPU. Call it before the first tensor is made. C libraries without mallopt are
    left as they are.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch asks for pages of 2 MB
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for name, value in MALLOPT:
            library.mallopt(name, value)


def has_bf16(device: torch.device, processor: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether a device multiplies in bf16 in hardware; other processors are some 20 times slower in bf16 than in fp32.

    processor: the kernel's list of the processor's features; without that file the answer is no.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # PyTorch asks the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        words = set(processor.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})  # Intel and AMD; ARM


def moved(x: Tensor, device: torch.device) -> Tensor:
    """Return a CPU's tensor on a device. To a GPU it goes from pinned memory, and nothing waits for it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def one_at_a_time(compute: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Return a function for several threads. On a GPU, the calls wait for each other: one batch must fit its memory."""
    if device.type != "cuda":
        return compute
    lock = threading.Lock()

    def alone(*arguments: Any) -> Any:
        with lock:
            return compute(*arguments)

    return alone
