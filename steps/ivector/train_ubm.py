"""Train the universal background model: final.dubm (diagonal) and final.ubm (full covariances), Kaldi's files.

As in Kaldi's train_diag_ubm.sh and train_full_ubm.sh: means start at random frames, Gaussians are split during EM, then
EM continues with full covariances over the Gaussians that the diagonal model selects.

One process draws the frames, keeps them in a fixed number of parts (ubm.parts) in the folder `unfinished`, and runs the
initial iterations. It runs the others, too; or, on a cluster, each job of an iteration sums some parts into files
(--accumulate) and a last job adds them (--update), with bit-identical results. Each iteration's mixture stays in that
folder until the step is done; if training is killed, the next call continues from the last one.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from steps.ivector.config import IvectorConfig, UbmOptions, read_ivector_config
from steps.ivector.frames import draw_frames
from steps.ivector.gmm import DiagGmm, FullGmm, FullPosteriors, check_finite, update_diagonal, update_full
from steps.ivector.gmm_files import read_diagonal, write_diagonal, write_full
from steps.ivector.grouped import second_order
from steps.ivector.threads import in_order
from utils.arguments import seed
from utils.device import find_device
from utils.errors import InputError, run_main
from utils.features.model_features import keep_options, kept_options
from utils.files import count_lines
from utils.space import require_space
from utils.tensor_file import load_tensors, save_tensors

Sums = tuple[Tensor, Tensor, Tensor, Tensor]
Found = TypeVar("Found")

BLOCK = 2048     # frames at a time, each compared with every Gaussian
FULL_BLOCK = 1 << 14  # frames at a time, each compared with the few selected
NEGLIGIBLE = 1e-8     # posteriors below it are not accumulated
LEAST = -60.0  # log posterior: smaller ones would give denormal numbers, which are slow
PERTURB = 0.01   # of a standard deviation, between the halves of a split Gaussian


def diagonal_sums(gmm: DiagGmm) -> Callable[[Tensor], Sums]:
    """Return a function of a block of frames: occupancy (C), sums of p x and p x^2 (C x D), and two numbers, the sum of
    log likelihoods and the number of frames."""
    dim = gmm.means.shape[1]
    precision = 1 / gmm.variances
    weights = torch.cat([gmm.means * precision, -0.5 * precision], dim=1).T
    constants = gmm.constants()

    def of_block(block: Tensor) -> Sums:
        both = torch.cat([block, block.square()], dim=1)
        scores = torch.addmm(constants, both, weights)
        best = scores.amax(1, keepdim=True)
        posteriors = scores.sub_(best).clamp_min_(LEAST).exp_()
        norm = posteriors.sum(1, keepdim=True)
        posteriors /= norm
        sums, total = posteriors.T @ both, (best + norm.log()).sum()
        return posteriors.sum(0), sums[:, :dim], sums[:, dim:], torch.stack([total, total.new_tensor(len(block))])

    return of_block


def full_sums(posteriors_of: FullPosteriors) -> Callable[[Tensor, Tensor], Sums]:
    """Return a function of a block of frames and the Gaussians that each is compared with (N x K): occupancy (C), sums
    of p x (C x D) and p x x^T (C x D x D), and two numbers as in diagonal_sums."""
    count, dim = posteriors_of.means.shape

    def of_block(frames: Tensor, near: Tensor) -> Sums:
        gaussians, posteriors, total = posteriors_of(frames, near)
        rows, slots = torch.nonzero(posteriors > NEGLIGIBLE, as_tuple=True)
        gaussians, weights = gaussians[rows, slots], posteriors[rows, slots]
        occupancy = frames.new_zeros(count).index_add_(0, gaussians, weights)
        first = frames.new_zeros(count, dim).index_add_(0, gaussians, frames[rows] * weights[:, None])
        second = second_order(frames, rows, gaussians, weights, count)
        return occupancy, first, second, torch.stack([total.sum(), total.new_tensor(len(frames))])

    return of_block


def summed(parts: Iterable[Iterable[Tensor]]) -> list[Tensor]:
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


class UbmTraining:
    """EM of the UBM, by iterations and parts that are kept as files in the folder `work`.

    Iterations up to `initial` see the ubm.num_frames drawn frames; the later ones these or, with ubm.subsample, others.
    Those up to `diagonal` have diagonal covariances. start: file of a diagonal mixture that takes the place of these.
    """

    def __init__(self, config: IvectorConfig, data: Path, work: Path, device: str | torch.device = "cpu",
                 threads: int = 1, seed: int = 1, start: Path | None = None) -> None:
        self.options: UbmOptions = config.ubm
        self.config, self.data, self.work = config, data, work
        self.device, self.threads, self.seed, self.start = device, threads, seed, start
        self.initial, self.diagonal = (0, 0) if start else (
            self.options.split_iterations, self.options.split_iterations + self.options.diagonal_iterations)
        self.last = self.diagonal + self.options.full_iterations
        self.parts = range(1, min(self.options.parts, count_lines(data / "feats.scp")) + 1)
        self.memory: dict[str, Tensor] = {}
        self.started = time.perf_counter()

    def run(self, until: int) -> int:
        """Draw the frames, and run the missing iterations up to `until` in this process; return `until`."""
        self._draw()
        done = next(n for n in range(self.last + 1) if n == self.last or not load_tensors(self._file(n + 1)))
        for iteration in range(done + 1, until + 1):
            gmm = self.mixture(iteration - 1)
            self._finish(gmm, summed(sums for _, sums in self._sums(gmm, iteration, self.parts)), iteration)
        return until

    def accumulate(self, iteration: int, job: int, jobs: int) -> None:
        """Write the sums of one job's parts, unless they exist."""
        missing = [part for part in self.parts[job - 1::jobs] if not load_tensors(self._sums_file(iteration, part))]
        if missing:
            for part, sums in self._sums(self.mixture(iteration - 1), iteration, missing):
                save_tensors(self._sums_file(iteration, part), {str(n): one for n, one in enumerate(sums)}, {})

    def update(self, iteration: int) -> int:
        """Add the sums of the parts, write the iteration's mixture and delete the sums; return the iteration."""
        files = [self._sums_file(iteration, part) for part in self.parts]
        sums = summed([found[name] for name in sorted(found)] for found in map(self._load, files))
        self._finish(self.mixture(iteration - 1), sums, iteration)
        for path in files:
            path.unlink()
        return iteration

    def mixture(self, iteration: int) -> DiagGmm | FullGmm:
        """Return the mixture after an iteration, in float32; raises InputError if its file is missing or damaged."""
        if iteration == 0:
            gmm = read_start(self.start, self.options, self._frames(0, 1)) if self.start else self._first()
            return gmm.to(self.device, torch.float32)
        kind = DiagGmm if iteration <= self.diagonal else FullGmm
        return kind(**self._load(self._file(iteration))).to(self.device, torch.float32)

    def _first(self) -> DiagGmm:
        """Return half of the Gaussians, at random frames."""
        x, target = torch.cat([self._frames(0, part) for part in self.parts]), self.options.num_gaussians
        if len(x) < 10 * target:
            raise InputError(f"{len(x)} frames are too few for {target} Gaussians; add data or lower ubm.num_gaussians")
        count = max(1, target // 2)
        generator = torch.Generator().manual_seed(self.seed)
        means = x[torch.randperm(len(x), generator=generator)[:count].to(x.device)]
        variance = x.var(0, correction=0).clamp_min(1e-3)
        return DiagGmm(x.new_full((count,), 1 / count), means, variance.expand_as(means).contiguous())

    def _draw(self) -> None:
        """Write the frames of each part, unless they are there."""
        kinds = ("drawn", "every") if self.options.subsample else ("drawn",)
        if all(self._stored(f"{kind}.{part}") is not None for kind in kinds for part in self.parts):
            return
        drawn = draw_frames(self.data, self.config.frontend, self.options.num_frames, self.seed, len(self.parts),
                            self.options.subsample)
        for part, frames in zip(self.parts, drawn, strict=True):
            if part == 1:
                self._require_space(sum(x.nbytes for x in frames), frames[-1].shape)
            for kind, x in zip(kinds, frames, strict=True):
                self._store(f"{kind}.{part}", torch.from_numpy(x).to(self.device))

    def _require_space(self, size: int, shape: tuple[int, int]) -> None:
        """Raise InputError if a disk has no room for the parts (like this one of `size` bytes) and the sums."""
        (frames, dim), count = shape, self.options.num_gaussians
        full = 8 * count * dim * dim
        require_space(self.work, len(self.parts) * (size + 4 * frames * self.options.num_gselect + full)
                      + self.options.full_iterations * full / 2, "the drawn frames and the sums over them")

    def _sums(self, gmm: DiagGmm | FullGmm, iteration: int, parts: Iterable[int]) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield the sums of each part over its blocks; all threads are busy across parts."""
        if iteration <= self.diagonal:
            of_block = diagonal_sums(gmm)
            blocks = ((part, (x,)) for part in parts for x in self._frames(iteration, part).split(BLOCK))
        else:
            of_block = full_sums(FullPosteriors(full(gmm), self.options.num_gselect))
            blocks = ((part, block) for part in parts for block in zip(
                self._frames(iteration, part).split(FULL_BLOCK), self._selected(part).split(FULL_BLOCK), strict=True))
        done = in_order(lambda item: (item[0], of_block(*item[1])), blocks, self.threads)
        for part, group in groupby(done, key=itemgetter(0)):
            yield part, summed(sums for _, sums in group)

    def _finish(self, old: DiagGmm | FullGmm, sums: list[Tensor], iteration: int) -> None:
        """Do the M-step, split Gaussians while there are too few, and write the mixture."""
        *statistics, (likelihood, frames) = (one.to(self.device) for one in sums)
        least, target = self.options.min_weight, self.options.num_gaussians
        if iteration <= self.diagonal:
            gmm = update_diagonal(old, *statistics, min_weight=least).to(self.device, torch.float32)
            half, growing = max(1, target // 2), max(1, self.options.split_iterations // 2)
            size = min(target, half + (target - half) * iteration // growing, 2 * len(gmm.weights))
            if size > len(gmm.weights):
                gmm = split(gmm, size, torch.Generator().manual_seed(self.seed * 1000 + iteration))
            what = f"diagonal UBM, iteration {iteration}"
        else:
            gmm = update_full(full(old), *statistics, min_weight=least).to(self.device, torch.float32)
            what = f"full UBM, iteration {iteration - self.diagonal}"
        check_finite(f"{what}: the mixture", *parts_of(gmm).values())
        save_tensors(self._file(iteration), parts_of(gmm), {})
        print(f"{what}: {len(gmm.weights)} Gaussians, {frames:.0f} frames, log likelihood per frame "
              f"{likelihood / frames:.4f}, {time.perf_counter() - self.started:.1f} s", file=sys.stderr)

    def _frames(self, iteration: int, part: int) -> Tensor:
        """Return the frames of a part that an iteration sees: N x D; raises InputError like mixture."""
        name = f"{'every' if self.options.subsample and iteration > self.initial else 'drawn'}.{part}"
        return needed(name, self._stored(name))

    def _selected(self, part: int) -> Tensor:
        """Return the Gaussians that the diagonal mixture selects for each frame, N x K: once, as Kaldi."""
        selected = self._stored(f"selected.{part}")
        if selected is None:
            start = self.mixture(self.diagonal)
            select = FullPosteriors(full(start), self.options.num_gselect, selector=start).select
            blocks = in_order(select, self._frames(self.last, part).split(BLOCK), self.threads)
            selected = self._store(f"selected.{part}", torch.cat([block.to(torch.int32) for block in blocks]))
        return selected

    def _stored(self, name: str) -> Tensor | None:
        """Return a tensor of frames from memory or its file; None if it is missing or damaged."""
        if name in self.memory:
            return self.memory[name]
        found = load_tensors(self.work / f"{name}.safetensors")
        return self._remember(name, found[0]["x"].to(self.device)) if found else None

    def _store(self, name: str, x: Tensor) -> Tensor:
        save_tensors(self.work / f"{name}.safetensors", {"x": x}, {})
        return self._remember(name, x)

    def _remember(self, name: str, x: Tensor) -> Tensor:
        """Keep what belongs to the drawn frames in memory; subsampled ones may be too many."""
        if name.startswith("drawn") or not self.options.subsample:
            self.memory[name] = x
        return x

    def _load(self, path: Path) -> dict[str, Tensor]:
        return needed(path, load_tensors(path))[0]

    def _file(self, iteration: int) -> Path:
        return self.work / f"{iteration}.safetensors"

    def _sums_file(self, iteration: int, part: int) -> Path:
        return self.work / f"{iteration}.part{part}.safetensors"


def needed(what: object, found: Found | None) -> Found:
    """Return what was found; raises InputError if that is None."""
    if found is None:
        raise InputError(f"{what} is missing or was damaged; run again to make it")
    return found


def full(gmm: DiagGmm | FullGmm) -> FullGmm:
    """Return a mixture with full covariances."""
    if isinstance(gmm, FullGmm):
        return gmm
    return FullGmm(gmm.weights, gmm.means, torch.diag_embed(gmm.variances))


def parts_of(gmm: DiagGmm | FullGmm) -> dict[str, Tensor]:
    """Return the parameters by name."""
    return {field.name: getattr(gmm, field.name) for field in fields(gmm) if field.name != "stored"}


def read_start(path: Path, options: UbmOptions, x: Tensor) -> DiagGmm:
    """Read a diagonal mixture to start from; raises InputError unless it has the options' size and that of x, N x D."""
    gmm, (count, dim) = read_diagonal(path), (options.num_gaussians, x.shape[1])
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
    parser.add_argument("--initial", action="store_true", help="end after the initial iterations")
    parser.add_argument("--iteration", type=int, help="with --accumulate or --update: number after the initial ones")
    parser.add_argument("--accumulate", type=int, metavar="JOB", help="sum the parts of this job")
    parser.add_argument("--nj", type=int, default=1, help="number of jobs that accumulate")
    parser.add_argument("--update", action="store_true", help="add the sums of all jobs")
    parser.add_argument("config", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("exp", type=Path, help="folder for the mixtures")
    arguments = parser.parse_args()
    device = find_device(arguments.device)
    threads = arguments.num_threads if device.type == "cpu" else 1
    torch.set_num_threads(1)  # blocks side by side, one core each
    config = read_ivector_config(arguments.config)
    training = UbmTraining(config, arguments.data, arguments.exp / "unfinished", device, threads, arguments.seed,
                           arguments.diagonal)
    if arguments.accumulate:
        training.accumulate(training.initial + arguments.iteration, arguments.accumulate, arguments.nj)
        return
    if arguments.update:
        reached = training.update(training.initial + arguments.iteration)
    else:
        keep_options(arguments.exp, kept_options(arguments.data, config.frontend.vad))
        reached = training.run(training.initial if arguments.initial else training.last)
    if reached == training.last:
        diagonal = read_diagonal(arguments.diagonal) if arguments.diagonal else training.mixture(training.diagonal)
        write_diagonal(arguments.exp / "final.dubm", diagonal)
        write_full(arguments.exp / "final.ubm", full(training.mixture(training.last)))


if __name__ == "__main__":
    run_main(main)
