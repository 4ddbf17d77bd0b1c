"""Shuffling for disks that are slow at random access: archives are read in blocks, and shuffled in a buffer.

A block is a run of neighbouring matrices. An epoch takes the blocks in random order, as many at a time as the
buffer holds, and shuffles their utterances. The buffer is the system's page cache: each block is read
once from end to end, ahead of time, so that the rows of its chunks are then read from memory.
"""

import os
import threading

import numpy as np

from utils.kaldi.ark import RowReader

BLOCK = 8 << 20  # bytes
PIECE = 1 << 20  # bytes read at a time


class Blocks:
    """The blocks of a script's archives, and the order of an epoch over them."""

    def __init__(self, rows: RowReader, buffer_mb: int) -> None:
        self.rows, self.buffer = rows, buffer_mb << 20
        self.place = np.lexsort((rows.offsets, rows.file_numbers))  # utterances in the order of the archives
        file, start = rows.file_numbers[self.place], rows.offsets[self.place]
        sizes = np.array([os.path.getsize(name) for name in rows.files])
        last = np.append(file[1:] != file[:-1], True)
        stop = np.where(last, sizes[file], np.append(start[1:], 0))
        self.first = [0]  # first utterance of each block, as an index into `place`
        for index in range(1, len(start)):
            if file[index] != file[index - 1] or stop[index] - start[self.first[-1]] > BLOCK:
                self.first.append(index)
        self.first.append(len(start))
        firsts = np.array(self.first)
        self.file, self.start, self.stop = file[firsts[:-1]], start[firsts[:-1]], stop[firsts[1:] - 1]
        self.groups: list[np.ndarray] = []  # blocks that are in the buffer together
        self.ends = np.empty(0, np.int64)   # utterances up to the end of each group
        self.entered = -1
        self.reader: threading.Thread | None = None

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Return the utterances' numbers in the order of an epoch."""
        shuffled = rng.permutation(len(self.file))
        filled = np.cumsum(self.stop[shuffled] - self.start[shuffled])
        group = filled // (self.buffer + 1)
        self.groups = np.split(shuffled, np.flatnonzero(np.diff(group)) + 1)
        parts = [rng.permutation(np.concatenate([self.place[self.first[b]:self.first[b + 1]] for b in blocks]))
                 for blocks in self.groups]
        self.ends, self.entered = np.cumsum([len(part) for part in parts]), -1
        return np.concatenate(parts)

    def enter(self, place: int) -> None:
        """Start reading the blocks that the order needs from `place` on, and those of the next group."""
        group = int(np.searchsorted(self.ends, place, side="right"))
        if group == self.entered:
            return
        if self.reader:
            self.reader.join()
        wanted = self.groups[group:group + 2] if self.entered < 0 else self.groups[group + 1:group + 2]
        self.entered = group
        self.reader = threading.Thread(target=self._read, args=(wanted,), daemon=True)
        self.reader.start()

    def _read(self, groups: list[np.ndarray]) -> None:
        for block in np.concatenate(groups) if groups else ():
            with open(self.rows.files[self.file[block]], "rb", buffering=0) as stream:
                stream.seek(int(self.start[block]))
                left = int(self.stop[block] - self.start[block])
                while left > 0 and (found := len(stream.read(min(PIECE, left)))):
                    left -= found
