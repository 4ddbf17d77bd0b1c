"""MFCC and log mel energies of an utterance, computed with kaldi-native-fbank."""

import kaldi_native_fbank
import numpy as np

from utils.errors import InputError
from utils.features.options import FeatureOptions

AT_ONCE = 1 << 20  # samples passed to the library at a time


def compute_features(samples: np.ndarray, options: FeatureOptions) -> np.ndarray:
    """Return the features of mono `samples` (16-bit scale, at options.rate): T x options.dim, float32.

    Raises InputError if the samples are too few for one frame, or so large that a feature is infinite.
    """
    kind = kaldi_native_fbank.OnlineMfcc if options.kind == "mfcc" else kaldi_native_fbank.OnlineFbank
    samples = np.ascontiguousarray(samples, np.float32)
    computer = kind(options.kaldi)
    found = []
    # In parts: the library copies them. It takes a sequence of floats: a memoryview is read faster than a list is made.
    for start in range(0, len(samples), AT_ONCE):
        computer.accept_waveform(options.rate, memoryview(samples[start:start + AT_ONCE]))
        if start + AT_ONCE >= len(samples):
            computer.input_finished()
        found += _new_frames(computer, sum(map(len, found)))
    if not found:
        raise InputError(f"{len(samples)} samples at {options.rate} Hz are too short for one frame")
    features = np.concatenate(found)
    if not np.isfinite(features).all():
        raise InputError(f"NaN or infinite features; the largest sample is {np.abs(samples).max():g} of 32768")
    return features


def _new_frames(computer: kaldi_native_fbank.OnlineFbank, first: int) -> list[np.ndarray]:
    """Return the frames from `first` on as a list of one array, or an empty list."""
    frames = [computer.get_frame(frame) for frame in range(first, computer.num_frames_ready)]
    found = [np.stack(frames)] if frames else []
    computer.pop(len(frames))  # frees their memory, now that they are copied
    return found
