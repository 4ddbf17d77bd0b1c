"""Gaussian mixtures with diagonal and with full covariances: likelihoods, posteriors, M-steps.

Shapes: N frames, D dimensions, C Gaussians, K Gaussians selected for a frame.
    diagonal  log w_c N(x) = g_c + (mu_c / var_c) . x - 1/2 (1 / var_c) . x^2, one matrix product for all c
    full      log w_c N(x) = log w_c - D/2 log 2 pi + log |F_c| - 1/2 |F_c^T (x - mu_c)|^2,
              F_c F_c^T the inverse covariance, for the K that the diagonal model ranks highest (grouped.py)
"""

import sys
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from steps.ivector.grouped import mahalanobis
from utils.errors import InputError

LOG_2PI = 1.8378770664093453
SELECT_AT_ONCE = 8192       # frames: bounds the memory of selection
VARIANCE_FLOOR = 0.001      # Kaldi's, for both kinds
MAX_CONDITION = 1e4         # limit on largest / smallest eigenvalue of a full covariance, as Kaldi
AT_FLOOR = 1 + 1e-3         # times the floor: eigenvalues below this count as floored, despite rounding
MIN_OCCUPANCY = {"diagonal": 10.0, "full": 100.0}  # frames below which a Gaussian keeps its old shape


def pack(matrices: Tensor) -> Tensor:
    """Return the lower triangles of ... x D x D matrices, row by row: ... x D(D+1)/2."""
    dim = matrices.shape[-1]
    rows, columns = torch.tril_indices(dim, dim, device=matrices.device)
    return matrices.flatten(-2).index_select(-1, rows * dim + columns)


def unpack(packed: Tensor, dim: int) -> Tensor:
    """Return the symmetric ... x D x D matrices of packed triangles."""
    index = torch.arange(dim, device=packed.device)
    low, high = torch.minimum(index[:, None], index), torch.maximum(index[:, None], index)
    places = high * (high + 1) // 2 + low
    return packed.index_select(-1, places.flatten()).unflatten(-1, (dim, dim))


class Pairs(NamedTuple):
    """P pairs of a frame and a Gaussian, with the posterior as weight, frame by frame."""

    frames: Tensor
    gaussians: Tensor
    weights: Tensor


@dataclass
class DiagGmm:
    """weights: C; means, variances: C x D. stored: g_c as read from a file, to write the same bytes again."""

    weights: Tensor
    means: Tensor
    variances: Tensor
    stored: Tensor | None = None

    def constants(self) -> Tensor:
        """Return g_c: C."""
        dim = self.means.shape[1]
        return self.weights.log() - 0.5 * (dim * LOG_2PI + self.variances.log().sum(1)
                                           + (self.means**2 / self.variances).sum(1))

    def log_likelihoods(self, x: Tensor) -> Tensor:
        """Return log w_c N(x; mu_c, var_c): N x C."""
        precision = 1 / self.variances
        return self.constants() + x @ (self.means * precision).T - 0.5 * x.square() @ precision.T

    def to(self, device: str | torch.device, dtype: torch.dtype) -> "DiagGmm":
        """Return a copy on a device."""
        return DiagGmm(*(part.to(device, dtype) for part in (self.weights, self.means, self.variances)))


