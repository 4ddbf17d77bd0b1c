"""Trial lists of a data directory: lines `utterance1 utterance2 target|nontarget`.

Lists go to tens of millions of lines, so that they are read and checked in blocks; of a whole list 16 bytes a trial are
held.
"""

import operator
import os
from collections.abc import Iterable, Iterator
from itertools import count, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import InputError, first_five
from utils.files import encodable

LABELS = {"target", "nontarget"}
BLOCK = 1 << 24  # characters read at a time


def blocks(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, fields) for each block of lines; fields[i::3] is a column.

    Raises InputError naming file and line: too few or too many fields, a wrong label, an id with itself, a CR, bytes
    that are not UTF-8, an empty list.
    """
    line = 1
    with open(path, encoding="utf-8", newline="\n", errors="surrogateescape") as stream:
        while text := stream.read(BLOCK):
            text += stream.readline()
            number = text.count("\n") + (not text.endswith("\n"))
            fields = text.split()
            # Where every line ends with a label and every third field is one, each line has three fields.
            fine = (text.count("target\n") + text.endswith("target") == number and "\r" not in text
                    and len(fields) == 3 * number and LABELS.issuperset(fields[2::3])
                    and (text.isascii() or encodable(text)) and not any(map(operator.eq, fields[0::3], fields[1::3])))
            if not fine:
                check_lines(path, text, line)
            yield line, fields
            line += number
    if line == 1:
        raise InputError(f"{path}: empty trial list; prepare the data again")


def check_lines(path: str | os.PathLike, text: str, first: int) -> None:
    """Raise InputError at the first faulty line of `text`, whose first line is number `first` of `path`."""
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=first):
        fields = line.split()
        if not encodable(line):
            raise InputError(f"{path}:{number}: not UTF-8; correct the line")
        if "\r" in line:
            raise InputError(f"{path}:{number}: carriage return (Windows line end); "
                             f"repair: python3 -m utils.kaldi.fix_data_dir {Path(path).parent.parent}")
        if len(fields) != 3:
            raise InputError(f"{path}:{number}: {len(fields)} fields where `utt1 utt2 target|nontarget` "
                             "belong; correct the line")
        if fields[2] not in LABELS:
            raise InputError(f"{path}:{number}: label {fields[2]!r} is neither target nor nontarget; "
                             "correct the line")
        if fields[0] == fields[1]:
            raise InputError(f"{path}:{number}: a trial of {fields[0]} with itself; remove the line")


class Checked(NamedTuple):
    """Trials of a list, and how many of them repeat a pair that an earlier line has."""

    trials: int
    repeated: int


def check_trials(path: str | os.PathLike, ids: Iterable[str]) -> Checked:
    """Check a list against the utterances of its directory and count its trials.

    Raises InputError naming the first five unknown ids, a pair that is target and nontarget, in either order, or the
    faulty line.
    """
    row_of = dict(zip(ids, count()))
    unknown, where, keys = set(), 0, []
    for first, fields in blocks(path):
        number = len(fields) // 3
        rows = [np.fromiter(map(row_of.get, fields[side::3], repeat(-1)), np.int64, number) for side in range(2)]
        low, high = np.minimum(*rows), np.maximum(*rows)
        strange = np.flatnonzero(low < 0)
        if len(strange):
            where = where or first + int(strange[0])
            pairs = (fields[3 * row:3 * row + 2] for row in strange.tolist())
            unknown.update(name for pair in pairs for name in pair if name not in row_of)
        is_target = np.fromiter(map("target".__eq__, fields[2::3]), bool, number)
        keys.append(2 * (low * len(row_of) + high) + is_target)
    if unknown:
        raise InputError(f"{path}:{where}: {len(unknown)} ids are not in utt2spk: "
                         f"{first_five(sorted(unknown))}; list and audio differ in release or spelling, or "
                         "files are missing: prepare the data again")
    found = np.sort(np.concatenate(keys))
    same = found[1:] >> 1 == found[:-1] >> 1
    contradicting = np.flatnonzero(same & (found[1:] != found[:-1]))
    if len(contradicting):
        names = list(row_of)
        rows = divmod(int(found[contradicting[0]]) >> 1, len(names))
        raise InputError(_contradiction(path, {names[row] for row in rows}))
    return Checked(len(found), int(np.count_nonzero(same)))


def _contradiction(path: str | os.PathLike, pair: set[str]) -> str:
    """Say in which lines a pair has which label."""
    lines = {}
    for first, fields in blocks(path):
        for row, both in enumerate(zip(fields[0::3], fields[1::3], strict=True)):
            if pair.issuperset(both):
                lines.setdefault(fields[3 * row + 2], first + row)
    (label, number), (other, another) = sorted(lines.items(), key=lambda item: item[1])
    return (f"{path}:{another}: {' '.join(sorted(pair))} is {other} here and {label} in line {number}; remove one "
            "of the lines")


def trial_lines(path: str | os.PathLike, prefix: str = "") -> Iterator[str]:
    """Yield the lines of a list, with `prefix` before each id."""
    for _, fields in blocks(path):
        for first, second, label in zip(fields[0::3], fields[1::3], fields[2::3], strict=True):
            yield f"{prefix}{first} {prefix}{second} {label}\n"


def list_files(folder: str | os.PathLike) -> list[Path]:
    """Return the trial lists of a data directory, sorted; none when it has no folder `trials`."""
    return sorted(path for path in (Path(folder) / "trials").glob("*") if not path.name.startswith("."))
