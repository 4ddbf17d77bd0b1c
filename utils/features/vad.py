"""Voice activity by energy, in Kaldi's convention (compute-vad)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import InputError
from utils.features.options import read_conf


@dataclass(frozen=True)
class VadOptions:
    """Kaldi's options and defaults; files name them --vad-energy-threshold and so on."""

    energy_threshold: float = 5.0      # in units of the log energy, column 0 of the features
    energy_mean_scale: float = 0.5     # this share of the utterance's mean log energy is added to it
    frames_context: int = 0            # voting frames on each side
    proportion_threshold: float = 0.6  # share of votes that makes a frame voiced


def read_vad_options(path: str | os.PathLike) -> VadOptions:
    """Read a conf file; raises InputError for unknown options and values out of range."""
    types = {name: type(value) for name, value in vad_written_out(VadOptions()).items()}
    return vad_options(read_conf(path, types), path)


def vad_options(values: Mapping[str, Any], where: str | os.PathLike) -> VadOptions:
    """Return the options from names such as `vad-energy-threshold`; raises InputError for values out of range."""
    options = VadOptions(**{name[4:].replace("-", "_"): value for name, value in values.items()})
    if not 0 <= options.frames_context <= 1000 or not 0 <= options.proportion_threshold <= 1:
        raise InputError(f"{where}: --vad-frames-context is {options.frames_context} and --vad-proportion-threshold "
                         f"{options.proportion_threshold}; wanted 0 to 1000 frames and a share from 0 to 1")
    return options


def vad_written_out(options: VadOptions) -> dict[str, Any]:
    """Return all options by their names in files."""
    return {f"vad-{name.replace('_', '-')}": value for name, value in vars(options).items()}


def energy_vad(features: np.ndarray, options: VadOptions) -> np.ndarray:
    """Return 1 for each voiced frame and 0 for the others, float32; features: T x F, column 0 the log energy.

    A frame is voiced if at least the given proportion of the existing frames in its context have an
    energy above threshold + mean scale * mean.
    """
    energy = features[:, 0]
    if len(energy) == 0:
        return np.zeros(0, np.float32)
    threshold = options.energy_threshold + options.energy_mean_scale * energy.mean(dtype=np.float64)
    window = np.ones(2 * options.frames_context + 1)
    middle = slice(options.frames_context, options.frames_context + len(energy))
    votes = np.convolve(energy > threshold, window)[middle].round()
    voters = np.convolve(np.ones(len(energy)), window)[middle].round()
    # In float32, like Kaldi: 3 of 5 are a share of 0.6 then, and less than 0.6 in float64.
    needed = voters.astype(np.float32) * np.float32(options.proportion_threshold)
    return (votes >= needed).astype(np.float32)
