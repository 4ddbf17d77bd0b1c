"""The total-variability model, in Kaldi's augmented form, on batched matrix products.

Shapes: U utterances, C Gaussians, D feature and S i-vector dimensions. The mean of Gaussian c for an utterance
is M_c x with x ~ N(o e_0, I): the mean of the UBM sits in the first column of M_c, scaled by the prior
offset o. With counts gamma_c and first-order sums X_c of an utterance, x has
    precision  L = I + sum_c gamma_c M_c^T P_c M_c            (P_c: inverse covariance)
    mean       L^-1 (o e_0 + sum_c M_c^T P_c X_c)
and the i-vector is that mean minus o e_0. Equations as in Dehak et al. 2011, with the prior of Kaldi's
ivector-extractor.
"""

import os
import sys
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steps.ivector.gmm import FullGmm, check_finite, pack, unpack
from steps.ivector.threads import in_order
from utils.errors import InputError
from utils.files import write_aside
from utils.kaldi.objects import KaldiReader, KaldiWriter

PRIOR_OFFSET = 100.0       # Kaldi's initial value
MIN_COUNT = 100.0          # frames below which M_c and P_c are not updated
VARIANCE_FLOOR = 0.1       # share of the average covariance
GAUSSIANS_AT_ONCE = 64     # in the M-step: bounds its memory
PIECES = 8                 # of the sums' rows, which threads share
BLOCKS_IN_FLOAT = 64       # of utterances, summed in float32 before they are added in float64


@dataclass
class Extractor:
    """m: C x D x S; precision P: C x D x D; offset o of the prior. weights: C, never updated (Kaldi's w_vec)."""

    m: Tensor
    precision: Tensor
    offset: float
    weights: Tensor

    @classmethod
    def from_ubm(cls, ubm: FullGmm, dim: int, seed: int) -> "Extractor":
        """Return the initial model: the UBM's means in the first column, random numbers elsewhere."""
        generator = torch.Generator().manual_seed(seed)
        m = torch.randn(*ubm.means.shape, dim, generator=generator, dtype=torch.float64)
        m[:, :, 0] = ubm.means.double().cpu() / PRIOR_OFFSET
        precision = ubm.covariances.double().cpu().inverse()
        return cls(m, precision, PRIOR_OFFSET, ubm.weights.double().cpu())


