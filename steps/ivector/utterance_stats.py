"""Statistics of utterances: counts and first-order sums for each Gaussian."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from steps.ivector.alignments import iterate_alignments
from steps.ivector.config import IvectorConfig
from steps.ivector.extractor import Extractor
from steps.ivector.frames import blocks
from steps.ivector.gmm import FullGmm, FullPosteriors, Pairs
from steps.ivector.grouped import second_order
from steps.ivector.threads import in_order
from utils.errors import InputError


def block_statistics(pairs: Pairs, x: Tensor, lengths: np.ndarray, count: int) -> tuple[Tensor, Tensor]:
    """Return counts (U x C) and first-order sums (U x C x D) of U utterances, whose frames follow each other in x."""
    frames, gaussians, weights = pairs
    owners = torch.repeat_interleave(torch.from_numpy(lengths).to(x.device), output_size=len(x))
    cells = owners[frames] * count + gaussians
    counts = x.new_zeros(len(lengths) * count).index_add_(0, cells, weights)
    sums = x.new_zeros(len(counts), x.shape[1]).index_add_(0, cells, x[frames] * weights[:, None])
    return counts.view(-1, count), sums.view(-1, count, x.shape[1])


class UtteranceStatistics:
    """Streams the statistics of a data directory's utterances, in blocks, in their order.

    posteriors: a Kaldi file of posteriors (script or archive), in the order of feats.scp; None: the UBM computes them.
    """

    def __init__(self, config: IvectorConfig, data: Path, ubm: FullGmm, device: str | torch.device,
                 threads: int, posteriors: str | None = None) -> None:
        self.config, self.data, self.device, self.threads, self.posteriors = config, data, device, threads, posteriors
        self.shape = tuple(ubm.means.shape)
        self.ubm = ubm.to(device, torch.float32)
        self.posteriors_of = self._posteriors_of(self.ubm)
        self.cache: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        self.whole: set[tuple[int, int]] = set()  # the parts that are cached completely
        self.room = config.extractor.cache_gb * 2**30

    def follow(self, model: Extractor) -> None:
        """Move the UBM to the model's means; this invalidates the cache."""
        self.posteriors_of = self._posteriors_of(with_means(self.ubm, model))
        self.cache, self.whole, self.room = {}, set(), self.config.extractor.cache_gb * 2**30

    def of_part(self, part: range, second: Tensor | None = None, keep: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield counts and sums of each block of the utterances numbered `part`.

        second: C x D x D, to which the sum of p x x^T over all frames is added. keep: cache blocks in memory, up to
        extractor.cache_gb, so that later iterations need not recompute them.
        """
        key = (part.start, part.stop)
        cached = self.cache.get(key, [])
        if second is not None:  # needs every frame
            cached = []
        yield from cached
        if cached and key in self.whole:
            return

        def of_block(block: tuple[Tensor, np.ndarray, Pairs | None]) -> tuple[Tensor, Tensor, Tensor | None]:
            x, lengths, pairs = block
            pairs = self.posteriors_of.pairs(x) if pairs is None else pairs
            products = None if second is None else second_order(x, *pairs, self.shape[0])
            return *block_statistics(pairs, x, lengths, self.shape[0]), products

        kept = list(cached)
        for counts, sums, products in in_order(of_block, islice(self._blocks(part), len(cached), None), self.threads):
            if products is not None:
                second += products.cpu()
            size = counts.nbytes + sums.nbytes
            if keep and size <= self.room:
                self.room -= size
                kept.append((counts, sums))
            else:
                keep = False
            yield counts, sums
        if keep:
            self.whole.add(key)
        self.cache[key] = kept

    def with_ids(self, part: range) -> Iterator[tuple[list[str], Tensor, Tensor]]:
        """Yield ids, counts and sums of each block."""
        for ids, x, lengths, pairs in self._labelled(part):
            pairs = self.posteriors_of.pairs(x) if pairs is None else pairs
            yield ids, *block_statistics(pairs, x, lengths, self.shape[0])

    def _posteriors_of(self, ubm: FullGmm) -> FullPosteriors:
        return FullPosteriors(ubm, self.config.ubm.num_gselect, self.config.extractor.min_post)

    def _blocks(self, part: range) -> Iterator[tuple[Tensor, np.ndarray, Pairs | None]]:
        return ((x, lengths, pairs) for _, x, lengths, pairs in self._labelled(part))

    def _labelled(self, part: range) -> Iterator[tuple[list[str], Tensor, np.ndarray, Pairs | None]]:
        listed = iterate_alignments(self.posteriors, part=part) if self.posteriors else None
        for ids, frames, lengths in blocks(self.data, self.config.frontend, part=part):
            if frames.shape[1] != self.shape[1]:
                raise InputError(f"{self.data}: {frames.shape[1]} values per frame, the UBM has {self.shape[1]}; "
                                 "train and extract with the same features and front end")
            x = torch.from_numpy(frames).to(self.device)
            yield ids, x, lengths, None if listed is None else self._listed(listed, ids, lengths)

    def _listed(self, listed: Iterator, ids: list[str], lengths: np.ndarray) -> Pairs:
        """Read the posteriors of some utterances from the file."""
        taken = []
        for name, length in zip(ids, lengths, strict=True):
            other, alignment = next(listed, ("nothing", None))
            if other != name or len(alignment.sizes) != length:
                found = other if other != name else f"{name} with {len(alignment.sizes)} frames"
                raise InputError(f"{self.posteriors}: {found} where {self.data} has {name} with {length}")
            if alignment.gaussians.size and alignment.gaussians.max() >= self.shape[0]:
                raise InputError(f"{self.posteriors}: {name} has Gaussian {alignment.gaussians.max()}, the UBM has "
                                 f"{self.shape[0]}, counted from 0")
            taken.append(alignment)
        sizes, gaussians, weights = (torch.from_numpy(np.concatenate(column)).to(self.device)
                                     for column in zip(*taken, strict=True))
        return Pairs(torch.repeat_interleave(sizes, output_size=len(gaussians)), gaussians, weights)


def with_means(ubm: FullGmm, model: Extractor) -> FullGmm:
    """Return the UBM with the model's means for an utterance at the mean of the prior."""
    return FullGmm(ubm.weights, (model.m[:, :, 0] * model.offset).to(ubm.means), ubm.covariances)
