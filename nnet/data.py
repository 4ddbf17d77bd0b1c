"""Training data: chunks of frames, read straight from the archives and passed through the front end.

A batch is a function of (seed, step) alone: the order of an epoch comes from (seed, epoch), the chunks and
masks of a row of a batch from (seed, step, row). Resuming at a step needs no other state.
"""

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nnet.config import NetworkConfig
from steps.feat.frontend import apply_frontend, frontend_margin
from utils.ark import RowReader, read_matrix, read_table
from utils.errors import InputError, first_five

ORDER, BATCH = 0, 1  # what a stream of random numbers is for


class Utterances:
    """The utterances of a data directory with features: frames through the front end, whole or in chunks."""

    def __init__(self, data: Path, config: NetworkConfig) -> None:
        self.frontend = config.frontend
        self.margin = frontend_margin(config.frontend)
        self.rows = RowReader(data / "feats.scp")
        if not len(self.rows):
            raise InputError(f"{data}/feats.scp is empty")
        self.feature_dim = self.rows.read(0, 0, 1).shape[1]
        self.vad: list[str] | None = None
        if config.frontend.vad:
            ids, self.vad = read_table(data / "vad.scp")
            if any(a != b for a, b in zip(ids, self.rows.ids, strict=False)) or len(ids) != len(self.rows):
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
        length = int(self.rows.num_rows[index])
        voicing = self._voicing(index)
        voiced = np.arange(length) if voicing is None or not voicing.any() else np.flatnonzero(voicing)
        count = min(frames, len(voiced))
        place = int(rng.integers(len(voiced) - count + 1))
        first, end = int(voiced[place]), int(voiced[place + count - 1]) + 1
        start, stop = max(0, first - self.margin), min(length, end + self.margin)
        found = apply_frontend(self.rows.read(index, start, stop), None if voicing is None else voicing[start:stop],
                               self.frontend, keep=(first - start, end - start))
        return found[np.arange(frames) % len(found)]

    def _voicing(self, index: int) -> np.ndarray | None:
        return None if self.vad is None else read_matrix(self.vad[index])


class TrainingSet:
    """Utterances with their speakers' numbers, as batches."""

    def __init__(self, data: Path, config: NetworkConfig, seed: int) -> None:
        self.utterances = Utterances(data, config)
        self.train = config.train
        self.seed = seed
        ids, names = read_table(data / "utt2spk")
        if ids != list(self.utterances.rows.ids):
            raise InputError(f"{data}: utt2spk and feats.scp list other utterances; repair with utils.fix_data_dir")
        self.speakers = sorted(set(names))
        if len(self.speakers) < 2:
            raise InputError(f"{data} has {len(self.speakers)} speaker: a network learns to tell 2 or more apart")
        number = {name: index for index, name in enumerate(self.speakers)}
        self.labels = np.array([number[name] for name in names], np.int64)
        self.batch_size = min(self.train.batch_size, len(ids))
        self.steps_per_epoch = len(ids) // self.batch_size
        short = [ids[i] for i in np.flatnonzero(self.utterances.rows.num_rows < self.train.chunk_frames)[:6]]
        if short:
            count = int((self.utterances.rows.num_rows < self.train.chunk_frames).sum())
            print(f"{count} of {len(ids)} utterances are shorter than a chunk of {self.train.chunk_frames} frames "
                  f"and are repeated to fill it: {first_five(short[:5])}", file=sys.stderr)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def batch(self, step: int, share: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Return the chunks (B x T x F) and speaker numbers (B) of a step, or of a share of its rows."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, ORDER, epoch))
            self._order = epoch, rng.permutation(len(self.labels))
        chosen = self._order[1][place * self.batch_size:(place + 1) * self.batch_size]
        rows = range(len(chosen))[share]
        chosen = chosen[share]
        x = np.empty((len(chosen), self.train.chunk_frames, self.utterances.dim), np.float32)
        for row, (number, index) in enumerate(zip(rows, chosen, strict=True)):
            rng = np.random.default_rng((self.seed, BATCH, step, number))
            x[row] = self.utterances.chunk(int(index), self.train.chunk_frames, rng)
            self._mask(x[row], rng)
        return x, self.labels[chosen]

    def _mask(self, frames: np.ndarray, rng: np.random.Generator) -> None:
        """SpecAugment (Park et al. 2019): one mask in time and one in frequency, set to 0, the mean."""
        for axis, widest in ((0, self.train.mask_frames), (1, self.train.mask_bands)):
            if widest:
                width = int(rng.integers(min(widest, frames.shape[axis]) + 1))
                start = int(rng.integers(frames.shape[axis] - width + 1))
                np.moveaxis(frames, axis, 0)[start:start + width] = 0


class Prefetcher:
    """Makes batches in a thread while the device computes; `waited` is the time spent without one, s."""

    def __init__(self, data: TrainingSet, first: int, last: int, share: slice = slice(None), depth: int = 4) -> None:
        self._queue: queue.Queue = queue.Queue(depth)
        self._stopped = threading.Event()
        self.waited = 0.0
        threading.Thread(target=self._fill, args=(data, first, last, share), daemon=True).start()

    def _fill(self, data: TrainingSet, first: int, last: int, share: slice) -> None:
        try:
            for step in range(first, last):
                self._put((step, *data.batch(step, share)))
            self._put(None)
        except Exception as error:  # handed to the thread that trains
            self._put(error)

    def _put(self, item: object) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.5)
                return

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (step, chunks, labels)."""
        try:
            while True:
                started = time.perf_counter()
                item = self._queue.get()
                self.waited += time.perf_counter() - started
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._stopped.set()
