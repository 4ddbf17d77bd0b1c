"""Gaussian mixtures with diagonal and with full covariances: likelihoods, EM, Kaldi's files.

Shapes: N frames, D dimensions, C Gaussians. All sums over frames are matrix products:
    diagonal  log w_c N(x) = g_c + (mu_c / var_c) . x - 1/2 (1 / var_c) . x^2
    full      log w_c N(x) = g_c + (P_c mu_c) . x - 1/2 P_c . x x^T,   P_c the inverse covariance
"""

import os
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.errors import InputError
from utils.files import write_aside
from utils.kaldi_io import KaldiReader, KaldiWriter

LOG_2PI = 1.8378770664093453
VARIANCE_FLOOR = 0.001      # Kaldi's, for both kinds
MAX_CONDITION = 1e4         # limit on largest / smallest eigenvalue of a full covariance, as Kaldi
MIN_OCCUPANCY = {"diagonal": 10.0, "full": 100.0}  # frames below which a Gaussian keeps its old shape


def triangle(dim: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, columns and weights (1 on the diagonal, 2 off it) of a packed lower triangle."""
    rows, columns = torch.tril_indices(dim, dim, device=device)
    return rows, columns, torch.where(rows == columns, 1.0, 2.0)


def pack(matrices: Tensor) -> Tensor:
    """Return the lower triangles of ... x D x D matrices: ... x D(D+1)/2."""
    rows, columns, _ = triangle(matrices.shape[-1], matrices.device)
    return matrices[..., rows, columns]


def unpack(packed: Tensor, dim: int) -> Tensor:
    """Return the symmetric ... x D x D matrices of packed triangles."""
    rows, columns, _ = triangle(dim, packed.device)
    whole = packed.new_empty((*packed.shape[:-1], dim, dim))
    whole[..., rows, columns] = packed
    whole[..., columns, rows] = packed
    return whole


def outer_products(x: Tensor) -> Tensor:
    """Return the packed x x^T of each frame: N x D(D+1)/2."""
    rows, columns, _ = triangle(x.shape[1], x.device)
    columns_of_x = x.T.contiguous()  # rows of it are picked several times faster than columns of x
    return (columns_of_x[rows] * columns_of_x[columns]).T


@dataclass
class DiagGmm:
    """weights: C; means, variances: C x D."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    def constants(self) -> Tensor:
        """Return g_c: C."""
        dim = self.means.shape[1]
        return self.weights.log() - 0.5 * (dim * LOG_2PI + self.variances.log().sum(1)
                                           + (self.means**2 / self.variances).sum(1))

    def log_likelihoods(self, x: Tensor) -> Tensor:
        """Return log w_c N(x; mu_c, var_c): N x C."""
        precision = 1 / self.variances
        return self.constants() + x @ (self.means * precision).T - 0.5 * x.square() @ precision.T

    def to(self, device: str, dtype: torch.dtype) -> "DiagGmm":
        """Return a copy on a device."""
        return DiagGmm(*(part.to(device, dtype) for part in (self.weights, self.means, self.variances)))


@dataclass
class FullGmm:
    """weights: C; means: C x D; covariances: C x D x D."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return g (C), P mu (C x D) and the packed P with its off-diagonal doubled (C x D(D+1)/2)."""
        precision = self.covariances.double().inverse()
        linear = (precision @ self.means.double()[..., None])[..., 0]
        constants = self.weights.double().log() - 0.5 * (
            self.means.shape[1] * LOG_2PI + torch.logdet(self.covariances.double()) + (linear * self.means).sum(1))
        quadratic = pack(precision) * triangle(self.means.shape[1], precision.device)[2]
        return constants.to(self.means), linear.to(self.means), quadratic.to(self.means)

    def diagonal(self) -> DiagGmm:
        """Return the mixture with the off-diagonal covariances left out, which selects Gaussians."""
        return DiagGmm(self.weights, self.means, torch.diagonal(self.covariances, dim1=1, dim2=2).contiguous())

    def to(self, device: str, dtype: torch.dtype) -> "FullGmm":
        """Return a copy on a device."""
        return FullGmm(*(part.to(device, dtype) for part in (self.weights, self.means, self.covariances)))


class FullPosteriors:
    """Posteriors of a full-covariance mixture over the Gaussians that the diagonal one ranks highest.

    num_gselect: Gaussians kept a frame (0: all); min_post: posteriors below it become 0 and the others are
    scaled to sum to 1, but the largest always stays, as Kaldi's fgmm-global-gselect-to-post.
    """

    def __init__(self, ubm: FullGmm, num_gselect: int, min_post: float = 0.0) -> None:
        self.diagonal = ubm.diagonal()
        self.constants, self.linear, self.quadratic = ubm.parameters()
        self.num_gselect = num_gselect if 0 < num_gselect < len(ubm.weights) else 0
        self.min_post = min_post

    def __call__(self, x: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
        """Return posteriors (N x C) and log likelihoods (N) of frames (N x D) with their packed outer products."""
        scores = self.constants + x @ self.linear.T - 0.5 * products @ self.quadratic.T
        if self.num_gselect:
            chosen = self.diagonal.log_likelihoods(x).topk(self.num_gselect, dim=1, sorted=False).indices
            kept = torch.full_like(scores, float("-inf"))
            scores = kept.scatter_(1, chosen, scores.gather(1, chosen))
        total = scores.logsumexp(1)
        posteriors = (scores - total[:, None]).exp_()
        if self.min_post:
            keep = posteriors >= self.min_post
            keep.scatter_(1, posteriors.argmax(1, keepdim=True), True)
            posteriors *= keep
            posteriors /= posteriors.sum(1, keepdim=True)
        return posteriors, total


def update_diagonal(old: DiagGmm, occupancy: Tensor, first: Tensor, second: Tensor,
                    min_weight: float = 1e-4) -> DiagGmm:
    """Return the mixture after one M-step (Kaldi's MleDiagGmmUpdate, low-count Gaussians kept).

    occupancy: C; first: C x D, sum of p x; second: C x D, sum of p x^2. Variances are floored at 0.001.
    """
    share = occupancy / occupancy.sum()
    enough = (occupancy > MIN_OCCUPANCY["diagonal"]) & (share > min_weight)
    means = first / occupancy.clamp_min(1e-10)[:, None]
    variances = (second / occupancy.clamp_min(1e-10)[:, None] - means.square()).clamp_min(VARIANCE_FLOOR)
    note_low_counts(enough, "diagonal")
    weights = torch.where(enough, share, share.clamp_min(min_weight))
    return DiagGmm(weights / weights.sum(), torch.where(enough[:, None], means, old.means.to(means)),
                   torch.where(enough[:, None], variances, old.variances.to(means)))


def update_full(old: FullGmm, occupancy: Tensor, first: Tensor, second: Tensor, min_weight: float = 1e-5) -> FullGmm:
    """Return the mixture after one M-step (Kaldi's MleFullGmmUpdate, low-count Gaussians kept).

    second: C x D(D+1)/2, packed sum of p x x^T. Eigenvalues of a covariance are floored at 0.001 or at
    1e-4 of its largest, whichever is more. In float64.
    """
    dim = first.shape[1]
    share = occupancy / occupancy.sum()
    enough = (occupancy > MIN_OCCUPANCY["full"]) & (share > min_weight)
    note_low_counts(enough, "full")
    count = occupancy.clamp_min(1e-10)[:, None]
    means = first / count
    covariances = unpack(second / count, dim) - means[:, :, None] * means[:, None, :]
    covariances = torch.where(enough[:, None, None], covariances, old.covariances.to(covariances))
    values, vectors = torch.linalg.eigh(covariances)
    floor = (values[:, -1:] / MAX_CONDITION).clamp_min(VARIANCE_FLOOR)
    low = (values < floor).any(1)
    if low.any():
        print(f"full UBM: covariances of {int(low.sum())} of {len(low)} Gaussians floored", file=sys.stderr)
        floored = (vectors * torch.maximum(values, floor)[:, None, :]) @ vectors.transpose(1, 2)
        covariances = torch.where(low[:, None, None], floored, covariances)
    weights = torch.where(enough, share, share.clamp_min(min_weight))
    return FullGmm(weights / weights.sum(), torch.where(enough[:, None], means, old.means.to(means)), covariances)


def note_low_counts(enough: Tensor, kind: str) -> None:
    """Say how many Gaussians have too little data to be re-estimated and stay as they were."""
    if not enough.all():
        print(f"{kind} UBM: {int((~enough).sum())} of {len(enough)} Gaussians have too little data and stay as they "
              "are", file=sys.stderr)


def check_finite(what: str, *parts: Tensor) -> None:
    """Raise InputError when a model holds NaN or infinite values."""
    if not all(torch.isfinite(part).all() for part in parts):
        raise InputError(f"{what} has NaN or infinite values and is not written; look for features that do (all "
                         "frames alike, digital silence) or ask for fewer Gaussians")


def write_diagonal(path: str | os.PathLike, gmm: DiagGmm, binary: bool = True) -> None:
    """Write Kaldi's <DiagGMM>."""
    check_finite(f"{path}: the mixture", gmm.weights, gmm.means, gmm.variances)
    with write_aside(path, "wb") as stream:
        kaldi = KaldiWriter(stream, binary)
        kaldi.token("<DiagGMM>")
        for token, part in (("<GCONSTS>", gmm.constants()), ("<WEIGHTS>", gmm.weights)):
            kaldi.token(token)
            kaldi.vector(part.float().cpu().numpy())
        for token, part in (("<MEANS_INVVARS>", gmm.means / gmm.variances), ("<INV_VARS>", 1 / gmm.variances)):
            kaldi.token(token)
            kaldi.matrix(part.float().cpu().numpy())
        kaldi.token("</DiagGMM>")


def write_full(path: str | os.PathLike, gmm: FullGmm, binary: bool = True) -> None:
    """Write Kaldi's <FullGMM>."""
    check_finite(f"{path}: the mixture", gmm.weights, gmm.means, gmm.covariances)
    constants, linear, _ = gmm.parameters()
    precision = gmm.covariances.double().inverse().float().cpu().numpy()
    with write_aside(path, "wb") as stream:
        kaldi = KaldiWriter(stream, binary)
        kaldi.token("<FullGMM>")
        for token, part in (("<GCONSTS>", constants), ("<WEIGHTS>", gmm.weights)):
            kaldi.token(token)
            kaldi.vector(part.float().cpu().numpy())
        kaldi.token("<MEANS_INVCOVARS>")
        kaldi.matrix(linear.float().cpu().numpy())
        kaldi.token("<INV_COVARS>")
        for matrix in precision:
            kaldi.packed(matrix)
        kaldi.token("</FullGMM>")


def read_vectors_of(kaldi: KaldiReader, tokens: tuple[str, str]) -> list[np.ndarray]:
    """Read the two vectors that open both kinds of mixture."""
    found = []
    for token in tokens:
        kaldi.expect(token)
        found.append(kaldi.vector(np.float64))
    return found


def read_diagonal(path: str | os.PathLike) -> DiagGmm:
    """Read Kaldi's <DiagGMM>, binary or text, as float64."""
    with open(path, "rb") as stream:
        kaldi = KaldiReader(stream)
        kaldi.expect("<DiagGMM>", "<DiagGMMBegin>")
        _, weights = read_vectors_of(kaldi, ("<GCONSTS>", "<WEIGHTS>"))
        kaldi.expect("<MEANS_INVVARS>")
        linear = kaldi.matrix(np.float64)
        kaldi.expect("<INV_VARS>")
        precision = kaldi.matrix(np.float64)
        kaldi.expect("</DiagGMM>", "<DiagGMMEnd>")
    return DiagGmm(*map(torch.from_numpy, (weights, linear / precision, 1 / precision)))


def read_full(path: str | os.PathLike) -> FullGmm:
    """Read Kaldi's <FullGMM>, binary or text, as float64."""
    with open(path, "rb") as stream:
        kaldi = KaldiReader(stream)
        kaldi.expect("<FullGMM>", "<FullGMMBegin>")
        _, weights = read_vectors_of(kaldi, ("<GCONSTS>", "<WEIGHTS>"))
        kaldi.expect("<MEANS_INVCOVARS>")
        linear = kaldi.matrix(np.float64)
        kaldi.expect("<INV_COVARS>")
        precision = np.stack([kaldi.packed(np.float64) for _ in weights])
        kaldi.expect("</FullGMM>", "<FullGMMEnd>")
    covariances = np.linalg.inv(precision)
    means = np.einsum("cij,cj->ci", covariances, linear)
    return FullGmm(*map(torch.from_numpy, (weights, means, covariances)))
