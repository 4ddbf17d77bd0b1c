"""Who speaks when, as NIST's RTTM files: one line per turn, times in seconds.

    SPEAKER call7 1 12.300 5.550 <NA> <NA> speaker1 <NA> <NA>      recording, channel, start, duration, speaker
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from utils.arguments import decimal
from utils.errors import InputError
from utils.kaldi.data_dir import read_text
from utils.kaldi.table_values import BAD_ID


class Turn(NamedTuple):
    """A speaker talks from `start` to `end`, seconds."""

    recording: str
    start: float
    end: float
    speaker: str


def read_rttm(path: Path) -> list[Turn]:
    """Return the turns of a file, in its order; lines of other types are skipped.

    Raises InputError, naming file and line, for a line that is no turn, and for a file without turns.
    """
    turns = []
    for number, line in enumerate(read_text(path, "write it with LF line ends")[:-1].split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            _, recording, _, start, duration, _, _, speaker, *_ = fields
            turn = Turn(recording, decimal(start), decimal(start) + decimal(duration), speaker)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {line!r} is not `SPEAKER recording channel start duration <NA> <NA> "
                             "speaker ...`; correct it") from error
        if not (0 <= turn.start < turn.end and math.isfinite(turn.end)):
            raise InputError(f"{path}:{number}: start {start} and duration {duration}; wanted a start from 0 on and a "
                             "duration above 0")
        turns.append(turn)
    if not turns:
        raise InputError(f"{path}: no line SPEAKER; name an RTTM file")
    return turns


def rttm_lines(turns: Iterable[Turn]) -> Iterable[str]:
    """Yield the lines of turns, to the millisecond; raises InputError for a name that is not one word."""
    for turn in turns:
        if any(not name or BAD_ID.search(name) for name in (turn.recording, turn.speaker)):
            raise InputError(f"{turn.recording!r}: a recording of an RTTM file is one word; rename it")
        start = round(turn.start, 3)
        yield (f"SPEAKER {turn.recording} 1 {start:.3f} {round(turn.end, 3) - start:.3f} <NA> <NA> {turn.speaker} <NA> "
               "<NA>\n")
