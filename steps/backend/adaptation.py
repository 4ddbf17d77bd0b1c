"""Adaptation of PLDA models to unlabelled vectors of another domain.

Each method takes a model with covariances W and B, N x D vectors of the new domain, and two shares, `within` and
`between`, of what is added to W and to B; it returns the model of the new domain, whose mean is theirs.
"""

import numpy as np

from steps.backend.lda import eigenvalues_down, whitening
from steps.backend.plda import Plda, from_covariances


def kaldi(model: Plda, x: np.ndarray, within: float = 0.75, between: float = 0.25, mean_scale: float = 1.0) -> Plda:
    """Adapt as Kaldi's ivector-adapt-plda.

    The total covariance of the new data (about their own mean; mean_scale times the outer product of the shift
    of the mean is added) is taken in the space where the model's total covariance is I. Along its eigenvectors,
    variance above 1 is excess; the given shares of it are added to W and B. mu becomes the mean of the new data.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    shift = mean - model.mean
    centred = x - mean
    variance = centred.T @ centred / len(x) + mean_scale * np.outer(shift, shift)
    whiten = model.transform / np.sqrt(1 + model.psi)[:, None]
    values, vectors = eigenvalues_down(whiten @ variance @ whiten.T)
    excess = np.diag(np.maximum(values - 1, 0))
    new_within = vectors.T @ np.diag(1 / (1 + model.psi)) @ vectors + within * excess
    new_between = vectors.T @ np.diag(model.psi / (1 + model.psi)) @ vectors + between * excess
    back = np.linalg.inv(vectors.T @ whiten)
    return from_covariances(mean, back @ new_within @ back.T, back @ new_between @ back.T)


def covariances(model: Plda) -> tuple[np.ndarray, np.ndarray]:
    """Return W and B of a model."""
    back = np.linalg.inv(model.transform)
    return back @ back.T, back * model.psi @ back.T


def root(covariance: np.ndarray) -> np.ndarray:
    """Return the symmetric square root of a covariance."""
    values, vectors = eigenvalues_down(covariance)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def pseudo_covariances(model: Plda, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return A W A^T and A B A^T, A = C^(1/2) (W + B)^(-1/2), C the covariance of x (CORAL, Sun et al. 2016)."""
    within, between = covariances(model)
    values, vectors = eigenvalues_down(within + between)
    a = root(np.cov(x, rowvar=False, bias=True)) @ (vectors * values**-0.5 @ vectors.T)
    return a @ within @ a.T, a @ between @ a.T


def coral(model: Plda, x: np.ndarray, within: float = 1.0, between: float = 1.0) -> Plda:
    """Move W and B by the shares towards those of CORAL: what training on the aligned vectors would give."""
    parts = [old + scale * (new - old) for old, new, scale in
             zip(covariances(model), pseudo_covariances(model, x), (within, between), strict=True)]
    return from_covariances(x.mean(axis=0, dtype=np.float64), *parts)


def coral_plus(model: Plda, x: np.ndarray, within: float = 0.8, between: float = 0.8) -> Plda:
    """Add to W and B the shares of what CORAL increases, and never reduce them (CORAL+, Lee, Wang, Koshinaka 2019).

    With P phi P^T = I and P phi' P^T = E diagonal, phi' CORAL's covariance: phi + share P^-1 max(0, E - I) P^-T.
    """
    parts = []
    for old, new, scale in zip(covariances(model), pseudo_covariances(model, x), (within, between), strict=True):
        whiten = whitening(old, "PLDA: a covariance")
        values, vectors = eigenvalues_down(whiten @ new @ whiten.T)
        back = np.linalg.inv(vectors.T @ whiten)
        parts.append(old + scale * back * np.maximum(values - 1, 0) @ back.T)
    return from_covariances(x.mean(axis=0, dtype=np.float64), *parts)


METHODS = {"kaldi": kaldi, "coral": coral, "coral_plus": coral_plus}
