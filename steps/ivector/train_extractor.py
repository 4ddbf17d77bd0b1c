"""Train the total-variability model: final.ie, Kaldi's file, from final.ubm.

Utterances stream through in blocks: posteriors, statistics, E-step. Statistics are kept between iterations
as far as extractor.cache_gb goes; the rest is computed anew, so that memory does not grow with the corpus.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from steps.ivector.config import IvectorConfig, read_ivector_config
from steps.ivector.extractor import Extractor, Posterior, Statistics, update, write_extractor
from steps.ivector.frames import blocks
from steps.ivector.gmm import FullGmm, FullPosteriors
from steps.ivector.gmm_files import read_full
from steps.ivector.grouped import second_order
from steps.ivector.threads import in_order
from utils.errors import run_main
from utils.files import write_aside


def block_statistics(posteriors_of: FullPosteriors, x: Tensor, lengths: np.ndarray, with_second: bool = False,
                     ) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return counts (U x C) and first-order sums (U x C x D) of U utterances, whose frames follow each other in x.

    with_second: also return the sum of p x x^T over all frames, C x D x D (else None).
    """
    count, dim = posteriors_of.means.shape
    chosen, posteriors, _ = posteriors_of(x)
    frames, slots = torch.nonzero(posteriors, as_tuple=True)
    gaussians, weights = chosen[frames, slots], posteriors[frames, slots]
    owners = torch.repeat_interleave(torch.from_numpy(lengths).to(x.device))
    cells = owners[frames] * count + gaussians
    counts = x.new_zeros(len(lengths) * count).index_add_(0, cells, weights)
    sums = x.new_zeros(len(counts), dim).index_add_(0, cells, x[frames] * weights[:, None])
    second = second_order(x, frames, gaussians, weights, count) if with_second else None
    return counts.view(-1, count), sums.view(-1, count, dim), second


class TrainingStatistics:
    """The statistics of all training utterances, block by block, as often as asked."""

    def __init__(self, config: IvectorConfig, data: Path, ubm: FullGmm, device: str, threads: int) -> None:
        self.config, self.data, self.device, self.threads = config, data, device, threads
        self.posteriors_of = FullPosteriors(ubm.to(device, torch.float32), config.ubm.num_gselect,
                                            config.extractor.min_post)
        gaussians, dim = ubm.means.shape
        self.second = torch.zeros(gaussians, dim, dim, dtype=torch.float64, device=device)
        self.cache: list[tuple[Tensor, Tensor]] = []
        self.room = config.extractor.cache_gb * 2**30
        self.whole = False  # whether the cache holds every block

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield counts and sums of each block; the first time, also add up the second-order statistics."""
        yield from self.cache
        if self.whole:
            return
        first_time, cached = not self.cache, len(self.cache)

        def of_block(block: tuple[list[str], np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor, Tensor | None]:
            _, x, lengths = block
            return block_statistics(self.posteriors_of, torch.from_numpy(x).to(self.device), lengths, first_time)

        uncached = islice(blocks(self.data, self.config.frontend), cached, None)
        for counts, sums, second in in_order(of_block, uncached, self.threads):
            if first_time:
                self.second += second
                self.room -= counts.nbytes + sums.nbytes
                if self.room >= 0:
                    self.cache.append((counts, sums))
            yield counts, sums
        self.whole = self.room >= 0


def train(model: Extractor, data: TrainingStatistics, iterations: int) -> Extractor:
    """Return the model after a number of EM iterations."""
    started = time.perf_counter()
    for iteration in range(iterations):
        posterior = Posterior(model, data.device)
        stats = Statistics(*model.m.shape, threads=data.threads)
        if iteration == 0:
            for _ in data:  # posteriors and statistics, as far as the cache goes
                pass
            print(f"extractor, posteriors: {time.perf_counter() - started:.1f} s", file=sys.stderr)
        for block in in_order(posterior.with_statistics, data, data.threads):
            stats.add(*block)
        model = update(model, stats, data.second.cpu(), data.threads)
        print(f"extractor, iteration {iteration + 1} of {iterations}: {stats.utterances} utterances, "
              f"prior offset {model.offset:.3f}, {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("config", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("exp", type=Path)
    arguments = parser.parse_args()
    threads = arguments.num_threads if arguments.device == "cpu" else 1
    torch.set_num_threads(1)  # blocks side by side, one core each
    config = read_ivector_config(arguments.config)
    started = time.perf_counter()
    ubm = read_full(arguments.exp / "final.ubm")
    data = TrainingStatistics(config, arguments.data, ubm, arguments.device, threads)
    model = train(Extractor.from_ubm(ubm, config.extractor.dim, arguments.seed), data, config.extractor.iterations)
    write_extractor(arguments.exp / "final.ie", model)
    seconds = time.perf_counter() - started + float((arguments.exp / "ubm_seconds").read_text())
    with write_aside(arguments.exp / "train_seconds") as stream:
        stream.write(f"{seconds:.1f}\n")


if __name__ == "__main__":
    run_main(main)
