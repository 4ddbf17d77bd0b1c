"""What the tables of data directories may hold: ids, and the values of each table."""

import re
from collections.abc import Callable

from utils.kaldi.segments import DURATIONS, SEGMENT_MEANING, SEGMENTS, positive_seconds, read_segment

# An id becomes part of file names and of space-separated lines. "\n" is not included: a check joins the ids with it.
BAD_ID = re.compile(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f/]|\.\.")


def positive_integer(value: str) -> bool:
    """Whether `value` is written as an integer above zero that fits into 32 bits, as in utt2num_frames."""
    return re.fullmatch("[0-9]{1,9}", value) is not None and int(value) > 0


def plausible_speed(value: str) -> bool:
    """Whether `value` is a speed factor from 0.1 to 10, as in utt2speed."""
    return re.fullmatch(r"\d+(\.\d+)?", value) is not None and 0.1 <= float(value) <= 10


def plausible_formants(value: str) -> bool:
    """Whether `value` is a factor of a voice's resonances from 0.5 to 2, as in utt2formants."""
    return re.fullmatch(r"\d+(\.\d+)?", value) is not None and 0.5 <= float(value) <= 2


def plausible_segment(value: str) -> bool:
    """Whether `value` is `recording start end`, as in segments, with a recording's id of one word."""
    segment = read_segment(value)
    return segment is not None and not BAD_ID.search(segment.recording)


VALUE_CHECKS: dict[str, tuple[Callable[[str], bool], str]] = {
    "utt2num_frames": (positive_integer, "a number of frames above 0"),
    "utt2speed": (plausible_speed, "a speed factor from 0.1 to 10"),
    "utt2formants": (plausible_formants, "a factor of the formants from 0.5 to 2"),
    "utt2spk": (lambda value: value != "" and "\n" not in value and not BAD_ID.search(value),
                "a speaker id, one word without blanks, `/` and `..`"),
    SEGMENTS: (plausible_segment, SEGMENT_MEANING),
    DURATIONS: (positive_seconds, "a length in seconds above 0"),
}
