"""The parts of a chain that turn vectors into vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from steps.backend.lda import apply_transform, diagonal, estimate_lda, normalise_length, whitening
from steps.backend.speaker_stats import blocks_of, collect, speaker_means
from utils.errors import InputError
from utils.kaldi.objects import read_matrix, read_vector, write_matrix, write_vector


@dataclass(frozen=True)
class Center:
    """minus the mean of the training embeddings

    mean: D.
    """

    mean: np.ndarray
    FILE: ClassVar[str] = "mean.vec"
    NUMBER: ClassVar[str] = ""

    @property
    def dim(self) -> int:
        """D of the mean."""
        return len(self.mean)

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], number: int | None = None) -> Self:
        """Compute the mean; one speaker is enough."""
        counts, means, _ = speaker_means(x, speakers)
        return cls((counts @ means / len(x)).astype(np.float32))

    @classmethod
    def joined(cls, apart: Sequence[Self]) -> Self:
        """Join the means."""
        return cls(np.concatenate([one.mean for one in apart]))

    def save(self, folder: Path) -> None:
        """Write Kaldi's mean.vec."""
        write_vector(folder / self.FILE, self.mean)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read Kaldi's mean.vec or ours."""
        return cls(read_vector(folder / cls.FILE))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Subtract the mean; raises InputError if its dimension is another."""
        if x.shape[1] != len(self.mean):
            raise InputError(f"embeddings of dimension {x.shape[1]}, back-end of dimension {len(self.mean)}; train the "
                             "back-end on embeddings of the same model")
        return x - self.mean.astype(np.float64)


@dataclass(frozen=True)
class Matrix:
    """A linear (D' x D) or affine (D' x (D + 1)) transform in Kaldi's format."""

    matrix: np.ndarray
    FILE: ClassVar[str]

    def save(self, folder: Path) -> None:
        """Write Kaldi's matrix."""
        write_matrix(folder / self.FILE, self.matrix)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read Kaldi's matrix or ours."""
        return cls(read_matrix(folder / cls.FILE))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Apply it; raises InputError if D is another."""
        return apply_transform(x, self.matrix)


class Lda(Matrix):
    """linear discriminant analysis to so many dimensions, as in Kaldi"""

    FILE: ClassVar[str] = "transform.mat"
    NUMBER: ClassVar[str] = "wanted"

    @property
    def dim(self) -> int:
        """D of the matrix, D' x (D + 1)."""
        return self.matrix.shape[1] - 1

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], number: int | None) -> Self:
        """Estimate `number` dimensions (see estimate_lda)."""
        return cls(estimate_lda(collect(x, speakers), number or 0).astype(np.float32))

    @classmethod
    def joined(cls, apart: Sequence[Self]) -> Self:
        """Set the matrices along the diagonal; their last columns, the offsets, below each other."""
        linear = diagonal([one.matrix[:, :-1] for one in apart])
        return cls(np.hstack([linear, np.concatenate([one.matrix[:, -1:] for one in apart])]))


class Wccn(Matrix):
    """within-class covariance normalisation"""

    FILE: ClassVar[str] = "wccn.mat"
    NUMBER: ClassVar[str] = ""

    @property
    def dim(self) -> int:
        """D of the matrix, D x D."""
        return self.matrix.shape[1]

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], number: int | None = None) -> Self:
        """Compute P with P W P^T = I, W the mean over speakers of the covariance of each one's vectors.

        (Hatch, Kajarekar, Stolcke 2006; they take a Cholesky factor, which differs from P by a rotation that neither
        cosine nor PLDA sees.) Raises InputError when no speaker has two vectors.
        """
        collect(x, speakers)  # refuses too few speakers and utterances
        counts, means, labels = speaker_means(x, speakers)
        within = np.zeros((x.shape[1], x.shape[1]))
        for block in blocks_of(x):
            deviations = (x[block] - means[labels[block]]) / np.sqrt(counts[labels[block]])[:, None]
            within += deviations.T @ deviations
        return cls(whitening(within / len(counts), "WCCN: the within-speaker covariance").astype(np.float32))

    @classmethod
    def joined(cls, apart: Sequence[Self]) -> Self:
        """Set the matrices along the diagonal."""
        return cls(diagonal([one.matrix for one in apart]))


@dataclass(frozen=True)
class Length:
    """length normalisation, to sqrt(D), as in Kaldi

    parts: of the vectors, each of which gets the same length.
    """

    parts: int = 1
    FILE: ClassVar[str] = ""
    NUMBER: ClassVar[str] = ""
    dim: ClassVar[None] = None

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], number: int | None = None) -> Self:
        """Learn nothing."""
        return cls()

    @classmethod
    def joined(cls, apart: Sequence[Self]) -> Self:
        """Normalise each part."""
        return cls(len(apart))

    def save(self, folder: Path) -> None:
        """Write nothing."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read nothing."""
        return cls()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Scale each vector, or each of its parts, to length sqrt(D); zero vectors stay."""
        return normalise_length(x.reshape(len(x) * self.parts, -1)).reshape(x.shape)
