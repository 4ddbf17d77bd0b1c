"""Time derivatives of features, in Kaldi's convention (add-deltas)."""

import numpy as np


def delta_filters(order: int, window: int) -> list[np.ndarray]:
    """Return the filter of each derivative from 0 to `order`; filter i spans 2 * i * window + 1 frames.

    Each is the previous one convolved with the regression slope over 2 * window + 1 frames, i.e.
    -window..window divided by the sum of their squares.
    """
    slope = np.arange(-window, window + 1, dtype=np.float64)
    slope /= slope @ slope
    filters = [np.ones(1)]
    for _ in range(order):
        filters.append(np.convolve(filters[-1], slope))
    return filters


def add_deltas(features: np.ndarray, order: int = 2, window: int = 2) -> np.ndarray:
    """Return [features, first derivative, ...]: T x F to T x F (order + 1), float32.

    The first and last frames are repeated beyond the ends, also for higher orders, as in Kaldi.
    """
    frames, context = len(features), order * window
    if frames == 0 or order == 0:
        return np.tile(features, (1, order + 1))
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    parts = [features]
    for weights in delta_filters(order, window)[1:]:
        reach = len(weights) // 2
        delta = np.zeros_like(features, dtype=np.float32)
        for shift, weight in enumerate(weights, start=context - reach):
            if weight:
                delta += np.float32(weight) * padded[shift:shift + frames]
        parts.append(delta)
    return np.concatenate(parts, axis=1).astype(np.float32, copy=False)
