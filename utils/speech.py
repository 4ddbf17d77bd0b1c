"""Where a recording has speech, by its level, and regions of time in general."""

import numpy as np

LENGTH, SHIFT = 0.025, 0.01  # of a frame, seconds
LOUD = 95          # percentile of the frames' levels that stands for the voice
QUIET_DB = 30.0    # frames this much below it are pauses
GAP, LEAST = 0.3, 0.2  # seconds: shorter pauses are filled, then shorter speech is dropped


def loud_frames(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return whether each frame, one per SHIFT, is at most QUIET_DB below the loud ones; samples: 16-bit scale."""
    length, shift = round(LENGTH * rate), round(SHIFT * rate)
    count = max(0, (len(samples) - length) // shift + 1)
    sums = np.cumsum(np.concatenate([[0.0], np.square(samples, dtype=np.float64)]))
    starts = np.arange(count) * shift
    power = (sums[starts + length] - sums[starts]) / length + 1e-3  # a step of 16 bits has 1/12
    if not count:
        return np.zeros(0, bool)
    return 10 * np.log10(power / np.percentile(power, LOUD)) > -QUIET_DB


def regions_of(active: np.ndarray, shift: float = SHIFT, gap: float = GAP, least: float = LEAST) -> np.ndarray:
    """Return N x 2 times in seconds of the active frames, without short gaps and short regions."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]]))).reshape(-1, 2) * shift
    if not len(edges):
        return edges.astype(np.float64)
    apart = edges[1:, 0] - edges[:-1, 1] >= gap - 1e-9
    starts, ends = edges[np.append(True, apart), 0], edges[np.append(apart, True), 1]
    kept = ends - starts >= least - 1e-9
    return np.stack([starts[kept], ends[kept]], axis=1)
