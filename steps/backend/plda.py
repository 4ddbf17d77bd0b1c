"""Probabilistic linear discriminant analysis: training, adaptation, files.

Two trainings give one model. With y the speaker's and e the utterance's part of a vector x = mu + y + e:
  two_covariance  y ~ N(0, B), e ~ N(0, W), full matrices: Kaldi's ivector-compute-plda (Ioffe 2006)
  gaussian        y = V z, z ~ N(0, I) of `eigenvoices` dimensions, e ~ N(0, W): the Gaussian PLDA that the
                  self multi-head paper compares with. Its B = V V^T has rank `eigenvoices`.
Both are stored as Kaldi stores them: a transform A with A W A^T = I and A B A^T = diag(psi), which exists
for any B once W is regular; an eigenvoice model has at most `eigenvoices` values psi above 0. So one file
and one scorer (steps/backend/scoring.py) serve both.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steps.backend.lda import class_means, eigenvalues_down, speaker_numbers
from utils.errors import InputError
from utils.files import write_aside
from utils.kaldi_io import KaldiReader, KaldiWriter

WITHIN_FLOOR = 1e-6  # smallest eigenvalue of W, as a share of the largest


@dataclass(frozen=True)
class Plda:
    """mean: D; transform A: D x D; psi: D, the between-speaker variances in the transformed space, falling."""

    mean: np.ndarray
    transform: np.ndarray
    psi: np.ndarray

    def project(self, x: np.ndarray, num_utts: np.ndarray | float = 1, normalise: bool = True) -> np.ndarray:
        """Return A (x - mu) of N x D vectors, each the mean of `num_utts` (N, or one number for all) utterances.

        normalise: scale each to the length that the model expects, so that y^T (psi + I/n)^-1 y = D, as Kaldi.
        """
        y = (x - self.mean) @ self.transform.T
        if not normalise:
            return y
        variance = self.psi + 1 / np.broadcast_to(np.asarray(num_utts, np.float64), len(y))[:, None]
        return y * np.sqrt(y.shape[1] / (y**2 / variance).sum(axis=1, keepdims=True))


def from_covariances(mean: np.ndarray, within: np.ndarray, between: np.ndarray) -> Plda:
    """Return the model with W and B diagonalised together; a singular W is floored, and said."""
    values, vectors = eigenvalues_down(within)
    if not np.isfinite(values).all() or values[0] <= 0:
        raise InputError("PLDA: the within-speaker covariance is zero or no number: are the vectors all alike?")
    floored = np.maximum(values, WITHIN_FLOOR * values[0])
    if (floored > values).any():
        print(f"PLDA: {np.count_nonzero(floored > values)} of {len(values)} eigenvalues of the within-speaker "
              f"covariance raised to {floored[-1]:.3g}", file=sys.stderr)
    whiten = floored[:, None] ** -0.5 * vectors.T
    psi, directions = eigenvalues_down(whiten @ between @ whiten.T)
    return Plda(mean, directions.T @ whiten, np.maximum(psi, 0))


def train_two_covariance(x: np.ndarray, speakers: Sequence[str], iterations: int = 10) -> Plda:
    """Train as Kaldi's ivector-compute-plda: N x D vectors, EM from B = W = I.

    E-step for a speaker of n utterances with mean m (less mu): y has precision B^-1 + n W^-1 and mean
    (B^-1 + n W^-1)^-1 n W^-1 m. Speakers of equal n share the precision. mu is the mean of the speakers' means.
    """
    labels, counts = speaker_numbers(speakers)
    x = x.astype(np.float64)
    means = class_means(x, labels, counts)
    mean = means.mean(axis=0)
    deviations = x - means[labels]
    scatter = deviations.T @ deviations
    means = means - mean
    within, between = np.eye(x.shape[1]), np.eye(x.shape[1])
    for _ in range(iterations):
        within_sum, between_sum = scatter.copy(), np.zeros_like(scatter)
        between_inverse, within_inverse = invert(between), invert(within)
        for n in np.unique(counts):
            m = means[counts == n]
            covariance = invert(between_inverse + n * within_inverse)
            y = m @ (n * within_inverse @ covariance)
            between_sum += len(m) * covariance + y.T @ y
            within_sum += n * (len(m) * covariance + (m - y).T @ (m - y))
        within = within_sum / len(x)
        between = between_sum / len(counts)
    return from_covariances(mean, within, between)


def invert(matrix: np.ndarray) -> np.ndarray:
    """Invert a covariance; eigenvalues below 1e-10 of the largest count as that."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return vectors / np.maximum(values, 1e-10 * values[-1]) @ vectors.T


