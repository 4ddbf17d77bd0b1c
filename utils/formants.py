"""Moves the formants of a voice without its pitch and its duration, so that another vocal tract seems to speak.

The cepstrum splits the spectrum of each frame into its envelope and the rest: coefficients below QUEFRENCY make the
envelope E, which a tract of another length stretches (vocal tract length perturbation, Jaitly and Hinton 2013):
    Y(f) = X(f) E(f / factor) / E(f).
"""

import numpy as np

WINDOW, SHIFT = 0.032, 0.008  # seconds
QUEFRENCY = 0.0025  # seconds, the pitch period of 400 Hz; those of most voices are longer
GAIN = 30.0  # dB, at most, up or down


def move_formants(samples: np.ndarray, rate: int, factor: float) -> np.ndarray:
    """Return N samples (float32) with all resonances at `factor` times their frequency."""
    from scipy.signal import istft, stft  # a second, which only copies need

    size = round(WINDOW * rate)
    kept, lifter = round(QUEFRENCY * rate), np.zeros(size)
    lifter[:kept] = lifter[size - kept + 1:] = 1.0
    shape = {"fs": rate, "nperseg": size, "noverlap": size - round(SHIFT * rate)}
    spectrum = stft(samples.astype(np.float64), **shape)[2]  # F x T
    cepstrum = np.fft.irfft(np.log(np.abs(spectrum) + 1e-8), size, axis=0)
    envelope = np.fft.rfft(cepstrum * lifter[:, None], axis=0).real  # natural logarithms
    places = np.minimum(np.arange(len(envelope)) / factor, len(envelope) - 1)
    low = np.minimum(places.astype(int), len(envelope) - 2)
    share = (places - low)[:, None]
    moved = (1 - share) * envelope[low] + share * envelope[low + 1]
    limit = GAIN * np.log(10) / 20
    gain = np.exp(np.clip(moved - envelope, -limit, limit))
    return istft(spectrum * gain, **shape)[1][:len(samples)].astype(np.float32)
