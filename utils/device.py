"""The device that a program's `--device` names, and why there is none."""

import ctypes

import torch

from utils.errors import InputError


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


def find_device(name: str, tf32: bool = False) -> torch.device:
    """Return the device `cpu`, `cuda` or `cuda:N`; raises InputError when this machine lacks it.

    tf32: whether a GPU's convolutions and recurrent layers may round their factors to 10 bits instead of 23, which is
    faster and PyTorch's default. Only training asks for it, so that an embedding is that of a CPU.
    """
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
    torch.backends.cudnn.allow_tf32 = tf32
    return torch.device(name)
