"""Trial lists and score files as arrays: millions of lines a second, in bounded memory.

Lines of words are read in blocks and located by the positions of their spaces. Words are then
handled by length, all words of one length at a time, as fixed-size records and 64-bit words; no
Python object is made for a line. Lines that are not plain (tabs, runs of spaces) take a slower way.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import InputError

BLOCK = 1 << 20  # bytes of text read at a time: what stays in a core's cache
PAD = 16         # bytes around the text, so that a record may reach over its ends
NEWLINE, SPACE = 10, 32


@dataclass
class Lines:
    """A block of lines: field j of line i is text[starts[i, j]:ends[i, j]]."""

    text: np.ndarray    # bytes (uint8), with PAD bytes before and after
    starts: np.ndarray  # lines x columns
    ends: np.ndarray    # lines x columns
    first: int          # the number of the first line in its file, from 1

    def field(self, line: int, column: int, last: int | None = None) -> str:
        """Return one field, or the fields from `column` to `last`, of a line."""
        end = self.ends[line, column if last is None else last]
        return self.text[self.starts[line, column]:end].tobytes().decode("utf-8", "replace")


def read_lines(path: str | os.PathLike, columns: int | None = None) -> Iterator[Lines]:
    """Yield the lines of a file in blocks.

    columns: the number of fields of every line (None: as many as the first line has).
    Raises InputError naming file and line: another number of fields, a carriage return, no line at all.
    """
    first, rest = 1, np.empty(0, np.uint8)
    with open(path, "rb", buffering=0) as stream:
        while True:
            text = np.empty(2 * PAD + len(rest) + BLOCK + 1, np.uint8)
            start = PAD + len(rest)
            text[PAD:start] = rest
            got = stream.readinto(memoryview(text)[start:start + BLOCK])
            stop = start + got
            if not got and len(rest):  # the last line has no line end
                text[stop] = NEWLINE
                stop += 1
            elif got:
                stop = start + _after_last_newline(text[start:stop])
                rest = text[stop:start + got].copy() if stop > start else text[PAD:start + got].copy()
                stop = stop if stop > start else PAD
            if stop > PAD:
                lines = _locate(text, stop, columns, first, path)
                columns = lines.ends.shape[1]
                first += len(lines.ends)
                yield lines
            if not got:
                break
    if first == 1:
        raise InputError(f"{path}: empty; run the stage that makes it again")


def _after_last_newline(text: np.ndarray) -> int:
    for size in (1 << 10, len(text)):
        found = np.flatnonzero(text[-size:] == NEWLINE)
        if len(found):
            return max(len(text) - size, 0) + int(found[-1]) + 1
    return 0


def _locate(text: np.ndarray, stop: int, columns: int | None, first: int, path: str | os.PathLike) -> Lines:
    """Find the fields of the whole lines in text[PAD:stop]."""
    inside = text[PAD:stop]
    if columns is None:
        columns = len(inside[:int(np.argmax(inside == NEWLINE))].tobytes().split())
    gaps = np.flatnonzero(inside <= SPACE)
    gaps += PAD
    lines = len(gaps) // max(columns, 1)
    # Plain lines: as many blanks as fields, the last one the line end, the others spaces. (Where a field is
    # empty and another missing, the empty one is found later: it is no id.)
    plain = (lines * columns == len(gaps) and np.count_nonzero(inside < SPACE) == lines
             and (text[gaps[columns - 1::columns]] == NEWLINE).all())
    if not plain:
        return _locate_slowly(inside.tobytes(), columns, first, path)
    starts = np.empty_like(gaps)
    starts[0] = PAD
    np.add(gaps[:-1], 1, out=starts[1:])
    shape = (lines, columns)
    return Lines(text, starts.reshape(shape), gaps.reshape(shape), first)


def _locate_slowly(block: bytes, columns: int, first: int, path: str | os.PathLike) -> Lines:
    lines = block.removesuffix(b"\n").split(b"\n")
    fields = [line.split() for line in lines]
    for number, (line, words) in enumerate(zip(lines, fields, strict=True), start=first):
        if b"\r" in line:
            raise InputError(f"{path}:{number}: carriage return (Windows line end); remove them: "
                             f"sed -i 's/\\r$//' {path}")
        if len(words) != columns or not words:
            raise InputError(f"{path}:{number}: {len(words)} fields where {max(columns, 1)} belong: "
                             f"{line.decode('utf-8', 'replace')!r}; correct the line")
    return words_to_lines([word for words in fields for word in words], columns, first)


def words_to_lines(words: Sequence[bytes], columns: int = 1, first: int = 1) -> Lines:
    """Put words into a block of lines of `columns` words each."""
    text = np.frombuffer(b"%b%b %b" % (b" " * PAD, b" ".join(words), b" " * PAD), np.uint8)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    ends = PAD + np.cumsum(lengths + 1) - 1
    shape = (-1, columns)
    return Lines(text, (ends - lengths).reshape(shape), ends.reshape(shape), first)


def records(text: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Return text[start:start + size] for each start: an array of `size`-byte records (dtype V<size>)."""
    return windows(text, size)[starts]


