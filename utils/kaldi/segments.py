"""Utterances that are parts of recordings, in Kaldi's tables.

    segments    id1-call7-0012 call7 12.3 17.85    utterance, recording, start and end in seconds
    wav.scp     call7 /corpora/calls/call7.wav     recordings instead of utterances
    reco2dur    call7 301.5                        lengths of the recordings in seconds, optional

As in Kaldi's extract-segments, an end of -1 is the end of the recording, and an end up to OVERSHOOT seconds after the
recording is moved there. Segments may overlap.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from utils.errors import InputError

SEGMENTS, DURATIONS = "segments", "reco2dur"
OF_RECORDINGS = ("wav.scp", DURATIONS)  # with segments, these tables have a line per recording
OVERSHOOT = 0.5  # seconds
_SECONDS = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_SEGMENT = re.compile(rf"(\S+) +({_SECONDS}) +({_SECONDS}|-1(?:\.0*)?)", re.ASCII)
SEGMENT_MEANING = "a recording with start and end in seconds, the start before the end (-1: the recording's end)"
WHOLE = "0 -1"  # start and end of an utterance that is a whole recording


class Segment(NamedTuple):
    """A part of a recording; start and end in seconds, None for the end of the recording."""

    recording: str
    start: float
    end: float | None


def read_segment(value: str) -> Segment | None:
    """Return the segment that `recording start end` describes, None if it describes none."""
    found = _SEGMENT.fullmatch(value)
    if not found:
        return None
    start, end = float(found[2]), None if found[3].startswith("-1") else float(found[3])
    return Segment(found[1], start, end) if end is None or start < end else None


def positive_seconds(value: str) -> bool:
    """Whether `value` is a length in seconds above 0, as in reco2dur."""
    return re.fullmatch(_SECONDS, value, re.ASCII) is not None and float(value) > 0


def segments_of(values: Iterable[str]) -> list[Segment]:
    """Return the segments of a column that has been checked."""
    return [segment for value in values if (segment := read_segment(value))]


def by_recording(segments: Sequence[Segment], values: Sequence[str], where: str) -> dict[str, str]:
    """Return a recording's value for each recording, sorted, of a column with one value per segment.

    Raises InputError, naming `where`, if a recording has two values.
    """
    found: dict[str, str] = {}
    for segment, value in zip(segments, values, strict=True):
        if found.setdefault(segment.recording, value) != value:
            raise InputError(f"{where}: recording {segment.recording} is both {found[segment.recording]} and {value}; "
                             "give the recordings of one input other ids, in its wav.scp and segments")
    return dict(sorted(found.items()))


def check_ends(ids: Sequence[str], segments: Sequence[Segment], seconds: Sequence[str], where: str) -> None:
    """Raise InputError for a segment that begins or ends after its recording; seconds: the recording's, of each."""
    for name, segment, text in zip(ids, segments, seconds, strict=True):
        if fault := beyond(segment, float(text)):
            raise InputError(f"{where}: {name}: {fault} ({DURATIONS}); correct its line")


def beyond(segment: Segment, seconds: float) -> str:
    """Return what is wrong with a segment of a recording of this length; nothing if it fits."""
    if segment.start >= seconds:
        return f"starts at {segment.start:g} s, but recording {segment.recording} lasts {seconds:g} s"
    if segment.end is not None and segment.end > seconds + OVERSHOOT:
        return f"ends at {segment.end:g} s, but recording {segment.recording} lasts {seconds:g} s"
    return ""


def cut(samples: np.ndarray, rate: int, segment: Segment) -> np.ndarray:
    """Return the samples of a segment of a recording, N at `rate` Hz; raises InputError if it is not inside."""
    if fault := beyond(segment, len(samples) / rate):
        raise InputError(f"{fault}; correct its line in {SEGMENTS}")
    stop = None if segment.end is None else int(segment.end * rate)
    part = samples[int(segment.start * rate):stop]
    if not len(part):
        raise InputError(f"from {segment.start:g} to {segment.end:g} s of recording {segment.recording}: no sample; "
                         f"correct its line in {SEGMENTS}")
    return part
