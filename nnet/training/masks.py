"""SpecAugment (Park et al. 2019): each chunk gets a mask in time and one in frequency, filled with 0, the mean."""

import numpy as np
import torch
from torch import Tensor


def draw_spans(rng: np.random.Generator, widest: tuple[int, int], shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Draw start and stop of a chunk's two masks: over its frames, and over its bands.

    widest: longest mask in time, widest in frequency; for 0, no number is drawn. shape: T, F.
    """
    spans = []
    for most, size in zip(widest, shape, strict=True):
        width = int(rng.integers(min(most, size) + 1)) if most else 0
        start = int(rng.integers(size - width + 1)) if most else 0
        spans.append((start, start + width))
    return spans


def mask(x: Tensor, spans: Tensor) -> Tensor:
    """Return chunks with masks; x: B x T x F; spans: B x 2 x 2, start and stop in time and in frequency."""
    for axis in (1, 2):
        start, stop = spans[:, axis - 1, :, None].unbind(1)
        place = torch.arange(x.shape[axis], device=x.device)
        masked = (place >= start) & (place < stop)
        x = x.masked_fill(masked.unsqueeze(3 - axis), 0)
    return x
