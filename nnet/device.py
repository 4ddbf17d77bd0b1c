"""Where a network runs."""

import torch

from utils.errors import InputError


def find_device(name: str) -> torch.device:
    """Return the device `cpu`, `cuda` or `cuda:N`; raises InputError when this machine lacks it."""
    if name == "cpu":
        return torch.device(name)
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise InputError(f"--device {name}: wanted cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise InputError(f"--device {name}: PyTorch {torch.__version__} finds no GPU here; use --device cpu")
    if int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: this machine has {torch.cuda.device_count()} GPUs, counted from 0")
    return torch.device(name)
