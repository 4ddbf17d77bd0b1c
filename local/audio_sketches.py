"""Sketches find a recording again: in another format, at another level or rate, or cut differently.

In a fingerprint, the energy differences between neighbouring bands either grow or fall from a frame to a later one; one
bit per pair of bands says which, and the bits of a frame are a word (Haitsma and Kalker, "A Highly Robust Audio
Fingerprinting System", ISMIR 2002). A sketch is the SKETCH words with the smallest hashes (min-wise hashing: Broder,
"On the Resemblance and Containment of Documents", 1997).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import poisson

from utils.audio import SAMPLE_RATE

WINDOW, HOP, LAG = 4096, 512, 4         # samples, samples, frames: 256 ms every 32 ms, growth over 128 ms
BANDS = np.geomspace(300, 3400, 26)     # Hz: 25 bands, 24 bits; a telephone passes them
SKETCH = 48               # words of a fingerprint that are kept
FEWEST = 5                # words that two sketches share if they are of one short recording; chance gives 0 or 1
WORDS = 1e6               # distinct words of speech, if all were equally frequent (tests/unit/test_audio_survey.py)
COMMON = 200              # a word in more files than this says nothing (hum, a jingle)


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


def same_recordings(digests: Sequence[str], sketches: Sequence[np.ndarray]) -> list[list[int]]:
    """Return groups of rows of recordings that are the same: equal digests of the samples, or sketches alike.

    digests: "" for a recording without sound, which is like no other.
    """
    groups = Groups(len(digests))
    first_of: dict[str, int] = {}
    for row, digest in enumerate(digests):
        if digest:
            groups.join(first_of.setdefault(digest, row), row)
    for row, other in alike(sketches):
        groups.join(row, other)
    return groups.several()


def alike(sketches: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of rows whose sketches share so many words that they are of one recording."""
    ends = np.cumsum([len(sketch) for sketch in sketches], dtype=np.int64)
    sizes = np.array([words_behind(sketch) for sketch in sketches])
    rows = np.repeat(np.arange(len(sketches), dtype=np.int32), np.diff(ends, prepend=0))
    _, places, counts = np.unique(np.concatenate([*sketches, np.empty(0, ">u4")]), return_inverse=True,
                                  return_counts=True)
    owners, stops = rows[np.argsort(places, kind="stable")], np.cumsum(counts)  # those of one word stand together
    for row, end in enumerate(ends):
        mine = places[end - len(sketches[row]):end]
        found = [owners[stops[place] - counts[place]:stops[place]] for place in mine[counts[mine] <= COMMON]]
        others, shared = np.unique(np.concatenate([owners[:0], *found]), return_counts=True)
        several = (shared >= FEWEST) & (others > row)
        for other, count in zip(others[several].tolist(), shared[several].tolist(), strict=True):
            if count >= fewest_shared(min(sizes[row], sizes[other])):
                yield row, other


def words_behind(sketch: np.ndarray) -> float:
    """Return an estimate of the number of distinct words in a fingerprint, from the largest hash of its sketch."""
    return len(sketch) if len(sketch) < SKETCH else (SKETCH - 1) / (float(hashes(sketch).max()) / 2.0 ** 64)


def fewest_shared(words: float) -> int:
    """Return how many words two sketches must share to be of one recording, if the shorter one has `words` words.

    By chance, sketches of different recordings share words / WORDS of their SKETCH words; so many happen to one in
    10,000 million pairs of recordings.
    """
    return max(FEWEST, 1 + int(poisson.isf(1e-10, SKETCH * words / WORDS)))


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