def train_gaussian(x: np.ndarray, speakers: Sequence[str], eigenvoices: int, iterations: int = 20) -> Plda:
    """Train the eigenvoice model on N x D vectors by EM, from the principal directions of the speakers' means.

    E-step for a speaker of n utterances with sum f (less n mu): L = I + n V^T W^-1 V, E[z] = L^-1 V^T W^-1 f.
    M-step: V = (sum_s f_s E[z_s]^T) (sum_s n_s E[z_s z_s^T])^-1, W = (sum x x^T - V sum_s E[z_s] f_s^T) / N.
    """
    labels, counts = speaker_numbers(speakers)
    most = min(x.shape[1], len(counts) - 1)
    if eigenvoices > most:
        print(f"PLDA: {eigenvoices} eigenvoices lowered to {most}: vectors of dimension {x.shape[1]}, {len(counts)} "
              "speakers", file=sys.stderr)
        eigenvoices = most
    mean = x.mean(axis=0, dtype=np.float64)
    x = x - mean
    total = x.T @ x
    means = class_means(x, labels, counts)
    values, vectors = eigenvalues_down(means.T @ means / len(counts))
    voices = vectors[:, :eigenvoices] * np.sqrt(np.maximum(values[:eigenvoices], 1e-10 * values[0]))
    within = total / len(x) - means.T @ (means * counts[:, None]) / len(x)
    sums = means * counts[:, None]
    for _ in range(iterations):
        projected = invert(within) @ voices  # W^-1 V
        inner = voices.T @ projected
        cross, second = np.zeros_like(voices), np.zeros((eigenvoices, eigenvoices))
        for n in np.unique(counts):
            f = sums[counts == n]
            covariance = np.linalg.inv(np.eye(eigenvoices) + n * inner)
            z = f @ projected @ covariance
            cross += f.T @ z
            second += n * (len(f) * covariance + z.T @ z)
        voices = np.linalg.solve(second, cross.T).T
        within = (total - voices @ cross.T) / len(x)
    return from_covariances(mean, within, voices @ voices.T)


def adapt(model: Plda, x: np.ndarray, within_scale: float = 0.75, between_scale: float = 0.25,
          mean_scale: float = 1.0) -> Plda:
    """Adapt to unlabelled N x D vectors, as Kaldi's ivector-adapt-plda.

    The total covariance of the new data (about their own mean; mean_scale times the outer product of the shift
    of the mean is added) is seen where the model's total covariance is I. Along its eigenvectors, variance above 1
    is excess, of which the given shares go to W and B. mu becomes the mean of the new data.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    shift = mean - model.mean
    centred = x - mean
    variance = centred.T @ centred / len(x) + mean_scale * np.outer(shift, shift)
    whiten = model.transform / np.sqrt(1 + model.psi)[:, None]
    values, vectors = eigenvalues_down(whiten @ variance @ whiten.T)
    excess = np.diag(np.maximum(values - 1, 0))
    within = vectors.T @ np.diag(1 / (1 + model.psi)) @ vectors + within_scale * excess
    between = vectors.T @ np.diag(model.psi / (1 + model.psi)) @ vectors + between_scale * excess
    back = np.linalg.inv(vectors.T @ whiten)
    return from_covariances(mean, back @ within @ back.T, back @ between @ back.T)


def write_plda(path: str | os.PathLike, model: Plda, binary: bool = True) -> None:
    """Write Kaldi's <Plda>; raises InputError rather than write what is no number."""
    if not all(np.isfinite(part).all() for part in (model.mean, model.transform, model.psi)):
        raise InputError(f"{path}: the model has NaN or infinite values and is not written")
    with write_aside(path, "wb") as stream:
        kaldi = KaldiWriter(stream, binary)
        kaldi.token("<Plda>")
        kaldi.vector(model.mean.astype(np.float64))
        kaldi.matrix(model.transform.astype(np.float64))
        kaldi.vector(model.psi.astype(np.float64))
        kaldi.token("</Plda>")


def read_plda(path: str | os.PathLike) -> Plda:
    """Read Kaldi's <Plda>, binary or text."""
    with open(path, "rb") as stream:
        kaldi = KaldiReader(stream)
        kaldi.expect("<Plda>")
        model = Plda(kaldi.vector(np.float64), kaldi.matrix(np.float64), kaldi.vector(np.float64))
        kaldi.expect("</Plda>")
    dim = len(model.mean)
    if model.transform.shape != (dim, dim) or len(model.psi) != dim:
        raise InputError(f"{path}: sizes do not fit: mean {dim}, transform {model.transform.shape}, "
                         f"psi {len(model.psi)}")
    return model
