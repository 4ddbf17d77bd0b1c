"""Devices that a network runs on, and settings of their memory and precision."""

import ctypes
import os
from pathlib import Path

import torch

from utils.errors import InputError

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
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        words = set(processor.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})  # Intel and AMD; ARM


def driver_version() -> str | None:
    """Return the CUDA version that the machine's NVIDIA driver supports, such as 12.4; None without a driver."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)):
            return None
    except (OSError, AttributeError):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def why_no_gpu() -> str:
    """Return why PyTorch finds no GPU: the CUDA of its build, that of the driver; and the remedy."""
    built, driver = torch.version.cuda, driver_version()
    supports = f"the driver supports CUDA {driver}" if driver else "no NVIDIA driver was found"
    if built is None:
        return f"it was built without CUDA, {supports}; install another build (VOX_TORCH, see docs/faq.md)"
    if driver and int(built.partition(".")[0]) > int(driver.partition(".")[0]):  # minor versions are compatible
        return (f"it was built for CUDA {built}, {supports}; install a newer driver or another build (VOX_TORCH, see "
                "docs/faq.md)")
    return f"it was built for CUDA {built}, {supports}; check nvidia-smi and CUDA_VISIBLE_DEVICES"


def find_device(name: str) -> torch.device:
    """Return the device `cpu`, `cuda` or `cuda:N`; raises InputError when this machine lacks it."""
    if name == "cpu":
        return torch.device(name)
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise InputError(f"--device {name}: wanted cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise InputError(f"--device {name}: PyTorch {torch.__version__} finds no GPU here: {why_no_gpu()}, or use "
                         "--device cpu")
    if int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine has {torch.cuda.device_count()} GPUs, counted from 0")
    return torch.device(name)
