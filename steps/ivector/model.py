"""A trained i-vector system: system.yaml, final.ubm and final.ie of its folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from steps.ivector.config import IvectorConfig, read_ivector_config
from steps.ivector.extractor import Extractor, Posterior, read_extractor
from steps.ivector.frames import AT_ONCE
from steps.ivector.gmm import FullGmm, FullPosteriors
from steps.ivector.gmm_files import read_full
from steps.ivector.utterance_stats import block_statistics
from utils.errors import InputError


def read_system(folder: Path) -> tuple[IvectorConfig, FullGmm, Extractor]:
    """Return the contents of a model folder; raises InputError if a file is damaged or the files do not match."""
    config = read_ivector_config(folder / "system.yaml")
    ubm, model = read_full(folder / "final.ubm"), read_extractor(folder / "final.ie")
    if model.m.shape[:2] != ubm.means.shape:
        raise InputError(f"{folder}: final.ie has {tuple(model.m.shape[:2])} Gaussians and dimensions, "
                         f"final.ubm {tuple(ubm.means.shape)}; train the extractor again")
    return config, ubm, model


class IvectorModel:
    """I-vectors of utterances that are in memory. dim: S; frames_dim: D."""

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        self.config, ubm, model = read_system(folder)
        self.device, self.dim, self.frames_dim = device, model.m.shape[2], ubm.means.shape[1]
        self.gaussians = len(ubm.weights)
        self.posterior = Posterior(model, device)
        self.posteriors_of = FullPosteriors(ubm.to(device, torch.float32), self.config.ubm.num_gselect,
                                            self.config.extractor.min_post)

    def __call__(self, utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Return the i-vectors (U x S float32) of utterances after the front end (T x D each)."""
        found = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(utterances), AT_ONCE):
            block = utterances[start:start + AT_ONCE]
            x = torch.from_numpy(np.concatenate(block)).to(self.device)
            lengths = np.array([len(frames) for frames in block])
            counts, sums = block_statistics(self.posteriors_of.pairs(x), x, lengths, self.gaussians)
            found.append(self.posterior.ivectors(counts, sums).cpu().numpy())
        return np.concatenate(found)
