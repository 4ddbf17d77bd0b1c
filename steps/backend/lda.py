"""Mean, linear discriminant analysis and length normalisation of embeddings, in Kaldi's conventions."""

import sys
from collections.abc import Sequence

import numpy as np

from utils.errors import InputError

EIGENVALUE_FLOOR = 1e-6  # of the largest, for the covariance that is whitened


def speaker_numbers(speakers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return each utterance's speaker number (N) and each speaker's number of utterances (S).

    Raises InputError with fewer than two speakers, or when no speaker has two utterances.
    """
    _, labels, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise InputError(f"{len(counts)} speaker in the training data of the back-end: LDA and PLDA tell speakers "
                         "apart, give them two or more")
    if counts.max() < 2:
        raise InputError(f"each of the {len(counts)} speakers has one utterance: what varies within a speaker cannot "
                         "be estimated; give some speakers two utterances or more")
    return labels, counts


def class_means(x: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean vector of each speaker: S x D from N x D."""
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, labels, x)
    return sums / counts[:, None]


def eigenvalues_down(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of a symmetric matrix from the largest, and the eigenvectors as columns."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values[::-1], vectors[:, ::-1]


def estimate_lda(x: np.ndarray, speakers: Sequence[str], dim: int, total_covariance_factor: float = 0.0) -> np.ndarray:
    """Return the LDA matrix, dim x (D + 1), as Kaldi's ivector-compute-lda: the last column is the offset.

    x: N x D. With total covariance T and within-speaker covariance W of the centred vectors (both divided by N),
    C = factor T + (1 - factor) W is whitened; the rows are the directions of the largest between-speaker
    covariance T - W in that space. Speakers span at most S - 1 directions: `dim` is lowered to that, and
    said. Eigenvalues of C below 1e-6 of the largest are raised to it, and counted.
    """
    labels, counts = speaker_numbers(speakers)
    x = x.astype(np.float64)
    most = min(x.shape[1], len(counts) - 1)
    if dim > most:
        print(f"LDA: {dim} dimensions lowered to {most}: vectors of dimension {x.shape[1]}, {len(counts)} speakers",
              file=sys.stderr)
        dim = most
    mean = x.mean(axis=0)
    x = x - mean
    total = x.T @ x / len(x)
    means = class_means(x, labels, counts)
    between = (means * counts[:, None]).T @ means / len(x)
    within = total - between
    values, vectors = eigenvalues_down(total_covariance_factor * total + (1 - total_covariance_factor) * within)
    if not values[0] > 0:
        raise InputError("LDA: the vectors of each speaker are all alike; are they embeddings of different utterances?")
    floored = np.maximum(values, EIGENVALUE_FLOOR * values[0])
    if (floored > values).any():
        print(f"LDA: {np.count_nonzero(floored > values)} of {len(values)} eigenvalues of the within-speaker "
              f"covariance raised to {floored[-1]:.3g}: {len(x)} vectors of {len(counts)} speakers span no more",
              file=sys.stderr)
    whiten = floored[:, None] ** -0.5 * vectors.T
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


def normalise_length(x: np.ndarray) -> np.ndarray:
    """Scale each of N x D vectors to length sqrt(D), as Kaldi's ivector-normalize-length; zero vectors stay."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x * (x.shape[1] ** 0.5 / np.where(lengths > 0, lengths, 1))