def windows(text: np.ndarray, size: int) -> np.ndarray:
    """Return a view of `text` as overlapping records, one at each byte."""
    return np.ndarray((text.size - size + 1,), f"V{size}", text, strides=(1,))


def by_length(lengths: np.ndarray) -> Iterator[tuple[int, np.ndarray | slice]]:
    """Yield each length with the rows that have it; a plain slice when all have the same."""
    low, high = int(lengths.min(initial=0)), int(lengths.max(initial=0))
    if len(lengths):
        low = int(lengths.min())
    if low == high:
        yield low, slice(None)
        return
    for length in np.flatnonzero(np.bincount(lengths)).tolist():
        yield length, np.flatnonzero(lengths == length)


def hash_words(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of text[start:end] for each pair of `starts` and `ends` (uint64)."""
    lengths = ends - starts
    hashes = np.empty(len(starts), np.uint64)
    for length, rows in by_length(lengths):
        count = max(-(-length // 8), 1)
        words = records(text, starts[rows], 8 * count).view(np.uint64).reshape(-1, count)
        words[:, -1] &= np.uint64((1 << 8 * (length - 8 * count + 8)) - 1)
        mixed = np.full(len(words), length, np.uint64)
        for word in words.T:
            # Multiplication carries upwards only, so that the high half is folded down after it.
            mixed ^= word
            mixed *= np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(32)
        hashes[rows] = mixed
    return hashes


class IdTable:
    """Rows of ids, looked up for whole columns of text at once.

    Hashes are sorted; `first` says for each value of their leading bits where such hashes begin. 26 bytes an id.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        """ids: one name a row; raises InputError when one comes twice."""
        lines = words_to_lines([name.encode() for name in ids])
        hashes = hash_words(lines.text, lines.starts[:, 0], lines.ends[:, 0])
        self.rows = np.argsort(hashes, kind="stable")
        self.hashes = hashes[self.rows]
        same = np.flatnonzero(self.hashes[1:] == self.hashes[:-1])
        if len(same):
            raise InputError(f"id {ids[self.rows[same[0]]]} comes twice")
        bits = max(len(ids).bit_length() + 1, 8)
        self.shift = np.uint64(64 - bits)
        self.first = np.searchsorted(self.hashes >> self.shift, np.arange(1 << bits, dtype=np.uint64))

    def find(self, text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the row of text[start:end] for each pair of `starts` and `ends`, -1 where it is no id."""
        wanted = hash_words(text, starts, ends)
        last = len(self.hashes) - 1
        place = np.minimum(self.first[wanted >> self.shift], last)
        open_ = np.flatnonzero(self.hashes[place] < wanted)
        while len(open_):  # other ids share the leading bits: step on until the hash is not below the wanted
            place[open_] += 1
            open_ = open_[place[open_] <= last]
            open_ = open_[self.hashes[place[open_]] < wanted[open_]]
        np.minimum(place, last, out=place)
        return np.where(self.hashes[place] == wanted, self.rows[place], -1)
