"""What is in a corpus's audio files: each is decoded once, and measured; the measurements are kept for the next call.

A fingerprint finds the same recording again in another format, at another level, rate or number of channels, or cut
differently. The energy differences between neighbouring bands either grow or fall from a frame to a later one; one bit
per pair of bands says which, and the bits of a frame are a word (Haitsma and Kalker, "A Highly Robust Audio
Fingerprinting System", ISMIR 2002). The SKETCH words with the smallest hashes are kept (min-wise hashing: Broder, "On
the Resemblance and Containment of Documents", 1997).
"""

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.stats import poisson

from utils.audio import SAMPLE_RATE, SOUNDLESS, read_audio
from utils.errors import InputError
from utils.files import write_aside
from utils.progress import progress

FULL_SCALE = 32768.0
INAUDIBLE = 33            # largest sample of a file that counts as silent: 60 dB below full scale
CLIPPED = 0.001           # share of samples at the limit from which a file counts as clipped
LOUD = 1000.0             # limits below this level are not clipping
WINDOW, HOP, LAG = 4096, 512, 4         # samples, samples, frames: 256 ms every 32 ms, growth over 128 ms
BANDS = np.geomspace(300, 3400, 26)     # Hz: 25 bands, 24 bits; a telephone passes them
SKETCH = 48               # words kept of a fingerprint
ALIKE = 5                 # words that two sketches share if they are of one short recording; chance gives 0 or 1
WORDS = 1e6               # distinct words of speech, if all were equally frequent: measured on recordings of an hour
COMMON = 200              # a word in more files than this says nothing (hum, a jingle)
BLOCK = 8                 # files per task
KEEP_SECONDS = 600.0      # between two writings of what has been measured


@dataclass(frozen=True)
class Measured:
    """A file. `fault` tells why it cannot be used; the rest is empty then."""

    fault: str = ""
    seconds: float = 0.0
    kind: str = ""                  # its format: wav, flac, ...
    rate: int = 0                   # Hz
    channels: int = 1
    clipped: float = 0.0            # share of the samples at the limit
    silent: bool = False
    digest: str = ""                # of the decoded samples
    sketch: str = ""                # words of the fingerprint, sorted: 8 hexadecimal digits each


def measure(path: str) -> Measured:
    """Decode a file and measure it; a file that cannot be decoded has a fault."""
    try:
        if not os.path.getsize(path):
            return Measured("empty")
        audio = read_audio(path)
    except InputError as error:
        return Measured(" ".join(str(error).replace(f"{path}: ", "").split(";")[0].split()))
    except OSError as error:
        return Measured(error.strerror or "unreadable")
    samples = audio.samples
    peak = float(np.abs(samples).max())
    limit = 0.99 * min(peak, FULL_SCALE)
    clipped = float(np.mean(np.abs(samples) >= limit)) if peak >= LOUD else 0.0
    channels = next((int(note.split()[0]) for note in audio.notes if note.endswith(" channels")), 1)
    silent = peak < INAUDIBLE or bool(set(SOUNDLESS).intersection(audio.notes))
    return Measured("", len(samples) / SAMPLE_RATE, kind_of(path), audio.rate, channels, clipped, silent,
                    hashlib.sha256(np.round(samples).astype(np.int32).tobytes()).hexdigest()[:32],
                    "" if silent else sketch_of(samples).astype(">u4").tobytes().hex())


def kind_of(path: str) -> str:
    """Return the format of a file by its first bytes."""
    with open(path, "rb") as stream:
        head = stream.read(12)
    known = ((b"RIFF", "wav"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"FORM", "aiff"),
             (b"NIST", "sph"), (b".snd", "au"), (b"caff", "caf"), (b"riff", "w64"))
    if head[4:8] == b"ftyp":
        return "m4a"
    if head[:1] == b"\xff" and len(head) > 1:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return next((name for start, name in known if head.startswith(start)), "other")


def sketch_of(samples: np.ndarray) -> np.ndarray:
    """Return at most SKETCH words (24 bits each) of the fingerprint of mono samples (N,) at 16 kHz, sorted."""
    if len(samples) < WINDOW + (LAG + 1) * HOP:
        return np.empty(0, np.uint64)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    edges = np.round(BANDS * WINDOW / SAMPLE_RATE).astype(int)
    window = np.hanning(WINDOW).astype(np.float32)
    energies = np.concatenate([
        np.add.reduceat(np.square(np.abs(np.fft.rfft(frames[start:start + 256] * window, axis=1)[:, :edges[-1]])),
                        edges[:-1], axis=1) for start in range(0, len(frames), 256)])
    total = energies.sum(axis=1)
    logs = np.log(energies + 1e-6 * total.max())
    slope = np.diff(logs, axis=1)
    bits = slope[LAG:] > slope[:-LAG]
    loud = total[LAG:] > 1e-3 * total.max()  # pauses hold the noise of a codec
    return smallest(np.unique(bits[loud] @ (1 << np.arange(bits.shape[1], dtype=np.uint64))))


def smallest(words: np.ndarray) -> np.ndarray:
    """Return the sketch of distinct words: the SKETCH with the smallest hashes, sorted."""
    return np.sort(words[np.argsort(hashes(words), kind="stable")[:SKETCH]])


def hashes(words: np.ndarray) -> np.ndarray:
    """Return a hash of each word, evenly distributed up to 2^64."""
    mixed = words.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return mixed * np.uint64(0xBF58476D1CE4E5B9)


