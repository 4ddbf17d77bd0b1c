"""Probabilistic linear discriminant analysis: training and files.

Both methods give one form of model. With y the speaker's and e the utterance's part of a vector x = mu + y + e:
  two_covariance  y ~ N(0, B), e ~ N(0, W), full matrices: Kaldi's ivector-compute-plda (Ioffe 2006)
  gaussian        y = V z, z ~ N(0, I) of `eigenvoices` dimensions, e ~ N(0, W): the Gaussian PLDA that the
                  self multi-head paper compares with. Its B = V V^T has rank `eigenvoices`.
It is stored as in Kaldi: a transform A with A W A^T = I and A B A^T = diag(psi), which exists
for any B if W is regular; an eigenvoice model has at most `eigenvoices` values psi above 0. So both share one
file format and one scorer (steps/backend/scoring.py).
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steps.backend.lda import diagonal, eigenvalues_down, whitening
from steps.backend.speaker_stats import SpeakerStats
from utils.errors import InputError
from utils.files import write_aside
from utils.kaldi.objects import KaldiReader, KaldiWriter


@dataclass(frozen=True)
class Plda:
    """mean: D; transform A: D x D; psi: D, the between-speaker variances in the transformed space, descending."""

    mean: np.ndarray
    transform: np.ndarray
    psi: np.ndarray

    def project(self, x: np.ndarray, num_utts: np.ndarray | float = 1, normalise: bool = True) -> np.ndarray:
        """Return A (x - mu) of N x D vectors, each the mean of `num_utts` (N, or one number for all) utterances.

        normalise: scale each to the length that the model expects, so that y^T (psi + I/n)^-1 y = D, as Kaldi does.
        """
        y = (x - self.mean) @ self.transform.T
        if not normalise:
            return y
        variance = self.psi + 1 / np.broadcast_to(np.asarray(num_utts, np.float64), len(y))[:, None]
        return y * np.sqrt(y.shape[1] / (y**2 / variance).sum(axis=1, keepdims=True))


    def smooth(self, factor: float) -> "Plda":
        """Return the model with W replaced by W + factor B, as Kaldi's --smoothing: for B from few speakers."""
        within = 1 + factor * self.psi
        return Plda(self.mean, self.transform / np.sqrt(within)[:, None], self.psi / within)


def from_covariances(mean: np.ndarray, within: np.ndarray, between: np.ndarray) -> Plda:
    """Return the model with W and B, D x D each, diagonalised together; a singular W is floored, with a message."""
    whiten = whitening(within, "PLDA: the within-speaker covariance")
    psi, directions = eigenvalues_down(whiten @ between @ whiten.T)
    return Plda(mean, directions.T @ whiten, np.maximum(psi, 0))


def side_by_side(models: Sequence[Plda]) -> Plda:
    """Return the model of vectors that consist of those of several models, which are independent of each other."""
    psi = np.concatenate([model.psi for model in models])
    down = np.argsort(-psi, kind="stable")
    transform = diagonal([model.transform for model in models])[down]
    return Plda(np.concatenate([model.mean for model in models]), transform, psi[down])


def train_two_covariance(stats: SpeakerStats, iterations: int = 10, shrink: float = 0.0) -> Plda:
    """Train as Kaldi's ivector-compute-plda: EM from B = W = I; mu is the mean of the speakers' means.

    E-step for a speaker of n utterances with mean m (minus mu): y has covariance (B^-1 + n W^-1)^-1 and mean
    (B^-1 + n W^-1)^-1 n W^-1 m. In the space where W = I and B = diag(psi), reached by the previous iteration's
    transform A, these are psi / (n psi + 1) and n psi / (n psi + 1) m, element by element.
    M-step: B = sum over speakers of E[y y^T] / S, W = (scatter + sum of n E[(m - y)(m - y)^T]) / N.

    shrink: then replaces this share of W by a multiple of I with the same trace (Ledoit and Wolf 2004), which Kaldi
    does not do: with few speakers, W says too little about directions in which they vary little.
    """
    stats = stats.shrunk("PLDA")
    mean = stats.means.mean(axis=0)
    counts = stats.counts[:, None]
    transform, psi = np.eye(stats.dim), np.ones(stats.dim)
    for _ in range(iterations):
        m = (stats.means - mean) @ transform.T
        variances = psi / (counts * psi + 1)  # S x D, one row per speaker
        y = counts * variances * m
        within = transform @ stats.scatter @ transform.T + (counts * (m - y)).T @ (m - y)
        within[np.diag_indices_from(within)] += (counts * variances).sum(axis=0)
        between = y.T @ y
        between[np.diag_indices_from(between)] += variances.sum(axis=0)
        step = from_covariances(mean, within / stats.total, between / len(counts))
        transform, psi = step.transform @ transform, step.psi
    back = np.linalg.inv(transform)
    within = back @ back.T
    within = (1 - shrink) * within + shrink * np.trace(within) / stats.dim * np.eye(stats.dim)
    return from_covariances(mean, within, back * psi @ back.T)


def train_gaussian(stats: SpeakerStats, eigenvoices: int, iterations: int = 20) -> Plda:
    """Train the eigenvoice model by EM, from the principal directions of the speakers' means.

    E-step for a speaker of n utterances with sum f (minus n mu): L = I + n V^T W^-1 V, E[z] = L^-1 V^T W^-1 f.
    V may be rotated freely; in the eigenvectors of V^T W^-1 V, every L is diagonal.
    M-step: V = (sum_s f_s E[z_s]^T) (sum_s n_s E[z_s z_s^T])^-1, W = (sum x x^T - V sum_s E[z_s] f_s^T) / N.
    """
    most = min(stats.dim, len(stats.counts) - 1)
    if eigenvoices > most:
        print(f"PLDA: {eigenvoices} eigenvoices lowered to {most}: vectors of dimension {stats.dim}, "
              f"{len(stats.counts)} speakers", file=sys.stderr)
        eigenvoices = most
    stats = stats.shrunk("PLDA")
    counts, mean = stats.counts[:, None], stats.mean
    means = stats.means - mean
    sums = counts * means
    total = stats.scatter + sums.T @ means
    values, vectors = eigenvalues_down(means.T @ means / len(means))
    voices = vectors[:, :eigenvoices] * np.sqrt(np.maximum(values[:eigenvoices], 1e-10 * values[0]))
    within = stats.scatter / stats.total
    for _ in range(iterations):
        whiten = whitening(within, "PLDA: the within-speaker covariance")
        white_voices = whiten @ voices
        precision, rotation = eigenvalues_down(white_voices.T @ white_voices)
        variances = 1 / (1 + counts * precision)  # S x eigenvoices: the diagonals of L^-1
        z = sums @ whiten.T @ white_voices @ rotation * variances
        cross = sums.T @ z
        second = (counts * z).T @ z + np.diag((counts * variances).sum(axis=0))
        voices = np.linalg.solve(second, cross.T).T
        within = (total - voices @ cross.T) / stats.total
    return from_covariances(mean, within, voices @ voices.T)


def write_plda(path: str | os.PathLike, model: Plda, binary: bool = True) -> None:
    """Write Kaldi's <Plda>; raises InputError if the model has NaN or infinite values."""
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
        raise InputError(f"{path}: sizes do not match: mean {dim}, transform {model.transform.shape}, "
                         f"psi {len(model.psi)}")
    return model
