"""Train the total-variability model: final.ie, Kaldi's file, from final.ubm.

Utterances stream through in blocks: posteriors, statistics, E-step. Statistics are kept between iterations
as far as extractor.cache_gb goes; the rest is computed anew, so that memory does not grow with the corpus.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from steps.ivector.config import IvectorConfig, read_ivector_config
from steps.ivector.extractor import Extractor, Posterior, Statistics, update, write_extractor
from steps.ivector.frames import blocks
from steps.ivector.gmm import FullPosteriors, outer_products, read_full, unpack
from utils.errors import run_main
from utils.files import write_aside

FRAMES = 8192  # frames whose outer products are held at a time


def block_statistics(posteriors_of: FullPosteriors, x: Tensor, lengths: np.ndarray, second: Tensor | None,
                     ) -> tuple[Tensor, Tensor]:
    """Return counts (U x C) and first-order sums (U x C x D) of U utterances, whose frames follow each other in x.

    second: C x D(D+1)/2, to which the packed sums of p x x^T are added (None: not wanted).
    """
    ends = np.cumsum(lengths)
    counts = x.new_zeros(len(lengths), len(posteriors_of.constants))
    sums = x.new_zeros(*counts.shape, x.shape[1])
    for start in range(0, len(x), FRAMES):
        stop = min(start + FRAMES, len(x))
        products = outer_products(x[start:stop])
        posteriors, _ = posteriors_of(x[start:stop], products)
        if second is not None:
            second += (posteriors.T @ products).double()
        for row in range(int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop, "left")) + 1):
            first, last = max(start, int(ends[row] - lengths[row])), min(stop, int(ends[row]))
            mine = posteriors[first - start:last - start]
            counts[row] += mine.sum(0)
            sums[row] += mine.T @ x[first:last]
    return counts, sums


class TrainingStatistics:
    """The statistics of all training utterances, block by block, as often as asked."""

    def __init__(self, config: IvectorConfig, data: Path, ubm: Path, device: str) -> None:
        self.config, self.data, self.device = config, data, device
        gmm = read_full(ubm).to(device, torch.float32)
        self.posteriors_of = FullPosteriors(gmm, config.ubm.num_gselect, config.extractor.min_post)
        gaussians, dim = gmm.means.shape
        self.second = torch.zeros(gaussians, dim * (dim + 1) // 2, dtype=torch.float64, device=device)
        self.cache: list[tuple[Tensor, Tensor]] = []
        self.room = config.extractor.cache_gb * 2**30
        self.whole = False  # whether the cache holds every block

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield counts and sums of each block; the first time, also add up the second-order statistics."""
        yield from self.cache
        if self.whole:
            return
        first_time, cached = not self.cache, len(self.cache)
        for number, (_, x, lengths) in enumerate(blocks(self.data, self.config.frontend)):
            if number < cached:
                continue
            found = block_statistics(self.posteriors_of, torch.from_numpy(x).to(self.device), lengths,
                                     self.second if first_time else None)
            self.room -= sum(part.nbytes for part in found) if first_time else 0
            if first_time and self.room >= 0:
                self.cache.append(found)
            yield found
        self.whole = self.room >= 0


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
    ubm = read_full(arguments.exp / "final.ubm")
    model = Extractor.from_ubm(ubm, config.extractor.dim, arguments.seed)
    data = TrainingStatistics(config, arguments.data, arguments.exp / "final.ubm", arguments.device)
    for iteration in range(config.extractor.iterations):
        posterior = Posterior(model, arguments.device)
        stats = Statistics(*model.m.shape)
        for counts, sums in data:
            stats.add(counts, sums, *posterior(counts, sums))
        model = update(model, stats, unpack(data.second, ubm.means.shape[1]).cpu())
        print(f"extractor, iteration {iteration + 1} of {config.extractor.iterations}: {stats.utterances} utterances, "
              f"prior offset {model.offset:.3f}, {time.perf_counter() - started:.1f} s", file=sys.stderr)
    write_extractor(arguments.exp / "final.ie", model)
    seconds = time.perf_counter() - started + float((arguments.exp / "ubm_seconds").read_text())
    with write_aside(arguments.exp / "train_seconds") as stream:
        stream.write(f"{seconds:.1f}\n")


if __name__ == "__main__":
    run_main(main)
