"""Train the universal background model: final.dubm (diagonal) and final.ubm (full covariances), Kaldi's files.

As Kaldi's train_diag_ubm.sh and train_full_ubm.sh: random frames as means, Gaussians split while EM goes
on, then EM with full covariances over the Gaussians that the diagonal model selects.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from steps.ivector.config import UbmOptions, read_ivector_config
from steps.ivector.frames import sample_frames
from steps.ivector.gmm import (
    DiagGmm,
    FullGmm,
    FullPosteriors,
    outer_products,
    update_diagonal,
    update_full,
    write_diagonal,
    write_full,
)
from utils.errors import InputError, run_main
from utils.files import write_aside

BLOCK = 8192     # frames at a time
PERTURB = 0.01   # of a standard deviation, between the halves of a split Gaussian


def diagonal_statistics(gmm: DiagGmm, x: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return occupancy (C), sums of p x and p x^2 (C x D, float64), and the mean log likelihood a frame."""
    counts, dim = len(gmm.weights), x.shape[1]
    occupancy = torch.zeros(counts, dtype=torch.float64, device=x.device)
    first, second = (torch.zeros(counts, dim, dtype=torch.float64, device=x.device) for _ in range(2))
    total = 0.0
    for block in x.split(BLOCK):
        scores = gmm.log_likelihoods(block)
        frame = scores.logsumexp(1, keepdim=True)
        posteriors = (scores - frame).exp_().T.contiguous()
        occupancy += posteriors.sum(1)
        first += posteriors @ block
        second += posteriors @ block.square()
        total += frame.sum().item()
    return occupancy, first, second, total / len(x)


def full_statistics(gmm: FullGmm, x: Tensor, num_gselect: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return occupancy (C), sums of p x (C x D) and of packed p x x^T, float64, and the mean log likelihood."""
    posteriors_of = FullPosteriors(gmm, num_gselect)
    counts, dim = len(gmm.weights), x.shape[1]
    occupancy = torch.zeros(counts, dtype=torch.float64, device=x.device)
    first = torch.zeros(counts, dim, dtype=torch.float64, device=x.device)
    second = torch.zeros(counts, dim * (dim + 1) // 2, dtype=torch.float64, device=x.device)
    total = 0.0
    for block in x.split(BLOCK):
        products = outer_products(block)
        posteriors, frame = posteriors_of(block, products)
        occupancy += posteriors.sum(0)
        first += posteriors.T @ block
        second += posteriors.T @ products
        total += frame.sum().item()
    return occupancy, first, second, total / len(x)


def split(gmm: DiagGmm, count: int, generator: torch.Generator) -> DiagGmm:
    """Return a mixture of `count` Gaussians: the heaviest split in two, a little apart."""
    chosen = gmm.weights.topk(count - len(gmm.weights)).indices
    step = PERTURB * gmm.variances[chosen].sqrt() * torch.randn(
        gmm.means[chosen].shape, generator=generator).to(gmm.means)
    weights, means = gmm.weights.clone(), gmm.means.clone()
    weights[chosen] /= 2
    means[chosen] += step
    return DiagGmm(torch.cat([weights, weights[chosen]]), torch.cat([means, gmm.means[chosen] - step]),
                   torch.cat([gmm.variances, gmm.variances[chosen]]))


def train_diagonal(x: Tensor, options: UbmOptions, seed: int) -> DiagGmm:
    """Train the diagonal mixture on N x D frames."""
    generator = torch.Generator().manual_seed(seed)
    count, target = max(1, options.num_gaussians // 2), options.num_gaussians
    if len(x) < 10 * target:
        raise InputError(f"{len(x)} frames are too few for {target} Gaussians; add data or lower ubm.num_gaussians")
    means = x[torch.randperm(len(x), generator=generator)[:count].to(x.device)]
    variance = x.double().var(0, correction=0).to(x).clamp_min(1e-3)
    gmm = DiagGmm(x.new_full((count,), 1 / count), means, variance.expand_as(means).contiguous())
    growing = max(1, options.split_iterations // 2)
    for iteration in range(options.split_iterations + options.diagonal_iterations):
        *statistics, likelihood = diagonal_statistics(gmm, x)
        gmm = update_diagonal(gmm, *statistics, min_weight=options.min_weight).to(x.device, x.dtype)
        size = min(target, count + (target - count) * (iteration + 1) // growing)
        if size > len(gmm.weights):
            gmm = split(gmm, min(size, 2 * len(gmm.weights)), generator)
        print(f"diagonal UBM, iteration {iteration + 1}: {len(gmm.weights)} Gaussians, log likelihood a frame "
              f"{likelihood:.4f}", file=sys.stderr)
    return gmm


def train_full(x: Tensor, start: DiagGmm, options: UbmOptions) -> FullGmm:
    """Train the full-covariance mixture on N x D frames from the diagonal one."""
    gmm = FullGmm(start.weights, start.means, torch.diag_embed(start.variances))
    for iteration in range(options.full_iterations):
        *statistics, likelihood = full_statistics(gmm, x, options.num_gselect)
        gmm = update_full(gmm, *statistics, min_weight=options.min_weight).to(x.device, x.dtype)
        print(f"full UBM, iteration {iteration + 1}: log likelihood a frame {likelihood:.4f}", file=sys.stderr)
    return gmm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("config", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("exp", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.num_threads)
    config = read_ivector_config(arguments.config)
    started = time.perf_counter()
    frames = sample_frames(arguments.data, config.frontend, config.ubm.num_frames, arguments.seed)
    x = torch.from_numpy(frames).to(arguments.device)
    diagonal = train_diagonal(x, config.ubm, arguments.seed)
    write_diagonal(arguments.exp / "final.dubm", diagonal)
    print(f"diagonal UBM after {time.perf_counter() - started:.1f} s", file=sys.stderr)
    write_full(arguments.exp / "final.ubm", train_full(x, diagonal, config.ubm))
    with write_aside(arguments.exp / "ubm_seconds") as stream:
        stream.write(f"{time.perf_counter() - started:.1f}\n")


if __name__ == "__main__":
    run_main(main)
