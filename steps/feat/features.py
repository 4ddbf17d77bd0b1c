"""MFCC and log mel energies of an utterance, by kaldi-native-fbank."""

import kaldi_native_fbank
import numpy as np

from steps.feat.options import FeatureOptions
from utils.errors import InputError


def compute_features(samples: np.ndarray, options: FeatureOptions) -> np.ndarray:
    """Return the features of mono `samples` (16-bit scale, at options.rate): T x options.dim, float32.

    Raises InputError when the samples are too few for one frame.
    """
    kind = kaldi_native_fbank.OnlineMfcc if options.kind == "mfcc" else kaldi_native_fbank.OnlineFbank
    computer = kind(options.kaldi)
    computer.accept_waveform(options.rate, samples.tolist())
    computer.input_finished()
    if computer.num_frames_ready == 0:
        raise InputError(f"{len(samples)} samples at {options.rate} Hz are too short for one frame")
    return np.stack([computer.get_frame(frame) for frame in range(computer.num_frames_ready)])