@dataclass
class FullGmm:
    """weights: C; means: C x D; covariances: C x D x D. stored: as in DiagGmm."""

    weights: Tensor
    means: Tensor
    covariances: Tensor
    stored: Tensor | None = None

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the constants log w_c - D/2 log 2 pi + log |F_c| (C), and F_c (C x D x D, lower triangular)."""
        factors = torch.linalg.cholesky(self.covariances.double().inverse())
        logdet = factors.diagonal(dim1=1, dim2=2).log().sum(1)
        constants = self.weights.double().log() - 0.5 * self.means.shape[1] * LOG_2PI + logdet
        return constants.to(self.means), factors.to(self.means)

    def diagonal(self) -> DiagGmm:
        """Return the mixture without the off-diagonal covariances, for selecting Gaussians."""
        return DiagGmm(self.weights, self.means, torch.diagonal(self.covariances, dim1=1, dim2=2).contiguous())

    def to(self, device: str | torch.device, dtype: torch.dtype) -> "FullGmm":
        """Return a copy on a device."""
        return FullGmm(*(part.to(device, dtype) for part in (self.weights, self.means, self.covariances)))


class FullPosteriors:
    """Posteriors of a full-covariance mixture over the Gaussians that a diagonal one ranks highest.

    selector: the diagonal mixture (default: the full one without its off-diagonal covariances).
    num_gselect: Gaussians kept per frame (0: all); min_post: posteriors below it become 0 and the others are
    scaled to sum to 1, but the largest always stays, as Kaldi's fgmm-global-gselect-to-post.
    """

    def __init__(self, ubm: FullGmm, num_gselect: int, min_post: float = 0.0, selector: DiagGmm | None = None) -> None:
        self.selector = selector or ubm.diagonal()
        self.means = ubm.means
        self.constants, self.factors = ubm.factors()
        self.num_gselect = min(num_gselect, len(ubm.weights)) or len(ubm.weights)
        self.min_post = min_post

    def select(self, x: Tensor) -> Tensor:
        """Return the selected Gaussians of each frame, unordered: N x K, int64 (Kaldi's gselect)."""
        if self.num_gselect == len(self.constants):
            return torch.arange(self.num_gselect, device=x.device).expand(len(x), -1)
        chosen = [self.selector.log_likelihoods(block).topk(self.num_gselect, dim=1, sorted=False).indices
                  for block in x.split(SELECT_AT_ONCE)]
        return torch.cat(chosen)

    def __call__(self, x: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return selected Gaussians (N x K), their posteriors (N x K) and log likelihoods (N) of frames N x D.

        chosen: N x K, an earlier selection.
        """
        chosen = self.select(x) if chosen is None else chosen.long()
        gaussians = chosen.flatten()
        frames = torch.arange(len(x), device=x.device).repeat_interleave(chosen.shape[1])
        distances = mahalanobis(x, frames, gaussians, self.means, self.factors)
        scores = (self.constants[gaussians] - 0.5 * distances).view(chosen.shape)
        total = scores.logsumexp(1)
        posteriors = (scores - total[:, None]).exp_()
        if self.min_post:
            keep = posteriors >= self.min_post
            keep.scatter_(1, posteriors.argmax(1, keepdim=True), True)
            posteriors *= keep
            posteriors /= posteriors.sum(1, keepdim=True)
        return chosen, posteriors, total

    def pairs(self, x: Tensor) -> Pairs:
        """Return the non-zero posteriors of frames N x D."""
        chosen, posteriors, _ = self(x)
        frames, slots = torch.nonzero(posteriors, as_tuple=True)
        return Pairs(frames, chosen[frames, slots], posteriors[frames, slots])


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

    second: C x D x D, sum of p x x^T. Eigenvalues of a covariance are floored at 0.001 or at
    1e-4 of its largest, whichever is more. In float64.
    """
    share = occupancy / occupancy.sum()
    enough = (occupancy > MIN_OCCUPANCY["full"]) & (share > min_weight)
    note_low_counts(enough, "full")
    count = occupancy.clamp_min(1e-10)[:, None]
    means = first / count
    covariances = second / count[..., None] - means[:, :, None] * means[:, None, :]
    covariances = torch.where(enough[:, None, None], covariances, old.covariances.to(covariances))
    values, vectors = torch.linalg.eigh(covariances)
    floor = (values[:, -1:] / MAX_CONDITION).clamp_min(VARIANCE_FLOOR)
    at_floor = (values < AT_FLOOR * floor).any(1)
    if at_floor.any():
        print(f"full UBM: covariances of {int(at_floor.sum())} of {len(at_floor)} Gaussians floored", file=sys.stderr)
    low = (values < floor).any(1)
    if low.any():
        floored = (vectors * torch.maximum(values, floor)[:, None, :]) @ vectors.transpose(1, 2)
        covariances = torch.where(low[:, None, None], floored, covariances)
    weights = torch.where(enough, share, share.clamp_min(min_weight))
    return FullGmm(weights / weights.sum(), torch.where(enough[:, None], means, old.means.to(means)), covariances)


def note_low_counts(enough: Tensor, kind: str) -> None:
    """Print how many Gaussians have too little data to be re-estimated and stay as they were."""
    if not enough.all():
        print(f"{kind} UBM: {int((~enough).sum())} of {len(enough)} Gaussians have too little data and stay as they "
              "are", file=sys.stderr)


def check_finite(what: str, *parts: Tensor) -> None:
    """Raise InputError when a model holds NaN or infinite values."""
    if not all(torch.isfinite(part).all() for part in parts):
        raise InputError(f"{what} has NaN or infinite values and is not written; look for features that do (all "
                         "frames alike, digital silence) or ask for fewer Gaussians")
