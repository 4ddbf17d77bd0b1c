"""Sums over (frame, Gaussian) pairs, sorted by Gaussian so that each Gaussian's pairs form one matrix product.

A frame has pairs only with the few Gaussians selected for it. Sorted pairs are cut into blocks of equal size, padded at
the end of each Gaussian, and the blocks of many Gaussians go through one batched product.
Shapes: N frames, D dimensions, C Gaussians, P pairs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

PAIRS_AT_ONCE = 1 << 16  # bounds the memory of a batch: 4 bytes x D each


def batches(gaussians: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield owners (B: the Gaussian of each block) and pairs (B x R: their indices, P for none), each pair once.

    gaussians: P, the Gaussian of each pair; count: C.
    """
    total = len(gaussians)
    order = torch.argsort(gaussians.to(torch.int32), stable=True)
    sizes = torch.bincount(gaussians, minlength=count)
    rows = 16
    while rows < 256 and 4 * rows * count < total:
        rows *= 2
    blocks = (sizes + rows - 1) // rows
    owners = torch.repeat_interleave(torch.arange(count, device=gaussians.device), blocks)
    ends = sizes.cumsum(0)
    before = torch.arange(len(owners), device=gaussians.device) - (blocks.cumsum(0) - blocks)[owners]
    slots = ((ends - sizes)[owners] + rows * before)[:, None] + torch.arange(rows, device=gaussians.device)
    pairs = torch.cat([order, order.new_full((rows,), total)])[slots].where(slots < ends[owners][:, None], total)
    at_once = max(1, PAIRS_AT_ONCE // rows)
    yield from zip(owners.split(at_once), pairs.split(at_once), strict=True)


def padded(values: Tensor) -> Tensor:
    """Return `values` with a zero at the end, the value that pads blocks."""
    return torch.cat([values, values.new_zeros(1)])


def mahalanobis(x: Tensor, frames: Tensor, gaussians: Tensor, means: Tensor, factors: Tensor) -> Tensor:
    """Return |F_c^T (x_t - mu_c)|^2 of each pair (t, c): P.

    x: N x D; frames, gaussians: P; means: C x D; factors F: C x D x D, with F F^T the inverse covariance.
    """
    distances = x.new_empty(len(frames) + 1)
    frames = padded(frames)
    shifts = torch.bmm(means[:, None, :], factors)  # C x 1 x D
    for owners, pairs in batches(gaussians, len(means)):
        near = x.index_select(0, frames.take(pairs).flatten()).view(*pairs.shape, x.shape[1])
        away = torch.baddbmm(shifts[owners], near, factors[owners], beta=-1)
        distances[pairs] = away.square_().sum(2)
    return distances[:-1]


def second_order(x: Tensor, frames: Tensor, gaussians: Tensor, weights: Tensor, count: int) -> Tensor:
    """Return sum over pairs of weight x x^T for each Gaussian: C x D x D."""
    sums = x.new_zeros(count, x.shape[1], x.shape[1])
    frames, weights = padded(frames), padded(weights)
    for owners, pairs in batches(gaussians, count):
        near = x.index_select(0, frames.take(pairs).flatten()).view(*pairs.shape, x.shape[1])
        sums.index_add_(0, owners, torch.bmm(near.transpose(1, 2), near * weights.take(pairs)[..., None]))
    return sums
