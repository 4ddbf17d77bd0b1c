"""Parts of a network that compute in single precision under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def in_full_precision(x: Tensor) -> AbstractContextManager:
    """Return a context without autocast on a tensor's device; `meta`, on which sizes are computed, has none."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)
