"""Train the universal background model: final.dubm (diagonal) and final.ubm (full covariances), Kaldi's files.

As in Kaldi's train_diag_ubm.sh and train_full_ubm.sh: means start at random frames, Gaussians are split during EM, then
EM continues with full covariances over the Gaussians that the diagonal model selects. Each iteration saves the mixture
in the folder `unfinished`; if training is killed, the next call continues from there.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from steps.ivector.config import UbmOptions, read_ivector_config
from steps.ivector.frames import sample_frames
from steps.ivector.gmm import DiagGmm, FullGmm, FullPosteriors, check_finite, update_diagonal, update_full
from steps.ivector.gmm_files import read_diagonal, write_diagonal, write_full
from steps.ivector.grouped import second_order
from steps.ivector.threads import in_order
from utils.arguments import seed
from utils.device import find_device
from utils.errors import InputError, run_main
from utils.features.model_features import keep_options, kept_options
from utils.tensor_file import load_tensors, save_tensors

Mixture = TypeVar("Mixture", DiagGmm, FullGmm)

BLOCK = 2048     # frames at a time, each compared with every Gaussian
FULL_BLOCK = 1 << 15  # frames at a time, each compared with the few selected
NEGLIGIBLE = 1e-8     # posteriors below it are not accumulated
LEAST = -60.0  # log posterior: smaller ones would give denormal numbers, which are slow
PERTURB = 0.01   # of a standard deviation, between the halves of a split Gaussian


def diagonal_statistics(gmm: DiagGmm, x: Tensor, threads: int = 1) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return occupancy (C), sums of p x and p x^2 (C x D, float64), and the mean log likelihood of a frame."""
    dim = x.shape[1]
    precision = 1 / gmm.variances
    weights = torch.cat([gmm.means * precision, -0.5 * precision], dim=1).T
    constants = gmm.constants()

    def of_block(block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        both = torch.cat([block, block.square()], dim=1)
        scores = torch.addmm(constants, both, weights)
        best = scores.amax(1, keepdim=True)
        posteriors = scores.sub_(best).clamp_min_(LEAST).exp_()
        norm = posteriors.sum(1, keepdim=True)
        posteriors /= norm
        return posteriors.sum(0), posteriors.T @ both, (best + norm.log()).sum()

    occupancy, sums, total = summed(in_order(of_block, x.split(BLOCK), threads))
    return occupancy, sums[:, :dim], sums[:, dim:], total.item() / len(x)


def full_statistics(posteriors_of: FullPosteriors, x: Tensor, chosen: Tensor, threads: int = 1,
                    ) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return occupancy (C), sums of p x (C x D) and p x x^T (C x D x D), float64, and the mean log likelihood.

    chosen: N x K, the Gaussians that each frame is compared with.
    """
    count, dim = posteriors_of.means.shape

    def of_block(block: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        frames, near = block
        gaussians, posteriors, total = posteriors_of(frames, near)
        rows, slots = torch.nonzero(posteriors > NEGLIGIBLE, as_tuple=True)
        gaussians, weights = gaussians[rows, slots], posteriors[rows, slots]
        occupancy = frames.new_zeros(count).index_add_(0, gaussians, weights)
        first = frames.new_zeros(count, dim).index_add_(0, gaussians, frames[rows] * weights[:, None])
        return occupancy, first, second_order(frames, rows, gaussians, weights, count), total.sum()

    cut = zip(x.split(FULL_BLOCK), chosen.split(FULL_BLOCK), strict=True)
    occupancy, first, second, total = summed(in_order(of_block, cut, threads))
    return occupancy, first, second, total.item() / len(x)


def summed(parts: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    """Return the sums of corresponding tensors, in float64."""
    sums: list[Tensor] = []
    for part in parts:
        sums = [one.double() if not sums else sums[index].add_(one) for index, one in enumerate(part)]
    return sums


def split(gmm: DiagGmm, count: int, generator: torch.Generator) -> DiagGmm:
    """Return a mixture of `count` Gaussians, with the heaviest ones split into two nearby ones each."""
    chosen = gmm.weights.topk(count - len(gmm.weights)).indices
    step = PERTURB * gmm.variances[chosen].sqrt() * torch.randn(
        gmm.means[chosen].shape, generator=generator).to(gmm.means)
    weights, means = gmm.weights.clone(), gmm.means.clone()
    weights[chosen] /= 2
    means[chosen] += step
    return DiagGmm(torch.cat([weights, weights[chosen]]), torch.cat([means, gmm.means[chosen] - step]),
                   torch.cat([gmm.variances, gmm.variances[chosen]]))


def train_diagonal(x: Tensor, options: UbmOptions, seed: int, threads: int = 1, work: Path | None = None) -> DiagGmm:
    """Train the diagonal mixture on N x D frames. work: folder to save each iteration's mixture in."""
    count, target = max(1, options.num_gaussians // 2), options.num_gaussians
    if len(x) < 10 * target:
        raise InputError(f"{len(x)} frames are too few for {target} Gaussians; add data or lower ubm.num_gaussians")
    growing = max(1, options.split_iterations // 2)
    done, gmm = _last(work, "diagonal", DiagGmm, x)
    if gmm is None:
        generator = torch.Generator().manual_seed(seed)
        means = x[torch.randperm(len(x), generator=generator)[:count].to(x.device)]
        variance = x.double().var(0, correction=0).to(x).clamp_min(1e-3)
        gmm = DiagGmm(x.new_full((count,), 1 / count), means, variance.expand_as(means).contiguous())
    for iteration in range(done, options.split_iterations + options.diagonal_iterations):
        *statistics, likelihood = diagonal_statistics(gmm, x, threads)
        gmm = update_diagonal(gmm, *statistics, min_weight=options.min_weight).to(x.device, x.dtype)
        size = min(target, count + (target - count) * (iteration + 1) // growing)
        if size > len(gmm.weights):
            generator = torch.Generator().manual_seed(seed * 1000 + iteration + 1)
            gmm = split(gmm, min(size, 2 * len(gmm.weights)), generator)
        check_finite(f"diagonal UBM, iteration {iteration + 1}: the mixture", *parts_of(gmm).values())
        _keep(work, "diagonal", gmm, iteration + 1)
        print(f"diagonal UBM, iteration {iteration + 1}: {len(gmm.weights)} Gaussians, log likelihood per frame "
              f"{likelihood:.4f}", file=sys.stderr)
    return gmm


def train_full(x: Tensor, start: DiagGmm, options: UbmOptions, threads: int = 1, work: Path | None = None) -> FullGmm:
    """Train the full-covariance mixture on N x D frames from the diagonal one. work: as in train_diagonal."""
    done, gmm = _last(work, "full", FullGmm, x)
    if gmm is None:
        gmm = FullGmm(start.weights, start.means, torch.diag_embed(start.variances))
    select = FullPosteriors(gmm, options.num_gselect, selector=start).select
    chosen = torch.cat([part.to(torch.int32) for part in in_order(select, x.split(BLOCK), threads)])  # once, as Kaldi
    for iteration in range(done, options.full_iterations):
        *statistics, likelihood = full_statistics(FullPosteriors(gmm, options.num_gselect), x, chosen, threads)
        gmm = update_full(gmm, *statistics, min_weight=options.min_weight).to(x.device, x.dtype)
        check_finite(f"full UBM, iteration {iteration + 1}: the mixture", *parts_of(gmm).values())
        _keep(work, "full", gmm, iteration + 1)
        print(f"full UBM, iteration {iteration + 1}: log likelihood per frame {likelihood:.4f}", file=sys.stderr)
    return gmm


def parts_of(gmm: DiagGmm | FullGmm) -> dict[str, Tensor]:
    """Return the parameters by name."""
    return {field.name: getattr(gmm, field.name) for field in fields(gmm) if field.name != "stored"}


def _keep(work: Path | None, name: str, gmm: DiagGmm | FullGmm, iteration: int) -> None:
    if work is not None:
        save_tensors(work / f"{name}.safetensors", parts_of(gmm), {"iteration": iteration})


def _last(work: Path | None, name: str, kind: type[Mixture], x: Tensor) -> tuple[int, Mixture | None]:
    """Return the number of finished iterations, and the mixture after them."""
    found = load_tensors(work / f"{name}.safetensors") if work else None
    return (int(found[1]["iteration"]), kind(**found[0]).to(x.device, x.dtype)) if found else (0, None)


def read_start(path: Path, count: int, dim: int) -> DiagGmm:
    """Read a diagonal mixture to start from; raises InputError unless it has `count` Gaussians of `dim` dimensions."""
    gmm = read_diagonal(path)
    if tuple(gmm.means.shape) != (count, dim):
        raise InputError(f"{path}: {len(gmm.weights)} Gaussians of dimension {gmm.means.shape[1]}; ubm.num_gaussians "
                         f"is {count} and the features have {dim} values per frame")
    return gmm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--seed", type=seed, default=1)
    parser.add_argument("--diagonal", type=Path, help="diagonal mixture (Kaldi's) to use instead of training one")
    parser.add_argument("config", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("exp", type=Path, help="folder for the mixtures")
    arguments = parser.parse_args()
    device = find_device(arguments.device)
    threads = arguments.num_threads if device.type == "cpu" else 1
    torch.set_num_threads(1)  # blocks side by side, one core each
    config = read_ivector_config(arguments.config)
    started = time.perf_counter()
    keep_options(arguments.exp, kept_options(arguments.data, config.frontend.vad))
    frames = sample_frames(arguments.data, config.frontend, config.ubm.num_frames, arguments.seed)
    x = torch.from_numpy(frames).to(device)
    work = arguments.exp / "unfinished"
    if arguments.diagonal:
        diagonal = read_start(arguments.diagonal, config.ubm.num_gaussians, x.shape[1])
    else:
        diagonal = train_diagonal(x, config.ubm, arguments.seed, threads, work)
    write_diagonal(arguments.exp / "final.dubm", diagonal)
    diagonal = diagonal.to(x.device, x.dtype)
    print(f"diagonal UBM after {time.perf_counter() - started:.1f} s", file=sys.stderr)
    write_full(arguments.exp / "final.ubm", train_full(x, diagonal, config.ubm, threads, work))


if __name__ == "__main__":
    run_main(main)
