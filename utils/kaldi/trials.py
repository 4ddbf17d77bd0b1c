"""Trial lists of a data directory: lines `utterance1 utterance2 target|nontarget`.

Lists have up to tens of millions of lines, so they are read and checked in blocks; memory for a whole list is 16 bytes
per trial.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import InputError, first_five
from utils.text_lines import Block, IdTable, Lines, in_threads, last_eight, locate, read_blocks, refuse_self_trials

MANY = 10000  # most unknown ids collected per block
_TARGET = np.uint64(int.from_bytes(b"target", "little"))
_ONTARGET = np.uint64(int.from_bytes(b"ontarget", "little"))


def labels(lines: Lines) -> np.ndarray:
    """Return whether the last field of each line is `target` (bool); raises InputError if it is not a label."""
    starts, ends = lines.starts[:, -1], lines.ends[:, -1]
    length = ends - starts
    last = last_eight(lines.text, ends)
    target = (length == 6) & (last >> np.uint64(16) == _TARGET)
    nontarget = (length == 9) & (last == _ONTARGET) & (lines.text[starts] == ord("n"))
    wrong = np.flatnonzero(target == nontarget)
    if len(wrong):
        raise InputError(f"{lines.block.place(wrong[0])}: label {lines.field(wrong[0], -1)!r} is neither target "
                         "nor nontarget; correct the line")
    return target


def read_trials(block: Block) -> tuple[Lines, np.ndarray]:
    """Return the lines of a block, and which are targets (bool).

    Raises InputError naming file and line: too few or too many fields, a wrong label, an id with itself, a CR, bytes
    that are not UTF-8.
    """
    lines = locate(block, 3)
    empty = np.flatnonzero(lines.starts == lines.ends)  # a line that lacks a field and has an extra blank
    if len(empty):
        raise InputError(f"{block.place(empty[0] // 3)}: 2 fields, expected 3; correct the line")
    refuse_self_trials(lines)
    return lines, labels(lines)


def row_blocks(path: str | os.PathLike, ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the trials of each block: rows of the first and the second utterance in `ids`, and is target (bool).

    Raises InputError like `read_trials`; at the end, naming the first five ids that are not in `ids`.
    """
    table = IdTable(ids)

    def read(block: Block) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], str, list[str]]:
        lines, is_target = read_trials(block)
        rows = [table.find(lines.text, lines.starts[:, side], lines.ends[:, side]) for side in range(2)]
        unknown = np.argwhere(np.stack(rows, axis=1) < 0)
        place = block.place(unknown[0, 0]) if len(unknown) else ""
        return (*rows, is_target), place, [lines.field(row, side) for row, side in unknown[:MANY].tolist()]

    where, strange = "", set()
    for found, place, names in in_threads(read, read_blocks(path)):
        where = where or place
        strange.update(names)
        if not strange:
            yield found
    if strange:
        raise InputError(f"{where}: {len(strange)} ids are not in utt2spk: {first_five(sorted(strange))}; list and "
                         "audio differ in release or spelling, or files are missing: prepare the data again")


class Checked(NamedTuple):
    """Number of trials in a list, and how many of them repeat a pair of an earlier line."""

    trials: int
    repeated: int


def check_trials(path: str | os.PathLike, ids: Sequence[str]) -> Checked:
    """Check a list against the utterances of its directory and count its trials.

    Raises InputError like `row_blocks`, and for a pair, in either order, that is both target and nontarget.
    """
    keys = np.concatenate([2 * (np.minimum(i, j) * len(ids) + np.maximum(i, j)) + is_target
                           for i, j, is_target in row_blocks(path, ids)])
    found = np.sort(keys)
    same = found[1:] >> 1 == found[:-1] >> 1
    contradicting = np.flatnonzero(same & (found[1:] != found[:-1]))
    if len(contradicting):
        pair = int(found[contradicting[0]]) >> 1
        lines = np.flatnonzero(keys >> 1 == pair)  # each line is a trial
        first = keys[lines[0]] & 1
        another = lines[np.flatnonzero(keys[lines] & 1 != first)[0]]
        names = sorted(ids[row] for row in divmod(pair, len(ids)))
        ours, theirs = ("nontarget", "target") if first else ("target", "nontarget")
        raise InputError(f"{path}:{another + 1}: {' '.join(names)} is {ours} here and {theirs} in line "
                         f"{lines[0] + 1}; remove one of the lines")
    return Checked(len(found), int(np.count_nonzero(same)))


def trial_lines(path: str | os.PathLike, prefix: str = "") -> Iterator[str]:
    """Yield the lines of a list, with `prefix` before each id."""
    for block in read_blocks(path):
        lines, is_target = read_trials(block)
        for row, target in enumerate(is_target.tolist()):
            yield f"{prefix}{lines.field(row, 0)} {prefix}{lines.field(row, 1)} {'target' if target else 'nontarget'}\n"


def list_files(folder: str | os.PathLike) -> list[Path]:
    """Return the trial lists of a data directory, sorted; none if it has no folder `trials`."""
    return sorted(path for path in (Path(folder) / "trials").glob("*") if not path.name.startswith("."))
