"""Training data: chunks of frames, read straight from the archives and passed through the front end.

A batch is a function of (seed, step) alone: the order of an epoch comes from (seed, epoch), the chunk and masks
of a row from (seed, step, row). Resuming at a step needs no other state, and each of several processes makes
its own rows of the batch.
"""

import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nnet.config import NetworkConfig
from nnet.training.shuffle_buffer import Blocks
from nnet.training.speaker_batches import SpeakerBatches
from utils.ahead import ReadAhead
from utils.errors import InputError, first_five
from utils.features.frontend import apply_frontend, frontend_margin
from utils.kaldi.ark import VECTORS, Ids, RowReader, table_lines

ORDER, BATCH, LENGTH, MASK = 0, 1, 2, 2  # what a stream of random numbers is for; MASK has one per row
Stream = Callable[[int], np.random.Generator]  # of a row of the batch


class Utterances:
    """The utterances of a data directory with features: frames through the front end, whole or in chunks."""

    def __init__(self, data: Path, config: NetworkConfig) -> None:
        self.frontend = config.frontend
        self.margin = frontend_margin(config.frontend)
        self.rows = RowReader(data / "feats.scp")
        if not len(self.rows):
            raise InputError(f"{data}/feats.scp is empty")
        self.feature_dim = self.rows.read(0, 0, 1).shape[1]
        self.vad: RowReader | None = None
        if config.frontend.vad:
            self.vad = RowReader(data / "vad.scp", VECTORS)
            if any(a != b for a, b in zip_longest(self.vad.ids, self.rows.ids)):
                raise InputError(f"{data}: vad.scp and feats.scp list other utterances; run steps/compute_vad.sh")

    @property
    def dim(self) -> int:
        """Values a frame after the front end."""
        return self.frontend.output_dim(self.feature_dim)

    def whole(self, index: int) -> np.ndarray:
        """Return all frames of an utterance: T x F."""
        return apply_frontend(self.rows.read(index), self._voicing(index), self.frontend)

    def chunk(self, index: int, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return `frames` consecutive (voiced) frames from a random place; a shorter utterance is repeated."""
        voicing, voiced = self._voiced(index)
        return self._cut(index, voicing, voiced, int(rng.integers(max(len(voiced) - frames, 0) + 1)), frames)

    def segments(self, index: int, frames: int, count: int) -> np.ndarray:
        """Return `count` chunks at regular intervals, from the first frame to the last: count x frames x F."""
        voicing, voiced = self._voiced(index)
        places = np.linspace(0, max(len(voiced) - frames, 0), count).round().astype(int)
        return np.stack([self._cut(index, voicing, voiced, int(place), frames) for place in places])

    def _cut(self, index: int, voicing: np.ndarray | None, voiced: np.ndarray, place: int, frames: int) -> np.ndarray:
        """Return the `frames` voiced frames from the `place`th on, normalised over them alone where that is asked."""
        length, count = int(self.rows.num_rows[index]), min(frames, len(voiced))
        first, end = int(voiced[place]), int(voiced[place + count - 1]) + 1
        start, stop = max(0, first - self.margin), min(length, end + self.margin)
        found = apply_frontend(self.rows.read(index, start, stop), None if voicing is None else voicing[start:stop],
                               self.frontend, keep=(first - start, end - start))
        return found[np.arange(frames) % len(found)]

    def _voiced(self, index: int) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the decisions on voicing, and the numbers of the frames that count."""
        voicing = self._voicing(index)
        if voicing is None or not voicing.any():
            return voicing, np.arange(int(self.rows.num_rows[index]))
        return voicing, np.flatnonzero(voicing)

    def _voicing(self, index: int) -> np.ndarray | None:
        return None if self.vad is None else self.vad.read(index)[:, 0]


def read_labels(data: Path, ids: Ids) -> tuple[list[str], np.ndarray]:
    """Return the sorted speakers of a data directory, and of each utterance (as `ids`) its speaker's number."""
    numbers: dict[str, int] = {}
    labels = array("q")
    for line, name in zip_longest(table_lines(data / "utt2spk"), ids, fillvalue=None):
        if line is None or line[0] != name:
            raise InputError(f"{data}: utt2spk and feats.scp list other utterances; repair: python3 -m "
                             f"utils.kaldi.fix_data_dir {data}")
        labels.append(numbers.setdefault(line[1], len(numbers)))
    if len(numbers) < 2:
        raise InputError(f"{data} has {len(numbers)} speaker: a network learns to tell 2 or more apart")
    speakers = sorted(numbers)
    place = np.empty(len(speakers), np.int64)
    place[[numbers[name] for name in speakers]] = np.arange(len(speakers))
    return speakers, place[np.array(labels)]


class Source(Protocol):
    """Where the chunks of a batch come from. each: map, or what calls a function of several rows at once."""

    each: Callable

    def shape(self, frames: int) -> tuple[int, ...]:
        """Return the shape of a chunk of so many frames."""

    def chunk(self, index: int, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return a chunk of utterance `index`, of that shape."""

    def on_device(self, x: Tensor, stream: Stream) -> Tensor:
        """Return what the network takes, B x T x F, of chunks that are on its device."""


class StoredFeatures:
    """Chunks of stored features through the front end, masked: T x F."""

    each = map

    def __init__(self, utterances: Utterances, labels: np.ndarray, config: NetworkConfig) -> None:
        self.utterances, self.train = utterances, config.train

    def shape(self, frames: int) -> tuple[int, ...]:
        """T, F."""
        return frames, self.utterances.dim

    def chunk(self, index: int, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return the frames with SpecAugment (Park et al. 2019): a mask in time, one in frequency, of 0, the mean."""
        x = self.utterances.chunk(index, frames, rng)
        for axis, widest in ((0, self.train.mask_frames), (1, self.train.mask_bands)):
            if widest:
                start, stop = mask_span(rng, widest, x.shape[axis])
                np.moveaxis(x, axis, 0)[start:stop] = 0
        return x

    def on_device(self, x: Tensor, stream: Stream) -> Tensor:
        """Nothing is left to be done."""
        return x


class TrainingSet:
    """Utterances with their speakers' numbers, as batches; process `rank` of `count` makes its rows of each."""

    def __init__(self, data: Path, config: NetworkConfig, seed: int, rank: int = 0, count: int = 1,
                 source: Callable[[Utterances, np.ndarray, NetworkConfig], Source] = StoredFeatures) -> None:
        self.utterances = Utterances(data, config)
        self.train = config.train
        self.seed, self.rank, self.count = seed, rank, count
        self.speakers, self.labels = read_labels(data, self.utterances.rows.ids)
        self.batch_size = min(self.train.batch_size, len(self.labels))
        self.steps_per_epoch = len(self.labels) // self.batch_size
        self._speakers: SpeakerBatches | None = None
        if config.loss.utterances:
            self._speakers = SpeakerBatches(self.labels, self.train.batch_size, config.loss.utterances,
                                            config.loss.type)
            self.batch_size, self.steps_per_epoch = self._speakers.batch_size, self._speakers.steps
        if self.batch_size % (self.count * self.train.accumulate):
            raise InputError(f"batches of {self.batch_size} chunks cannot be split evenly over {self.count} processes "
                             f"and {self.train.accumulate} parts (train.accumulate); change train.batch_size")
        longest = max(self.train.chunk_frames, self.train.max_chunk_frames)
        short = np.flatnonzero(self.utterances.rows.num_rows < longest)
        if len(short):
            names = [self.utterances.rows.ids[index] for index in short[:5]]
            print(f"{len(short)} of {len(self.labels)} utterances are shorter than a chunk of "
                  f"{longest} frames and are repeated to fill it: {first_five(names)}", file=sys.stderr)
        self._blocks = Blocks(self.utterances.rows, self.train.shuffle_mb) if self.train.shuffle_mb else None
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))
        self.source = source(self.utterances, self.labels, config)

    def chosen(self, step: int) -> np.ndarray:
        """Return the numbers of the utterances of a step's batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, ORDER, epoch))
            source = self._blocks or self._speakers
            self._order = epoch, source.order(rng) if source else rng.permutation(len(self.labels))
        if self._blocks:
            self._blocks.enter(place * self.batch_size)
        return self._order[1][place * self.batch_size:(place + 1) * self.batch_size]

    def chunk_frames(self, step: int) -> int:
        """Return the length T of the chunks of a step."""
        if not self.train.max_chunk_frames:
            return self.train.chunk_frames
        rng = np.random.default_rng((self.seed, LENGTH, step))
        return int(rng.integers(self.train.chunk_frames, self.train.max_chunk_frames + 1))

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this process's chunks (B x a chunk's shape) and speaker numbers (B) of a step."""
        size = self.batch_size // self.count
        chosen, frames = self.chosen(step)[self.rank * size:(self.rank + 1) * size], self.chunk_frames(step)
        x, stream = np.empty((size, *self.source.shape(frames)), np.float32), self._stream(BATCH, step)

        def fill(row: int) -> None:
            x[row] = self.source.chunk(int(chosen[row]), frames, stream(row))

        deque(self.source.each(fill, range(size)), maxlen=0)
        return x, self.labels[chosen]

    def on_device(self, x: Tensor, step: int) -> Tensor:
        """Return what the network takes, B x T x F, of a batch that is on its device."""
        return self.source.on_device(x, self._stream(MASK, step))

    def _stream(self, purpose: int, step: int) -> Stream:
        first = self.rank * (self.batch_size // self.count)
        return lambda row: np.random.default_rng((self.seed, purpose, step, first + row))


def mask_span(rng: np.random.Generator, widest: int, size: int) -> tuple[int, int]:
    """Draw a mask of SpecAugment: 0 to `widest` of `size` frames or bands, from start to stop."""
    width = int(rng.integers(min(widest, size) + 1))
    start = int(rng.integers(size - width + 1))
    return start, start + width


def batches_ahead(data: TrainingSet, first: int, last: int,
                  device: torch.device) -> ReadAhead[tuple[int, Tensor, Tensor]]:
    """Make the batches of some steps in a thread while the device computes: (step, chunks, labels).

    For a GPU they lie in pinned memory, from which they are copied while it computes. A thread, not a DataLoader:
    with one process that took a third longer for batches of 64 x 200 x 80 (21 against 15 ms), with two about as long.
    """
    def batches() -> Iterator[tuple[int, Tensor, Tensor]]:
        on_gpu = device.type == "cuda"
        # Each thread has a GPU of its own as the current one, which pins the memory.
        with torch.cuda.device(device) if on_gpu else nullcontext():
            for step in range(first, last):
                x, labels = map(torch.from_numpy, data.batch(step))
                yield (step, x.pin_memory(), labels.pin_memory()) if on_gpu else (step, x, labels)

    return ReadAhead(batches(), 4)
