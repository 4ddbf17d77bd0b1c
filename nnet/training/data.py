"""Training data: chunks of stored features or of audio, with their speakers and masks.

A batch depends only on (seed, step): the order of a pass over the utterances comes from (seed, pass), the chunk and
masks of a row from (seed, step, row). So resuming at a step needs no other state, and each of several processes makes
its own rows of the batch.
"""

import sys
from array import array
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from nnet.config import NetworkConfig
from nnet.training.augmentation import Augmentation
from nnet.training.batch import Batch
from nnet.training.masks import draw_spans
from nnet.training.shuffle_buffer import Blocks
from nnet.training.speaker_batches import SpeakerBatches
from nnet.training.workers import worker_batches, workers_for
from nnet.utterances import open_utterances
from utils.ahead import ReadAhead
from utils.errors import InputError, first_five
from utils.kaldi.ark import Ids, table_lines
from utils.kaldi.shared_speakers import original

ORDER, BATCH, LENGTH = 0, 1, 2  # purposes of streams of random numbers
AGAIN = 3  # a training that starts from a model draws others than that of the model did, even with the same seed


def read_labels(data: Path, ids: Ids) -> tuple[list[str], np.ndarray]:
    """Return the sorted speakers of a data directory, and the number of each utterance's speaker, ordered as `ids`."""
    numbers: dict[str, int] = {}
    labels = array("q")
    for line, name in zip_longest(table_lines(data / "utt2spk"), ids, fillvalue=None):
        if line is None or line[0] != name:
            raise InputError(f"{data}: utt2spk and feats.scp list different utterances; repair: python3 -m "
                             f"utils.kaldi.fix_data_dir {data}")
        labels.append(numbers.setdefault(line[1], len(numbers)))
    if len(numbers) < 2:
        raise InputError(f"{data} has {len(numbers)} speaker: a network learns to tell 2 or more apart")
    speakers = sorted(numbers)
    place = np.empty(len(speakers), np.int64)
    place[[numbers[name] for name in speakers]] = np.arange(len(speakers))
    return speakers, place[np.array(labels)]


class TrainingSet:
    """Utterances with their speakers' numbers, as batches; process `rank` of `count` makes its rows of each.

    musan, rirs: corpora of noises and of room responses, for `online:`.
    """

    def __init__(self, data: Path, config: NetworkConfig, seed: int, rank: int = 0, count: int = 1,
                 musan: Path | None = None, rirs: Path | None = None) -> None:
        self.utterances = open_utterances(data, config, audio=config.online is not None)
        self.train = config.train
        self.widest = self.train.mask_frames, self.train.mask_bands
        self.workers = workers_for(config, torch.get_num_threads())
        self.seed, self.rank, self.count = (seed, AGAIN) if config.init else (seed,), rank, count
        self.speakers, self.labels = read_labels(data, self.utterances.rows.ids)
        self.batch_size = min(self.train.batch_size, len(self.labels))
        steps = len(self.labels) // self.batch_size  # of a pass
        self._speakers: SpeakerBatches | None = None
        if config.loss.utterances:
            self._speakers = SpeakerBatches(self.labels, self.train.batch_size, config.loss.utterances,
                                            config.loss.type)
            self.batch_size, steps = self._speakers.batch_size, self._speakers.steps
        self.steps_per_epoch = steps // self.train.epochs_per_pass
        if not self.steps_per_epoch:
            raise InputError(f"train: epochs_per_pass is {self.train.epochs_per_pass}, but a pass over {data} has only "
                             f"{steps} steps; lower it")
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
        # Masks are drawn here and applied in the network; nnet.config allows them only for front ends with features.
        self.bands = config.frontend.output_dim(self.utterances.feature_dim) if any(self.widest) else 0
        self.augmentation: Augmentation | None = None
        if config.online:
            # Copies of a speaker at other speeds come from the same recordings: they must not be its own babble.
            self.voices = np.unique(list(map(original, self.speakers)), return_inverse=True)[1][self.labels]
            self.augmentation = Augmentation(config.online, self.utterances.paths, self.voices,
                                             self.utterances.options.rate, musan, rirs)

    def chosen(self, step: int) -> np.ndarray:
        """Return the numbers of the utterances in a step's batch."""
        number, place = divmod(step, self.steps_per_epoch * self.train.epochs_per_pass)
        if self._order[0] != number:
            rng = np.random.default_rng((*self.seed, ORDER, number))
            source = self._blocks or self._speakers
            self._order = number, source.order(rng) if source else rng.permutation(len(self.labels))
        if self._blocks:
            self._blocks.enter(place * self.batch_size)
        return self._order[1][place * self.batch_size:(place + 1) * self.batch_size]

    def chunk_frames(self, step: int) -> int:
        """Return the length T of the chunks of a step."""
        if not self.train.max_chunk_frames:
            return self.train.chunk_frames
        rng = np.random.default_rng((*self.seed, LENGTH, step))
        return int(rng.integers(self.train.chunk_frames, self.train.max_chunk_frames + 1))

    def batch(self, step: int) -> Batch:
        """Return this process's rows of a step's batch."""
        size, frames = self.batch_size // self.count, self.chunk_frames(step)
        first = self.rank * size
        chosen = self.chosen(step)[first:first + size]
        x = np.empty((size, *self.utterances.shape(frames)), np.float32)
        spans = np.empty((size, 2, 2), np.int64)

        for row, index in enumerate(chosen.tolist()):
            rng = np.random.default_rng((*self.seed, BATCH, step, first + row))
            chunk = self.utterances.chunk(index, frames, rng)
            x[row] = self.augmentation(chunk, self.voices[index], rng) if self.augmentation else chunk
            spans[row] = draw_spans(rng, self.widest, (frames, self.bands))
        return Batch(torch.from_numpy(x), torch.from_numpy(self.labels[chosen]),
                     torch.from_numpy(spans) if any(self.widest) else None)


def batches_ahead(data: TrainingSet, first: int, last: int,
                  device: torch.device) -> ReadAhead[tuple[int, Batch]]:
    """Make the batches of some steps in a thread while the device computes, or in worker processes.

    For a GPU they are in pinned memory, from which they are copied while it computes.
    """
    steps = range(first, last)
    made = worker_batches(data.batch, steps, data.workers) if data.workers else map(data.batch, steps)

    def batches() -> Iterator[tuple[int, Batch]]:
        on_gpu = device.type == "cuda"
        # The current GPU, which pins the memory, is a setting of each thread.
        with torch.cuda.device(device) if on_gpu else nullcontext():
            for step, batch in enumerate(made, start=first):
                yield step, Batch(*(part if part is None else part.pin_memory() for part in batch)) if on_gpu else batch

    return ReadAhead(batches(), 4)
