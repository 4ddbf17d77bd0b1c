"""Sufficient statistics of labelled vectors for LDA and PLDA; their size depends on the speakers, not the vectors."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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

    def shrunk(self, purpose: str) -> "SpeakerStats":
        """Return statistics whose scatter can be inverted although vectors are fewer than dimensions, with a message.

        The scatter of N vectors around S means has rank N - S at most. Where that is below D, Kaldi's floor of the
        eigenvalues makes the missing directions look the best: no speaker varies there. Chen, Wiesel, Eldar, Hero
        2010, "Shrinkage algorithms for MMSE covariance estimation", eq. 23, replaces the covariance C of n = N - S
        degrees of freedom by (1 - rho) C + rho tr(C)/D I. purpose: named in the message.
        """
        free, dim = self.total - len(self.counts), self.dim
        trace, squares = np.trace(self.scatter), (self.scatter**2).sum()
        if free >= dim or trace == 0:
            return self
        excess = (free + 1 - 2 / dim) * (squares - trace**2 / dim)
        above = (1 - 2 / dim) * squares + trace**2
        rho = above / excess if above < excess else 1.0
        print(f"{purpose}: {self.total} vectors of {len(self.counts)} speakers are too few to estimate the variation "
              f"within speakers in {dim} dimensions: its covariance moves towards a multiple of I (rho {rho:.2f}); "
              "cosine may be better", file=sys.stderr)
        return replace(self, scatter=(1 - rho) * self.scatter + rho * trace / dim * np.eye(dim))


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


def in_blocks(function: Callable[[slice], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return what a function makes of the slices of N vectors, joined: its float64 values take memory for one block."""
    blocks = blocks_of(x)
    return np.concatenate(list(map(function, blocks))) if len(blocks) > 1 else function(slice(None))


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
