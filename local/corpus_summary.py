"""Summarise a corpus before training: its size, doubtful recordings, and reasons not to train on it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from local.audio_survey import CLIPPED, Measured
from local.own_corpus import Recording, look_alikes, shown_name
from utils.audio import SAMPLE_RATE
from utils.errors import first_five

FEW_SPEAKERS = 50        # below, results say little
LONG, SHORT = 600, 1     # seconds
LEAST_SPEAKERS = 10      # of a corpus whose test speakers are held out: 4 tested, 2 that validate, 4 trained on
LEAST_TRAINED = 8        # of a training corpus with test speakers of its own
LEAST_SEVERAL = 5        # training speakers with two recordings or more
LEAST_SECONDS = 60
QUANTILES = (0, 10, 50, 90, 100)


class Entry(NamedTuple):
    """A recording that is used, with its measurements."""

    recording: Recording
    measured: Measured


def table_of(rows: Iterable[tuple[str, Sequence[float], str]]) -> list[str]:
    """Return lines with the quantiles of some quantities: (name, values, format)."""
    lines = [f"{'':24}{'least':>9}{'10 %':>9}{'median':>9}{'90 %':>9}{'most':>9}"]
    for name, values, form in rows:
        lines.append(f"{name:24}" + "".join(f"{value:9{form}}" for value in np.percentile(values, QUANTILES)))
    return lines


def counted(values: Iterable[object]) -> str:
    """Return `12 wav, 3 flac`, the most frequent first."""
    return ", ".join(f"{number} {value}" for value, number in Counter(values).most_common(6))


def sessions_of(entries: Sequence[Entry]) -> dict[str, set[str]]:
    """Return speaker -> sessions, those that are known."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in entries:
        found[one.recording.speaker] |= {one.recording.session} - {""}
    return found


def contents(title: str, entries: Sequence[Entry]) -> list[str]:
    """Return the lines about usable recordings: numbers, quantiles, formats."""
    of_speaker: dict[str, list[float]] = defaultdict(list)
    for one in entries:
        of_speaker[one.recording.speaker].append(one.measured.seconds)
    seconds = [one.measured.seconds for one in entries]
    sessions = sessions_of(entries)
    known = sum(map(len, sessions.values()))
    lines = [f"{title}: {len(of_speaker)} speakers, {len(entries)} recordings, {sum(seconds) / 3600:.2f} hours, "
             f"{known or 'no known'} sessions", ""]
    rows: list[tuple[str, Sequence[float], str]] = [
        ("recordings per speaker", [len(own) for own in of_speaker.values()], ".0f"),
        ("minutes per speaker", [sum(own) / 60 for own in of_speaker.values()], ".1f"),
        ("seconds per recording", seconds, ".1f")]
    if known:
        rows.insert(1, ("sessions per speaker", [len(own) for own in sessions.values()], ".0f"))
    lines += [*table_of(rows), ""]
    for name, values in (("formats", (one.measured.kind for one in entries)),
                         ("rates", (f"at {one.measured.rate} Hz" for one in entries)),
                         ("channels", ("mono" if one.measured.channels == 1 else f"with {one.measured.channels}"
                                       for one in entries))):
        lines.append(f"{name:24}{counted(values)}")
    return lines


def remarks_on(entries: Sequence[Entry]) -> list[str]:
    """Return what deserves a look before training, each in one sentence."""
    found = []

    def remark(items: Sequence[str], what: str) -> None:
        if items:
            found.append(f"{len(items)} {what}: {first_five(map(shown_name, items))}")

    names = Counter(one.recording.speaker for one in entries)
    sessions = sessions_of(entries)
    remark([name for name, count in names.items() if count == 1],
           "speakers have one recording and give no target trial")
    if any(sessions.values()):
        remark([name for name, own in sessions.items() if len(own) == 1 and names[name] > 1],
               "speakers have one session, where a channel may be taken for a voice")
    elif entries:
        found.append("sessions are not known: if the recordings of a speaker were made at one place and time, the EER "
                     "is lower than for recordings of different days (--meta or --speaker-regex can name sessions)")
    remark(look_alikes(names), "names of speakers differ only in case, accents or blanks; one speaker each?")
    of = {kind: [one.recording.name for one in entries if test(one.measured)] for kind, test in (
        ("clipped", lambda one: one.clipped >= CLIPPED), ("short", lambda one: one.seconds < SHORT),
        ("long", lambda one: one.seconds > LONG), ("low", lambda one: one.rate < SAMPLE_RATE))}
    remark(of["clipped"], f"recordings are clipped ({CLIPPED:.1%} of the samples or more at the limit)")
    remark(of["short"], f"recordings are shorter than {SHORT} s")
    remark(of["long"], f"recordings are longer than {LONG // 60} minutes; an epoch takes one short chunk of each: cut "
                       "them")
    remark(of["low"], f"recordings have a rate below {SAMPLE_RATE} Hz, such as telephone speech; mixed rates may be "
                      "taken for voices" if len(of["low"]) < len(entries) else
                      f"recordings have a rate below {SAMPLE_RATE} Hz and are interpolated")
    return found


def reasons_against(train: Sequence[Entry], own_test: bool, folders: Sequence[str]) -> list[str]:
    """Return why training on these recordings cannot make sense, one line each.

    own_test: whether test speakers are given, so that none are held out of these; folders: the speakers that each level
    of folders would give, such as `12 at level 2`.
    """
    names = Counter(one.recording.speaker for one in train)
    several = [name for name, count in names.items() if count > 1]
    seconds = sum(one.measured.seconds for one in train)
    least = LEAST_TRAINED if own_test else LEAST_SPEAKERS
    found = []
    if len(names) < least:
        held = "" if own_test else ", some of them held out for tests"
        level = f", or name another level with --speaker-level: folders are {', '.join(folders)}" if folders else ""
        found.append(f"{len(names)} speakers ({first_five(map(shown_name, names))}) with {len(train)} usable "
                     f"recordings, wanted {least} speakers or more{held}; add recordings of others{level}")
    elif len(several) < LEAST_SEVERAL:
        found.append(f"{len(several)} of {len(names)} speakers have two recordings or more, wanted {LEAST_SEVERAL} or "
                     "more: how a voice varies can only be learnt from several; add recordings, or check how "
                     "speakers are named")
    if seconds < LEAST_SECONDS:
        found.append(f"{seconds:.1f} s of sound in all, wanted {LEAST_SECONDS} s or more; add recordings")
    return found