class Posterior:
    """The E-step: distributions of x for blocks of utterances. device, dtype: those of counts and sums."""

    def __init__(self, model: Extractor, device: str | torch.device = "cpu",
                 dtype: torch.dtype = torch.float32) -> None:
        self.offset = model.offset
        self.dim = model.m.shape[2]
        projected = torch.cat([block_p @ block_m for block_p, block_m in zip(
            model.precision.split(GAUSSIANS_AT_ONCE), model.m.split(GAUSSIANS_AT_ONCE), strict=True)])  # P_c M_c
        self.linear = projected.flatten(0, 1).to(device, dtype)  # C D x S
        self.quadratic = torch.cat([pack(m.transpose(1, 2) @ p) for m, p in zip(
            model.m.split(GAUSSIANS_AT_ONCE), projected.split(GAUSSIANS_AT_ONCE), strict=True)]).to(device, dtype)

    def __call__(self, counts: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Return means (U x S) and covariances (U x S x S) of x, from U x C counts and U x C x D sums."""
        precision = unpack(counts @ self.quadratic, self.dim)
        precision.diagonal(dim1=1, dim2=2).add_(1)
        linear = sums.flatten(1) @ self.linear
        linear[:, 0] += self.offset
        factor = self._factors(precision)
        means = torch.cholesky_solve(linear[..., None], factor)[..., 0]
        return means, torch.cholesky_inverse(factor)

    @staticmethod
    def _factors(precision: Tensor) -> Tensor:
        """Return Cholesky factors (U x S x S). L is I plus a positive semidefinite matrix; where rounding breaks this,
        as with models of degenerate data, eigenvalues below 1 are raised to 1, with a message."""
        factors, failed = torch.linalg.cholesky_ex(precision)
        weak = failed > 0
        if weak.any():
            check_finite("the precision of an i-vector", precision[weak])
            values, vectors = torch.linalg.eigh(precision[weak].double())
            print(f"i-vectors: precisions of {len(values)} of {len(weak)} utterances of a block floored: the smallest "
                  f"eigenvalue was {values.min():.3g}, the largest {values.max():.3g}", file=sys.stderr)
            raised = (vectors * values.clamp_min(1)[:, None, :]) @ vectors.transpose(1, 2)
            diagonal = raised.diagonal(dim1=1, dim2=2)
            diagonal += 1e-12 * diagonal.amax(1, keepdim=True)  # rounding of the product itself
            factors[weak] = torch.linalg.cholesky(raised).to(factors)
        return factors

    def with_statistics(self, block: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a block's counts and sums with the E-step's results for them, the arguments of Statistics.add."""
        return *block, *self(*block)

    def ivectors(self, counts: Tensor, sums: Tensor) -> Tensor:
        """Return the i-vectors, means of x minus the prior's: U x S."""
        means, _ = self(counts, sums)
        means[:, 0] -= self.offset
        return means


class Statistics:
    """Sums over utterances for the M-step: over a few blocks in their own precision, then in float64.

    counts: C; y: C D x S, sum X_c E[x]^T; r: C x S(S+1)/2, sum gamma_c E[x x^T]; second: C x D x D,
    sum gamma x x^T over frames; x_sum: S; x_scatter: S x S; utterances: their number.
    """

    def __init__(self, gaussians: int, features: int, dim: int, threads: int = 1) -> None:
        self.threads = threads
        self.shapes = (gaussians * features, dim), (gaussians, dim * (dim + 1) // 2)
        self.counts = torch.zeros(gaussians, dtype=torch.float64)
        self.second = torch.zeros(gaussians, features, features, dtype=torch.float64)
        self.x_sum = torch.zeros(dim, dtype=torch.float64)
        self.x_scatter = torch.zeros(dim, dim, dtype=torch.float64)
        self.small = [gaussians, dim, dim * dim]
        self.utterances = 0
        self.large: list[Tensor] | None = None   # y and r in float64
        self.recent: list[Tensor] | None = None  # y and r of the last blocks
        self.blocks = 0

    def add(self, counts: Tensor, sums: Tensor, means: Tensor, covariances: Tensor) -> None:
        """Add a block of utterances: their statistics and the E-step's results."""
        second = covariances.baddbmm_(means[:, :, None], means[:, None, :])
        sums_of_block = counts.sum(0), means.sum(0), second.sum(0)
        small = torch.cat([part.double().flatten() for part in sums_of_block]).cpu()  # one copy: a GPU waits for each
        for total, part in zip((self.counts, self.x_sum, self.x_scatter), small.split(self.small), strict=True):
            total += part.view_as(total)
        self.utterances += len(counts)
        if self.recent is None:
            self.recent = [means.new_zeros(shape) for shape in self.shapes]
        products = [(self.recent[0], sums.flatten(1).T, means), (self.recent[1], counts.T, pack(second))]
        pieces = [piece for total, left, right in products for piece in zip(
            total.chunk(PIECES), left.chunk(PIECES), [right] * PIECES, strict=False)]
        deque(in_order(lambda piece: piece[0].addmm_(*piece[1:]), pieces, self.threads), maxlen=0)
        self.blocks += 1
        if self.blocks % BLOCKS_IN_FLOAT == 0:
            self._flush(self.recent)
            self.recent = None

    def tensors(self) -> dict[str, Tensor]:
        """Return all sums by name, as `merge` takes them; y and r are float32 while there are few blocks."""
        if self.large is not None and self.recent is not None:
            self._flush(self.recent)
            self.recent = None
        y, r = self.large or self.recent or [torch.zeros(shape) for shape in self.shapes]
        return {"counts": self.counts, "second": self.second, "x_sum": self.x_sum, "x_scatter": self.x_scatter,
                "utterances": torch.tensor(self.utterances), "y": y, "r": r}

    def merge(self, tensors: dict[str, Tensor]) -> None:
        """Add the sums over other utterances."""
        for name in ("counts", "second", "x_sum", "x_scatter"):
            getattr(self, name).add_(tensors[name])
        self.utterances += int(tensors["utterances"])
        self._flush([tensors["y"], tensors["r"]])

    def _flush(self, sums: list[Tensor]) -> None:
        """Add y and r to the float64 sums."""
        if self.large is None:
            self.large = [part.double().cpu() for part in sums]
        else:
            for total, part in zip(self.large, sums, strict=True):
                pieces = zip(total.chunk(PIECES), part.cpu().chunk(PIECES), strict=True)
                deque(in_order(lambda piece: piece[0].add_(piece[1]), pieces, self.threads), maxlen=0)


def update(model: Extractor, stats: Statistics, threads: int = 1) -> Extractor:
    """Return the model after one M-step.

    M_c = Y_c R_c^-1;  covariance_c = (S_c - M_c Y_c^T - Y_c M_c^T + M_c R_c M_c^T) / gamma_c, its eigenvalues
    floored relative to a tenth of the average one; then update the prior. Gaussians with fewer than 100 frames stay.
    """
    dim = model.m.shape[2]
    sums = stats.tensors()
    y, packed_r = sums["y"].double().view_as(model.m), sums["r"].double()
    enough = stats.counts >= MIN_COUNT
    if not enough.any():
        raise InputError(f"no Gaussian has {MIN_COUNT:g} frames: too little data for {len(enough)} Gaussians")
    if not enough.all():
        print(f"extractor: {int((~enough).sum())} of {len(enough)} Gaussians have too little data and stay as they are",
              file=sys.stderr)
    m, covariances = model.m.clone(), torch.zeros_like(model.precision)

    def estimate(chosen: Tensor) -> None:
        r = unpack(packed_r[chosen], dim)
        new = solve_projections(r, y[chosen], model.m[chosen])
        cross = new @ y[chosen].transpose(1, 2)
        raw = stats.second[chosen] - cross - cross.transpose(1, 2) + new @ r @ new.transpose(1, 2)
        m[chosen], covariances[chosen] = new, raw / stats.counts[chosen, None, None]

    deque(in_order(estimate, torch.where(enough)[0].split(GAUSSIANS_AT_ONCE), threads), maxlen=0)
    average = (covariances * (stats.counts * enough)[:, None, None]).sum(0) / stats.counts[enough].sum()
    precision = model.precision.clone()
    precision[enough] = floor_covariances(covariances[enough], regular(VARIANCE_FLOOR * average)).inverse()
    updated = update_prior(Extractor(m, precision, model.offset, model.weights), stats)
    check_finite("the i-vector extractor", updated.m, updated.precision)
    return updated


def solve_projections(r: Tensor, y: Tensor, old: Tensor) -> Tensor:
    """Return the M that maximise tr(M^T P Y) - 1/2 tr(P M R M^T): C x D x S, from R (C x S x S), Y and the old M.

    M = Y R^-1. Where R is nearly singular, eigenvalues of R scaled to a unit diagonal are raised to 1e-4 of the largest
    and M moves from the old one, M + (Y - M R) R'^-1, as Kaldi's SolveQuadraticMatrixProblem.
    """
    scale = r.diagonal(dim1=1, dim2=2).clamp_min(1e-40).sqrt()
    scaled = r / scale[:, :, None] / scale[:, None, :]
    factor, failed = torch.linalg.cholesky_ex(scaled)
    right = (y / scale[:, None, :]).transpose(1, 2)
    new = torch.cholesky_solve(right, factor).transpose(1, 2) / scale[:, None, :]
    weak = (failed > 0) | (factor.diagonal(dim1=1, dim2=2).square().amin(1) < 1e-3)
    if weak.any():
        values, vectors = torch.linalg.eigh(scaled[weak])
        values = torch.maximum(values, values[:, -1:] / 1e4)
        left = (y[weak] - old[weak] @ r[weak]) / scale[weak, None, :]
        step = (left @ vectors / values[:, None, :]) @ vectors.transpose(1, 2)
        new[weak] = old[weak] + step / scale[weak, None, :]
    return new


def regular(covariance: Tensor) -> Tensor:
    """Raise eigenvalues below 1e-4 of the largest to that, for nearly dependent features."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(1e-4 * values[-1])) @ vectors.T


def floor_covariances(covariances: Tensor, floor: Tensor) -> Tensor:
    """Raise eigenvalues below 1 of each matrix to 1, in the space where `floor` (D x D) is the identity."""
    lower = torch.linalg.cholesky(floor)
    inverse = torch.linalg.inv(lower)
    values, vectors = torch.linalg.eigh(inverse @ covariances @ inverse.T)
    low = (values < 1).any(1)
    if not low.any():
        return covariances
    print(f"extractor: covariances of {int(low.sum())} of {len(low)} Gaussians floored", file=sys.stderr)
    raised = lower @ (vectors * values.clamp_min(1)[:, None, :]) @ vectors.transpose(1, 2) @ lower.T
    return torch.where(low[:, None, None], raised, covariances)


def update_prior(model: Extractor, stats: Statistics) -> Extractor:
    """Return the same model in coordinates where x has unit covariance and its mean lies along e_0.

    With mean b and covariance K of x over the training utterances: T = K^-1/2; a Householder reflection U
    takes T b to its length times e_0; a rotation A of the other axes follows, as in Kaldi: with V the last S - 1 rows
    and columns of U T, and W those of sum_c w_c M_c^T P_c M_c, it makes V^-T W V^-1 diagonal, largest first.
    M_c becomes M_c (A U T)^-1, and the offset becomes the length of T b.
    """
    mean = stats.x_sum / stats.utterances
    covariance = stats.x_scatter / stats.utterances - torch.outer(mean, mean)
    values, vectors = torch.linalg.eigh(covariance)
    whiten = values.clamp_min(1e-7 * values[-1])[:, None] ** -0.5 * vectors.T
    moved = whiten @ mean
    offset = moved.norm()
    axis = moved / offset
    axis[0] -= 1
    if axis.norm() > 1e-12:
        axis /= axis.norm()
        whiten = whiten - 2 * torch.outer(axis, axis @ whiten)
    quadratic = torch.zeros_like(covariance)
    for m, p, weight in zip(model.m.split(GAUSSIANS_AT_ONCE), model.precision.split(GAUSSIANS_AT_ONCE),
                            model.weights.split(GAUSSIANS_AT_ONCE), strict=True):
        quadratic += (weight[:, None, None] * (m.transpose(1, 2) @ p @ m)).sum(0)
    back = torch.linalg.inv(whiten[1:, 1:])  # as Kaldi: of this block only
    inner = back.T @ quadratic[1:, 1:] @ back
    _, directions = torch.linalg.eigh((inner + inner.T) / 2)
    rotation = torch.eye(len(mean), dtype=torch.float64)
    rotation[1:, 1:] = directions.flip(1).T
    return Extractor(model.m @ torch.linalg.inv(rotation @ whiten), model.precision, float(offset), model.weights)


def write_extractor(path: str | os.PathLike, model: Extractor, binary: bool = True) -> None:
    """Write Kaldi's <IvectorExtractor>, without weight projections."""
    check_finite(f"{path}: the extractor", model.m, model.precision)
    with write_aside(path, "wb") as stream:
        kaldi = KaldiWriter(stream, binary)
        kaldi.token("<IvectorExtractor>")
        kaldi.token("<w>")
        kaldi.matrix(np.zeros((0, 0)))
        kaldi.token("<w_vec>")
        kaldi.vector(model.weights.double().cpu().numpy())
        kaldi.token("<M>")
        kaldi.int32(len(model.m))
        for matrix in model.m.double().cpu().numpy():
            kaldi.matrix(matrix)
        kaldi.token("<SigmaInv>")
        for matrix in model.precision.double().cpu().numpy():
            kaldi.packed(matrix)
        kaldi.token("<IvectorOffset>")
        kaldi.float64(model.offset)
        kaldi.token("</IvectorExtractor>")


def read_extractor(path: str | os.PathLike) -> Extractor:
    """Read Kaldi's <IvectorExtractor>, binary or text; raises InputError for one with weight projections."""
    with open(path, "rb") as stream:
        kaldi = KaldiReader(stream)
        kaldi.expect("<IvectorExtractor>")
        kaldi.expect("<w>")
        if kaldi.matrix(np.float64).size:
            raise InputError(f"{path}: has weight projections (--use-weights=true), which are not supported")
        kaldi.expect("<w_vec>")
        weights = kaldi.vector(np.float64)
        kaldi.expect("<M>")
        m = [kaldi.matrix(np.float64) for _ in range(kaldi.int32())]
        kaldi.expect("<SigmaInv>")
        precision = [kaldi.packed(np.float64) for _ in m]
        kaldi.expect("<IvectorOffset>")
        offset = kaldi.real()
        kaldi.expect("</IvectorExtractor>")
    shapes = {matrix.shape for matrix in m}, {matrix.shape[:1] for matrix in precision}
    if len(shapes[0]) != 1 or shapes[1] != {next(iter(shapes[0]))[:1]} or len(weights) != len(m):
        raise InputError(f"{path}: sizes do not match: {len(weights)} weights, {len(m)} matrices M of "
                         f"{sorted(shapes[0])}, SigmaInv of {sorted(shapes[1])}")
    model = Extractor(*map(torch.from_numpy, (np.stack(m), np.stack(precision))), offset, torch.from_numpy(weights))
    if not all(torch.isfinite(part).all() for part in (model.m, model.precision, torch.tensor(offset))):
        raise InputError(f"{path}: has NaN or infinite values; train it again")
    return model
