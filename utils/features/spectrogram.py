"""The spectrogram that figures show: log mel energies, whatever features a system takes."""

import kaldi_native_fbank
import numpy as np

from utils.audio import SAMPLE_RATE
from utils.features.compute import compute_features
from utils.features.options import FeatureOptions

BANDS = 80


def log_mel(samples: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Return the log mel energies of N samples on the 16-bit scale: T x BANDS, a frame every 10 ms."""
    kaldi = kaldi_native_fbank.FbankOptions()
    kaldi.frame_opts.samp_freq = rate
    kaldi.frame_opts.dither, kaldi.frame_opts.snip_edges, kaldi.mel_opts.num_bins = 0.0, False, BANDS
    return compute_features(samples, FeatureOptions("fbank", kaldi))
