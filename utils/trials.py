"""Trial lists of a data directory: lines `utterance1 utterance2 target|nontarget`.

Lists go to tens of millions of lines, so that they are read and checked in blocks, never held whole.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from utils.errors import InputError, first_five

LABELS = {"target", "nontarget"}
BLOCK = 1 << 24  # characters read at a time


def blocks(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, fields) for each block of lines; fields[i::3] is a column.

    Raises InputError naming file and line: too few or too many fields, a wrong label, a CR, an empty list.
    """
    line = 1
    with open(path, encoding="utf-8", newline="\n", errors="surrogateescape") as stream:
        while text := stream.read(BLOCK):
            text += stream.readline()
            number = text.count("\n") + (not text.endswith("\n"))
            fields = text.split()
            # Where every line ends with a label and every third field is one, each line has three fields.
            fine = (text.count("target\n") + text.endswith("target") == number and "\r" not in text
                    and len(fields) == 3 * number and LABELS.issuperset(fields[2::3]))
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
        if "\r" in line:
            raise InputError(f"{path}:{number}: carriage return (Windows line end); "
                             f"repair: python3 -m utils.fix_data_dir {Path(path).parent.parent}")
        if len(fields) != 3:
            raise InputError(f"{path}:{number}: {len(fields)} fields where `utt1 utt2 target|nontarget` "
                             "belong; correct the line")
        if fields[2] not in LABELS:
            raise InputError(f"{path}:{number}: label {fields[2]!r} is neither target nor nontarget; "
                             "correct the line")


def check_trials(path: str | os.PathLike, ids: Collection[str]) -> int:
    """Check a list against the utterances of its directory and return its number of trials.

    Raises InputError naming the first five unknown ids, or the faulty line.
    """
    known = ids if isinstance(ids, set | dict) else set(ids)
    number, unknown, where = 0, set(), 0
    for first, fields in blocks(path):
        number += len(fields) // 3
        strange = set(fields[0::3]).union(fields[1::3]).difference(known)
        if strange and not unknown:
            where = first + next(row for row, name in enumerate(fields) if name in strange) // 3
        unknown |= strange
    if unknown:
        raise InputError(f"{path}:{where}: {len(unknown)} ids are not in utt2spk: "
                         f"{first_five(sorted(unknown))}; list and audio differ in release or spelling, or "
                         "files are missing: prepare the data again")
    return number


def trial_lines(path: str | os.PathLike, prefix: str = "") -> Iterator[str]:
    """Yield the lines of a list, with `prefix` before each id."""
    for _, fields in blocks(path):
        for first, second, label in zip(fields[0::3], fields[1::3], fields[2::3], strict=True):
            yield f"{prefix}{first} {prefix}{second} {label}\n"


def list_files(folder: str | os.PathLike) -> list[Path]:
    """Return the trial lists of a data directory, sorted; none when it has no folder `trials`."""
    return sorted(path for path in (Path(folder) / "trials").glob("*") if not path.name.startswith("."))
