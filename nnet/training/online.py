"""Training on waveforms: chunks are cut from the audio files, changed as `online:` says, and sent to the device as
samples, where features, front end and masks are computed.

Batches depend on (seed, step) alone, as with stored features, which still say how long the utterances are and are what
validation and extraction read. The front end sees the chunk alone: derivatives and a sliding window end where it ends.
"""

from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnet.config import NetworkConfig
from nnet.frontends.kaldi_features import KaldiFeatures, frontend_of_batch
from nnet.training.data import StoredFeatures, Stream, TrainingSet, Utterances, mask_span
from nnet.training.distributed import Processes
from utils.audio import Recording, change_speed
from utils.errors import InputError
from utils.features.augment import Sources, augment, make_plan
from utils.features.options import read_feature_options
from utils.kaldi.ark import Ids, table_lines
from utils.kaldi.data_dir import plausible_speed


def training_set(data: Path, config: NetworkConfig, seed: int, processes: Processes, musan: Path | None,
                 rirs: Path | None) -> TrainingSet:
    """Return the training set that the configuration wants; musan, rirs: corpora of noises and of room responses."""
    if config.online and (config.frontend.vad or config.train.shuffle_mb):
        raise InputError("online: frontend.vad and train.shuffle_mb are for stored features; leave them out")
    source = partial(ChangedAudio, data, musan, rirs) if config.online else StoredFeatures
    return TrainingSet(data, config, seed, processes.rank, processes.count, source)


class Waveforms:
    """The audio of the utterances of a data directory with features, by ranges of frames.

    Memory: 60 to 100 bytes an utterance, most of it the paths.
    """

    def __init__(self, data: Path, ids: Ids, num_rows: np.ndarray) -> None:
        self.ids, self.num_rows = ids, num_rows
        if not (data / "feats.conf").is_file():
            raise InputError(f"{data} has no feats.conf, which says what its features are; make them again")
        self.options = read_feature_options(data / "feats.conf")
        self.layer = KaldiFeatures(self.options)
        self.snips = self.options.kaldi.frame_opts.snip_edges
        self.paths = Ids(self._column(data / "wav.scp"))
        self.speeds = np.ones(len(ids), np.float32)
        if (data / "utt2speed").is_file():
            self.speeds = np.array(array("f", map(self._speed, self._column(data / "utt2speed"))))
        if (data / "utt2augment").is_file():
            raise InputError(f"{data} has utt2augment: copies that are augmented already; name the data without them")

    def _column(self, path: Path) -> Iterator[str]:
        """Yield the values of a table of all utterances; raises InputError when it lists others."""
        if not path.is_file():
            raise InputError(f"{path} is missing; `online:` reads the audio that it names")
        for line, name in zip_longest(table_lines(path), self.ids):
            if line is None or line[0] != name:
                raise InputError(f"{path} and feats.scp list other utterances; repair with utils.kaldi.fix_data_dir")
            yield line[1]

    def _speed(self, value: str) -> float:
        if not plausible_speed(value):
            raise InputError(f"utt2speed: {value!r} is not a speed factor from 0.1 to 10; prepare the data again")
        return float(value)

    def samples_of(self, frames: int) -> int:
        """Return how many samples make so many frames without anything beyond their ends."""
        return (frames - 1) * self.layer.shift + self.layer.length

    def chunk(self, index: int, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return the samples of `frames` frames from a random place; a shorter utterance is repeated.

        They are those from which the same frames of the stored features were computed; raises InputError when the
        audio is not as long as these say.
        """
        recording, speed = Recording(self.paths[index], self.options.rate), Fraction(str(self.speeds[index]))
        length = -(-len(recording) * speed.denominator // speed.numerator)  # after the change of speed
        shift, window, stored = self.layer.shift, self.layer.length, int(self.num_rows[index])
        found = 1 + (length - window) // shift if self.snips else (length + shift // 2) // shift
        if found != stored:
            raise InputError(f"{self.ids[index]}: {self.paths[index]} gives {found} frames, its features are {stored}; "
                             "make the features again")
        count = min(frames, stored)
        first = int(rng.integers(stored - count + 1)) * shift
        if count < frames:
            return np.resize(self._read(recording, speed, 0, length), self.samples_of(frames))
        if not self.snips:
            first += shift // 2 - window // 2
        place = np.arange(first, first + self.samples_of(frames)) % (2 * length)
        place = np.minimum(place, 2 * length - 1 - place)  # mirrored at the ends
        start = int(place.min())
        return self._read(recording, speed, start, int(place.max()) + 1)[place - start]

    def _read(self, recording: Recording, speed: Fraction, start: int, stop: int) -> np.ndarray:
        """Return the samples start..stop of a recording played at another speed."""
        if speed == 1:
            return recording[start:stop]
        up, down = speed.denominator, speed.numerator
        margin = 20 + 20 * up // down  # more than the filter of the change of rate reaches
        before = max(0, start - margin) // up * up  # where a sample of the one rate meets one of the other
        read = recording[before * down // up:-(-(stop + margin) * down // up)]
        return change_speed(read, float(speed))[start - before:stop - before]


class ChangedAudio:
    """Chunks of the audio files, changed as `online:` says: N samples, which the device turns into frames."""

    def __init__(self, data: Path, musan: Path | None, rirs: Path | None, utterances: Utterances, labels: np.ndarray,
                 config: NetworkConfig) -> None:
        self.online, self.frontend, self.train, self.labels = config.online, config.frontend, config.train, labels
        self.waveforms = Waveforms(data, utterances.rows.ids, utterances.rows.num_rows)
        if self.waveforms.options.dim != utterances.feature_dim:
            raise InputError(f"{data}: feats.conf means {self.waveforms.options.dim} values a frame, feats.scp has "
                             f"{utterances.feature_dim}; make the features again")
        self.sources = Sources.find(musan, rirs, self.waveforms.paths, labels)
        if "music" in config.online.kinds and not self.sources.music:
            raise InputError("online: kinds: music needs MUSAN; name its folder or leave music out")
        self.each = ThreadPoolExecutor(min(8, torch.get_num_threads())).map

    def shape(self, frames: int) -> tuple[int, ...]:
        """N."""
        return (self.waveforms.samples_of(frames),)

    def chunk(self, index: int, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return the samples of a chunk, augmented or not."""
        samples = self.waveforms.chunk(index, frames, rng)
        if rng.random() >= self.online.share:
            return samples
        kind = self.online.kinds[int(rng.integers(len(self.online.kinds)))]
        plan, rate = make_plan(kind, self.sources, self.labels[index], rng), self.waveforms.options.rate
        return augment(samples, plan, rate, lambda path: Recording(path, rate))

    def on_device(self, x: Tensor, stream: Stream) -> Tensor:
        """Return the frames that the network takes, B x T x F, masked as those of stored features are."""
        x = frontend_of_batch(self.waveforms.layer.to(x.device)(x, snip_edges=True), self.frontend)
        streams = [stream(row) for row in range(len(x))]
        for axis, widest in ((1, self.train.mask_frames), (2, self.train.mask_bands)):
            if widest:
                spans = np.array([mask_span(rng, widest, x.shape[axis]) for rng in streams])
                start, stop = torch.from_numpy(spans).to(x.device).T[:, :, None]
                place = torch.arange(x.shape[axis], device=x.device)
                masked = (place >= start) & (place < stop)
                x = x.masked_fill(masked[:, :, None] if axis == 1 else masked[:, None], 0)
        return x
