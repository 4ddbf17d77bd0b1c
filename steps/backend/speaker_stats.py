"""What LDA and PLDA need to know of labelled vectors: all of it, in the size of the speakers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import InputError

BLOCK = 1 << 14  # vectors taken up at a time


@dataclass(frozen=True)
class SpeakerStats:
    """S speakers, N vectors of dimension D; float64.

    counts: S, vectors of each speaker. means: S x D, of each speaker. scatter: D x D, the sum of (x - m)(x - m)^T
    over all vectors x, m the mean of its speaker.
    """

    counts: np.ndarray
    means: np.ndarray
    scatter: np.ndarray

    @property
    def dim(self) -> int:
        """D."""
        return self.means.shape[1]

    @property
    def total(self) -> int:
        """N."""
        return int(self.counts.sum())

    @property
    def mean(self) -> np.ndarray:
        """The mean of all vectors, D."""
        return self.counts @ self.means / self.total


def collect(x: np.ndarray, speakers: Sequence[str]) -> SpeakerStats:
    """Return the statistics of N x D vectors with the speaker of each.

    Raises InputError with fewer than two speakers, or when no speaker has two vectors.
    """
    _, labels, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise InputError(f"all {len(x)} training vectors are of speaker {speakers[0]}: LDA and PLDA tell speakers "
                         "apart, give them two or more")
    if counts.max() < 2:
        raise InputError(f"each of the {len(counts)} speakers has one vector: what varies within a speaker cannot be "
                         "estimated; give some speakers two utterances or more")
    blocks = [slice(start, start + BLOCK) for start in range(0, len(x), BLOCK)]
    sums = np.zeros((len(counts), x.shape[1]))
    for block in blocks:
        # Neighbours are mostly of one speaker: sums of such runs first.
        runs = np.flatnonzero(np.diff(labels[block], prepend=-1))
        np.add.at(sums, labels[block][runs], np.add.reduceat(x[block].astype(np.float64), runs, axis=0))
    means = sums / counts[:, None]
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for block in blocks:
        deviations = x[block] - means[labels[block]]
        scatter += deviations.T @ deviations
    return SpeakerStats(counts.astype(np.float64), means, scatter)
