"""The utterances of a data directory with features, as a network takes them: whole, or in chunks.

`open_utterances` chooses between the two classes.
"""

from array import array
from collections.abc import Iterator
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path

import numpy as np

from nnet.config import NetworkConfig
from nnet.frontends import FRONTENDS
from utils.audio import Recording, change_speed, exact_speed
from utils.errors import InputError
from utils.features.frontend import apply_frontend, frontend_margin
from utils.features.options import read_feature_options
from utils.kaldi.ark import VECTORS, Ids, RowReader, table_lines
from utils.kaldi.segments import SEGMENTS
from utils.kaldi.table_values import plausible_speed


def open_rows(data: Path) -> RowReader:
    """Return the stored features of a data directory; raises InputError when there are none."""
    rows = RowReader(data / "feats.scp")
    if not len(rows):
        raise InputError(f"{data}/feats.scp is empty")
    return rows


class StoredUtterances:
    """Utterances as stored features, passed through the rest of the front end: matrices T x F'."""

    def __init__(self, data: Path, config: NetworkConfig) -> None:
        self.frontend = config.frontend
        self.margin = frontend_margin(config.frontend)
        self.rows = open_rows(data)
        self.feature_dim = self.rows.read(0, 0, 1).shape[1]
        self.vad: RowReader | None = None
        if config.frontend.vad:
            self.vad = RowReader(data / "vad.scp", VECTORS)
            if any(a != b for a, b in zip_longest(self.vad.ids, self.rows.ids)):
                raise InputError(f"{data}: vad.scp and feats.scp list different utterances; run steps/compute_vad.sh")

    def shape(self, frames: int) -> tuple[int, ...]:
        """Return the shape of a chunk: T, F'."""
        return frames, self.frontend.output_dim(self.feature_dim)

    def whole(self, index: int) -> np.ndarray:
        """Return all frames of an utterance: T x F'."""
        return apply_frontend(self.rows.read(index), self._voicing(index), self.frontend)

    def chunk(self, index: int, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return `frames` consecutive (voiced) frames from a random place; a shorter utterance is repeated."""
        voicing, voiced = self._voiced(index)
        return self._cut(index, voicing, voiced, int(rng.integers(max(len(voiced) - frames, 0) + 1)), frames)

    def segments(self, index: int, frames: int, count: int) -> np.ndarray:
        """Return `count` chunks at regular intervals, from the first frame to the last: count x frames x F'."""
        voicing, voiced = self._voiced(index)
        places = np.linspace(0, max(len(voiced) - frames, 0), count).round().astype(int)
        return np.stack([self._cut(index, voicing, voiced, int(place), frames) for place in places])

    def _cut(self, index: int, voicing: np.ndarray | None, voiced: np.ndarray, place: int, frames: int) -> np.ndarray:
        """Return `frames` voiced frames from the `place`th on, normalised (if the options say so) over these only."""
        length, count = int(self.rows.num_rows[index]), min(frames, len(voiced))
        first, end = int(voiced[place]), int(voiced[place + count - 1]) + 1
        start, stop = max(0, first - self.margin), min(length, end + self.margin)
        found = apply_frontend(self.rows.read(index, start, stop), None if voicing is None else voicing[start:stop],
                               self.frontend, keep=(first - start, end - start))
        return found[np.arange(frames) % len(found)]

    def _voiced(self, index: int) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the voicing decisions (None: unused), and the indices of the frames to use."""
        voicing = self._voicing(index)
        if voicing is None or not voicing.any():
            return voicing, np.arange(int(self.rows.num_rows[index]))
        return voicing, np.flatnonzero(voicing)

    def _voicing(self, index: int) -> np.ndarray | None:
        return None if self.vad is None else self.vad.read(index)[:, 0]


class AudioUtterances:
    """Utterances as audio, vectors of N samples, 16-bit scale. Their lengths and chunks are those of the stored
    features.

    Memory: 60 to 100 bytes per utterance, mostly for the paths.
    """

    def __init__(self, data: Path, config: NetworkConfig) -> None:
        self.rows = open_rows(data)
        self.feature_dim = self.rows.read(0, 0, 1).shape[1]
        if not (data / "feats.conf").is_file():
            raise InputError(f"{data} has no feats.conf with the options of its features; make them again")
        self.options = read_feature_options(data / "feats.conf")
        if self.options.dim != self.feature_dim:
            raise InputError(f"{data}: feats.conf gives {self.options.dim} values per frame, feats.scp has "
                             f"{self.feature_dim}; make the features again")
        if (data / SEGMENTS).is_file():
            raise InputError(f"{data} has segments, but this network reads whole audio files; write each segment to a "
                             "file, or choose a system with stored features")
        self.paths = Ids(self._column(data / "wav.scp"))
        if pipe := next((path for path in self.paths if path.endswith("|")), None):
            raise InputError(f"{data}/wav.scp: {pipe!r} is a command, which would run for every chunk that this "
                             "network reads; write its output to a file, or choose a system with stored features")
        self.speeds = np.ones(len(self.rows), np.float32)
        if (data / "utt2speed").is_file():
            self.speeds = np.array(array("f", map(self._speed, self._column(data / "utt2speed"))))
        for table in ("utt2augment", "utt2formants"):
            if (data / table).is_file():
                raise InputError(f"{data} has {table}: its copies are changed in a way that a network that reads audio "
                                 "does not repeat; name the data without them")

    def _column(self, path: Path) -> Iterator[str]:
        """Yield the values of a table with one line per utterance; raises InputError if it lists others."""
        if not path.is_file():
            raise InputError(f"{path} is missing; it names the audio to read")
        for line, name in zip_longest(table_lines(path), self.rows.ids):
            if line is None or line[0] != name:
                raise InputError(f"{path} and feats.scp list different utterances; repair: utils.kaldi.fix_data_dir")
            yield line[1]

    def _speed(self, value: str) -> float:
        if not plausible_speed(value):
            raise InputError(f"utt2speed: {value!r} is not a speed factor from 0.1 to 10; prepare the data again")
        return float(value)

    def shape(self, frames: int) -> tuple[int, ...]:
        """Return the shape of a chunk: N."""
        return (self.options.samples_of(frames),)

    def whole(self, index: int) -> np.ndarray:
        """Return all samples of an utterance."""
        recording, speed, length = self._open(index)
        return self._read(recording, speed, 0, length)

    def chunk(self, index: int, frames: int, rng: np.random.Generator) -> np.ndarray:
        """Return the samples of `frames` frames from a random place; a shorter utterance is repeated."""
        count = min(frames, int(self.rows.num_rows[index]))
        return self._cut(index, int(rng.integers(int(self.rows.num_rows[index]) - count + 1)), frames)

    def segments(self, index: int, frames: int, count: int) -> np.ndarray:
        """Return `count` chunks at regular intervals, from the first frame to the last: count x N."""
        places = np.linspace(0, max(int(self.rows.num_rows[index]) - frames, 0), count).round().astype(int)
        return np.stack([self._cut(index, int(place), frames) for place in places])

    def _cut(self, index: int, place: int, frames: int) -> np.ndarray:
        """Return the samples that `frames` stored frames, from `place` on, were computed from."""
        recording, speed, length = self._open(index)
        size = self.options.samples_of(frames)
        if int(self.rows.num_rows[index]) < frames:
            return np.resize(self._read(recording, speed, 0, length), size)
        first = place * self.options.shift
        if not self.options.kaldi.frame_opts.snip_edges:
            first += self.options.shift // 2 - self.options.length // 2
        if first >= 0 and first + size <= length:
            return self._read(recording, speed, first, first + size)
        where = np.arange(first, first + size) % (2 * length)
        where = np.minimum(where, 2 * length - 1 - where)  # mirrored at the ends
        start = int(where.min())
        return self._read(recording, speed, start, int(where.max()) + 1)[where - start]

    def _open(self, index: int) -> tuple[Recording, Fraction, int]:
        """Return an utterance's recording, its speed, and its number of samples after the change of speed.

        Raises InputError if the audio's length does not match the features.
        """
        recording, speed = Recording(self.paths[index], self.options.rate), exact_speed(float(self.speeds[index]))
        length = -(-len(recording) * speed.denominator // speed.numerator)
        if (found := self.options.frames_of(length)) != self.rows.num_rows[index]:
            raise InputError(f"{self.rows.ids[index]}: {self.paths[index]} gives {found} frames, its features have "
                             f"{self.rows.num_rows[index]}; make the features again")
        return recording, speed, length

    def _read(self, recording: Recording, speed: Fraction, start: int, stop: int) -> np.ndarray:
        """Return the samples start..stop of a recording played at another speed."""
        if speed == 1:
            return recording[start:stop]
        up, down = speed.denominator, speed.numerator
        margin = 20 + 20 * up // down  # more than the reach of the resampling filter
        before = max(0, start - margin) // up * up  # where samples of both rates coincide
        read = recording[before * down // up:-(-(stop + margin) * down // up)]
        return change_speed(read, float(speed))[start - before:stop - before]


Utterances = StoredUtterances | AudioUtterances


def open_utterances(data: Path, config: NetworkConfig, audio: bool = False) -> Utterances:
    """Return the utterances of a data directory: stored features if the network's front end begins with them.

    audio: return samples in any case.
    """
    stored = FRONTENDS[config.frontend.type][0].stored and not audio
    return StoredUtterances(data, config) if stored else AudioUtterances(data, config)
