"""Linear discriminant analysis and length normalisation of embeddings, in Kaldi's conventions."""

import sys
from collections.abc import Sequence

import numpy as np

from steps.backend.speaker_stats import SpeakerStats
from utils.errors import InputError

EIGENVALUE_FLOOR = 1e-6  # in whitening, as a share of the covariance's largest eigenvalue


def eigenvalues_down(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of a symmetric matrix, largest first, and the eigenvectors as columns."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values[::-1], vectors[:, ::-1]


def whitening(covariance: np.ndarray, name: str) -> np.ndarray:
    """Return P with P C P^T = I for a covariance C, D x D; raises eigenvalues that are too small, with a message.

    name: the covariance's name in messages. Raises InputError when it is zero or has NaN or infinite values.
    """
    if not np.isfinite(covariance).all():
        raise InputError(f"{name} has NaN or infinite values: look for them in the embeddings")
    values, vectors = eigenvalues_down(covariance)
    if values[0] <= 0:
        raise InputError(f"{name} is zero: are all vectors of a speaker alike?")
    floored = np.maximum(values, EIGENVALUE_FLOOR * values[0])
    raised = np.count_nonzero(floored > values)
    if raised:
        print(f"{name} is singular: {raised} of {len(values)} eigenvalues raised to {floored[-1]:.3g}, "
              f"{EIGENVALUE_FLOOR:g} of the largest", file=sys.stderr)
    return floored[:, None] ** -0.5 * vectors.T


def estimate_lda(stats: SpeakerStats, dim: int, total_covariance_factor: float = 0.0) -> np.ndarray:
    """Return the LDA matrix, dim x (D + 1), as Kaldi's ivector-compute-lda: the last column is the offset.

    With total covariance T and within-speaker covariance W of the centred vectors (both divided by N),
    C = factor T + (1 - factor) W is whitened; the rows are the directions of the largest between-speaker
    covariance T - W in that space. S speakers span at most S - 1 directions: a larger `dim` is lowered, with a message.
    """
    most = min(stats.dim, len(stats.counts) - 1)
    if dim > most:
        print(f"LDA: {dim} dimensions lowered to {most}: vectors of dimension {stats.dim}, "
              f"{len(stats.counts)} speakers", file=sys.stderr)
        dim = most
    stats = stats.shrunk("LDA")
    mean = stats.mean
    within = stats.scatter / stats.total
    centred = stats.means - mean
    between = (centred * stats.counts[:, None]).T @ centred / stats.total
    whiten = whitening(within + total_covariance_factor * between, "LDA: the within-speaker covariance")
    _, directions = eigenvalues_down(whiten @ between @ whiten.T)
    linear = directions[:, :dim].T @ whiten
    return np.hstack([linear, -linear @ mean[:, None]])


def apply_transform(x: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Apply a linear (D columns) or affine (D + 1 columns) transform to N x D vectors, as Kaldi's transform-vec."""
    dim = x.shape[1]
    if transform.shape[1] not in (dim, dim + 1):
        raise InputError(f"a transform with {transform.shape[1]} columns does not fit vectors of dimension {dim}; "
                         "train the back-end on embeddings of the same model")
    y = x @ transform[:, :dim].T
    return y + transform[:, dim] if transform.shape[1] > dim else y


def diagonal(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the matrix with these blocks along its diagonal, and zeros elsewhere."""
    from scipy.linalg import block_diag  # imported here so that scoring starts faster

    return block_diag(*blocks)


def normalise_length(x: np.ndarray) -> np.ndarray:
    """Scale each of N x D vectors to length sqrt(D), as Kaldi's ivector-normalize-length; zero vectors stay."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x * (x.shape[1] ** 0.5 / np.where(lengths > 0, lengths, 1))
