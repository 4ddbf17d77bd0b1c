"""Mean and variance normalisation over a sliding window or over all frames, in Kaldi's convention."""

import numpy as np

VARIANCE_FLOOR = 1e-10


def sliding_windows(frames: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first frame and the end (exclusive) of each frame's window, two int arrays of size T.

    The window is centred on the frame; near an end it is shifted inwards, not shortened, as in Kaldi
    (apply-cmvn-sliding --center=true). Shorter utterances are normalised over all their frames.
    """
    start = np.arange(frames) - window // 2
    start = np.clip(start, 0, max(frames - window, 0))
    return start, np.minimum(start + window, frames)


def normalise(features: np.ndarray, window: int | None = None, norm_vars: bool = False) -> np.ndarray:
    """Subtract the mean of each frame's window, T x F; divide by the standard deviation if `norm_vars`.

    window: frames; None takes all frames. Sums are cumulative, in float64, so the cost does not depend
    on the window. Returns float32. A window of one frame gives zeros.
    """
    frames = len(features)
    if frames == 0:
        return features
    start, end = sliding_windows(frames, window or frames)
    if window is None or window >= frames:
        start, end = start[:1], end[:1]  # the same for every frame
    count = (end - start)[:, None]
    wide = features.astype(np.float64)
    mean = _window_sums(wide, start, end) / count
    if not norm_vars:
        return (wide - mean).astype(np.float32)
    variance = _window_sums(wide * wide, start, end) / count - mean * mean
    variance = np.maximum(variance, VARIANCE_FLOOR)
    return ((wide - mean) / np.sqrt(variance)).astype(np.float32)


def _window_sums(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    if len(start) == 1:
        return values.sum(axis=0, keepdims=True)
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums[end] - sums[start]
