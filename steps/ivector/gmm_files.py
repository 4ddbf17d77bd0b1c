"""Kaldi's files of Gaussian mixtures, <DiagGMM> and <FullGMM>, binary and text.

Binary files from Kaldi are written back byte for byte.
"""

import os

import numpy as np
import torch

from steps.ivector.gmm import LOG_2PI, DiagGmm, FullGmm, check_finite
from utils.errors import InputError
from utils.files import write_aside
from utils.kaldi.objects import KaldiReader, KaldiWriter


def write_diagonal(path: str | os.PathLike, gmm: DiagGmm, binary: bool = True) -> None:
    """Write Kaldi's <DiagGMM>."""
    check_finite(f"{path}: the mixture", gmm.weights, gmm.means, gmm.variances)
    constants = gmm.constants() if gmm.stored is None else gmm.stored
    with write_aside(path, "wb") as stream:
        kaldi = KaldiWriter(stream, binary)
        kaldi.token("<DiagGMM>")
        for token, part in (("<GCONSTS>", constants), ("<WEIGHTS>", gmm.weights)):
            kaldi.token(token)
            kaldi.vector(part.float().cpu().numpy())
        for token, part in (("<MEANS_INVVARS>", gmm.means / gmm.variances), ("<INV_VARS>", 1 / gmm.variances)):
            kaldi.token(token)
            kaldi.matrix(part.float().cpu().numpy())
        kaldi.token("</DiagGMM>")


def write_full(path: str | os.PathLike, gmm: FullGmm, binary: bool = True) -> None:
    """Write Kaldi's <FullGMM>."""
    check_finite(f"{path}: the mixture", gmm.weights, gmm.means, gmm.covariances)
    covariances, means = gmm.covariances.double(), gmm.means.double()
    precision = covariances.inverse()
    linear = (precision @ means[..., None])[..., 0]
    constants = gmm.stored
    if constants is None:
        constants = gmm.weights.double().log() - 0.5 * (
            means.shape[1] * LOG_2PI + torch.logdet(covariances) + (linear * means).sum(1))
    with write_aside(path, "wb") as stream:
        kaldi = KaldiWriter(stream, binary)
        kaldi.token("<FullGMM>")
        for token, part in (("<GCONSTS>", constants), ("<WEIGHTS>", gmm.weights)):
            kaldi.token(token)
            kaldi.vector(part.float().cpu().numpy())
        kaldi.token("<MEANS_INVCOVARS>")
        kaldi.matrix(linear.float().cpu().numpy())
        kaldi.token("<INV_COVARS>")
        for matrix in precision.float().cpu().numpy():
            kaldi.packed(matrix)
        kaldi.token("</FullGMM>")


def read_vectors_of(kaldi: KaldiReader, tokens: tuple[str, str]) -> list[np.ndarray]:
    """Read the two vectors that open both kinds of mixture."""
    found = []
    for token in tokens:
        kaldi.expect(token)
        found.append(kaldi.vector(np.float64))
    return found


def check_sizes(path: str | os.PathLike, constants: np.ndarray, weights: np.ndarray, linear: np.ndarray,
                shape: tuple[int, ...]) -> None:
    """Raise InputError unless all parts have the Gaussians and dimensions of `shape`, the precisions' shape."""
    if not (len(weights) > 0 and len(constants) == len(weights) and linear.shape == shape and shape[0] == len(weights)):
        raise InputError(f"{path}: sizes do not match: {len(constants)} constants, {len(weights)} weights, means "
                         f"{linear.shape}, inverse covariances {shape}")


def read_diagonal(path: str | os.PathLike) -> DiagGmm:
    """Read Kaldi's <DiagGMM>, binary or text, as float64."""
    with open(path, "rb") as stream:
        kaldi = KaldiReader(stream)
        kaldi.expect("<DiagGMM>", "<DiagGMMBegin>")
        stored, weights = read_vectors_of(kaldi, ("<GCONSTS>", "<WEIGHTS>"))
        kaldi.expect("<MEANS_INVVARS>")
        linear = kaldi.matrix(np.float64)
        kaldi.expect("<INV_VARS>")
        precision = kaldi.matrix(np.float64)
        kaldi.expect("</DiagGMM>", "<DiagGMMEnd>")
    check_sizes(path, stored, weights, linear, precision.shape)
    if not (np.isfinite(linear).all() and np.isfinite(precision).all() and (precision > 0).all()):
        raise InputError(f"{path}: has NaN or infinite values, or inverse variances that are not above 0")
    return DiagGmm(*map(torch.from_numpy, (weights, linear / precision, 1 / precision, stored)))


def read_full(path: str | os.PathLike) -> FullGmm:
    """Read Kaldi's <FullGMM>, binary or text, as float64."""
    with open(path, "rb") as stream:
        kaldi = KaldiReader(stream)
        kaldi.expect("<FullGMM>", "<FullGMMBegin>")
        stored, weights = read_vectors_of(kaldi, ("<GCONSTS>", "<WEIGHTS>"))
        kaldi.expect("<MEANS_INVCOVARS>")
        linear = kaldi.matrix(np.float64)
        kaldi.expect("<INV_COVARS>")
        matrices = [kaldi.packed(np.float64) for _ in weights]
        kaldi.expect("</FullGMM>", "<FullGMMEnd>")
    for matrix in matrices:
        check_sizes(path, stored, weights, linear, (len(weights), len(matrix)))
    precision = np.stack(matrices)
    try:
        np.linalg.cholesky(precision)
        covariances = np.linalg.inv(precision)
    except np.linalg.LinAlgError as error:
        raise InputError(f"{path}: has an inverse covariance that is not positive definite") from error
    if not (np.isfinite(linear).all() and np.isfinite(covariances).all()):
        raise InputError(f"{path}: has NaN or infinite values")
    means = np.einsum("cij,cj->ci", covariances, linear)
    return FullGmm(*map(torch.from_numpy, (weights, means, covariances, stored)))