def survey(paths: Sequence[str], kept: Path, jobs: int) -> list[Measured]:
    """Return the measurements of files, from the file `kept` where they have not changed since.

    It is written anew at the end, and now and then before, so that a killed survey goes on from there. Raises
    InputError if a process dies.
    """
    known = read_kept(kept)
    states = {path: state_of(path) for path in paths}
    found = {path: known[path][1] for path, state in states.items() if path in known and known[path][0] == state}
    todo = [path for path in states if path not in found]

    def keep() -> None:
        with write_aside(kept) as stream:
            for path in filter(found.__contains__, states):
                stream.write(f"{json.dumps([path, states[path], asdict(found[path])])}\n")

    if todo:
        written = time.monotonic()
        try:
            for path, measured in zip(todo, measure_all(todo, jobs), strict=True):
                found[path] = measured
                if time.monotonic() > written + KEEP_SECONDS:
                    keep()
                    written = time.monotonic()
        except BrokenProcessPool as error:
            raise InputError(f"a process that measures recordings was killed, perhaps for want of memory, after "
                             f"{len(found)} of {len(paths)}; run it again, with fewer processes (--nj)") from error
        finally:
            keep()
    return [found[path] for path in paths]


def measure_all(paths: Sequence[str], jobs: int) -> Iterator[Measured]:
    """Yield the measurements of files, from up to `jobs` processes."""
    blocks = [paths[start:start + BLOCK] for start in range(0, len(paths), BLOCK)]
    if jobs == 1 or len(blocks) < 2 * jobs:
        yield from progress(map(measure, paths), len(paths), "listen to the recordings", "files")
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for block in progress(pool.map(measure_block, blocks), len(blocks), "listen to the recordings",
                              f"x {BLOCK} files"):
            yield from block


def measure_block(paths: Sequence[str]) -> list[Measured]:
    """Measure some files."""
    return [measure(path) for path in paths]


def state_of(path: str) -> str:
    """Return size and time of a file, which change with its content."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def read_kept(path: Path) -> dict[str, tuple[str, Measured]]:
    """Return path -> (state, measurements) of an earlier survey; nothing if there is none that can be read."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return {name: (state, Measured(**one)) for name, state, one in rows}
    except (OSError, ValueError, TypeError):
        return {}


def same_recordings(measured: Sequence[Measured]) -> list[list[int]]:
    """Return groups of rows of files that hold the same recording: equal samples, or fingerprints alike.

    Memory: about 30 bytes per word, 1.5 GB for a million files.
    """
    groups = Groups(len(measured))
    first_of: dict[str, int] = {}
    for row, one in enumerate(measured):
        if one.digest and not one.silent:
            groups.join(first_of.setdefault(one.digest, row), row)
    sketches = [np.frombuffer(bytes.fromhex(one.sketch), ">u4") for one in measured]
    ends = np.cumsum([len(sketch) for sketch in sketches], dtype=np.int64)
    sizes = np.array([words_behind(sketch) for sketch in sketches])
    owners = np.repeat(np.arange(len(measured), dtype=np.int32), np.diff(ends, prepend=0))
    _, place_of, counts = np.unique(np.concatenate([*sketches, np.empty(0, ">u4")]), return_inverse=True,
                                    return_counts=True)
    owners = owners[np.argsort(place_of, kind="stable")]  # those of one word stand together
    stops = np.cumsum(counts)
    for row, end in enumerate(ends):
        mine = place_of[end - len(sketches[row]):end]
        mine = mine[counts[mine] <= COMMON]
        others, shared = np.unique(np.concatenate([owners[stops[place] - counts[place]:stops[place]] for place in mine]
                                                  or [owners[:0]]), return_counts=True)
        for other, count in zip(others[shared >= ALIKE].tolist(), shared[shared >= ALIKE].tolist(), strict=True):
            if other > row and count >= alike(min(sizes[row], sizes[other])):
                groups.join(row, other)
    return groups.several()


def words_behind(sketch: np.ndarray) -> float:
    """Return an estimate of the number of distinct words in a fingerprint, from the largest hash of its sketch."""
    return len(sketch) if len(sketch) < SKETCH else (SKETCH - 1) / (float(hashes(sketch).max()) / 2.0 ** 64)


def alike(words: float) -> int:
    """Return how many words two sketches must share to be of one recording, if the shorter has so many words.

    By chance, sketches of different recordings share words / WORDS of their SKETCH words; so many happen to one in
    10,000 million pairs of recordings.
    """
    return max(ALIKE, 1 + int(poisson.isf(1e-10, SKETCH * words / WORDS)))


class Groups:
    """Disjoint groups of rows."""

    def __init__(self, number: int) -> None:
        self.above = list(range(number))

    def top(self, row: int) -> int:
        """Return the row that stands for the group of `row`."""
        while self.above[row] != row:
            self.above[row] = self.above[self.above[row]]
            row = self.above[row]
        return row

    def join(self, one: int, other: int) -> None:
        """Make two rows' groups one."""
        self.above[max(self.top(one), self.top(other))] = min(self.top(one), self.top(other))

    def several(self) -> list[list[int]]:
        """Return the groups of two rows or more."""
        found: dict[int, list[int]] = defaultdict(list)
        for row in range(len(self.above)):
            found[self.top(row)].append(row)
        return [rows for rows in found.values() if len(rows) > 1]
