"""Sufficient statistics of labelled vectors for LDA and PLDA; their size depends on the speakers, not the vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import InputError

BLOCK = 1 << 14  # vectors processed at a time


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


def speaker_means(x: np.ndarray, speakers: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return S speakers' numbers of vectors and means, S x D (both float64), and the speaker (0 to S - 1) of each of
    N x D vectors."""
    _, labels, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), x.shape[1]))
    for block in blocks_of(x):
        # Neighbours mostly have the same speaker: sum such runs first.
        runs = np.flatnonzero(np.diff(labels[block], prepend=-1))
        np.add.at(sums, labels[block][runs], np.add.reduceat(x[block].astype(np.float64), runs, axis=0))
    return counts.astype(np.float64), sums / counts[:, None], labels


def blocks_of(x: np.ndarray) -> list[slice]:
    """Return the slices of N vectors that are processed one after the other."""
    return [slice(start, start + BLOCK) for start in range(0, len(x), BLOCK)]


def collect(x: np.ndarray, speakers: Sequence[str]) -> SpeakerStats:
    """Return the statistics of N x D vectors with the speaker of each.

    Raises InputError with fewer than two speakers, or when no speaker has two vectors.
    """
    counts, means, labels = speaker_means(x, speakers)
    if len(counts) < 2:
        raise InputError(f"all {len(x)} training vectors are of speaker {speakers[0]}: LDA and PLDA tell speakers "
                         "apart and need two or more")
    if counts.max() < 2:
        raise InputError(f"each of the {len(counts)} speakers has one vector: the variation within speakers cannot be "
                         "estimated; give some speakers two or more utterances")
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for block in blocks_of(x):
        deviations = x[block] - means[labels[block]]
        scatter += deviations.T @ deviations
    return SpeakerStats(counts, means, scatter)
