"""Trials of test speakers whom nobody has listed: balanced, of different sessions, and a hard list; or a given list.

Every speaker has at most the same number of target trials, so that those with many recordings do not decide alone, and
as many non-targets as targets: each with a random recording of another random speaker (hard: of the same group).
"""

import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError

MOST_TARGETS = 20000
MOST_RECORDINGS = 60   # of a speaker, drawn at random, in trials
TRIES = 50             # draws for a non-target before none is made
LABELS = {"1": "target", "0": "nontarget", "target": "target", "nontarget": "nontarget"}
Trial = tuple[str, str, str]  # two utterances, target or nontarget


class Heard(NamedTuple):
    """A recording of a test speaker. Draws go by the order of the digests, so that they do not depend on names."""

    digest: str        # of the sound
    id: str
    speaker: str
    session: str       # empty: not known
    copy: int          # recordings with the same number are the same recording; no two of one speaker make a trial


def draw_targets(tests: Sequence[Heard], generator: random.Random, most: int = MOST_TARGETS,
                 ) -> list[tuple[Heard, Heard]]:
    """Return at most `most` pairs of one speaker, of different sessions if the speaker has several."""
    of_speaker: dict[str, list[tuple[Heard, Heard]]] = {}
    for speaker, own in by_speaker(tests).items():
        chosen = sorted(generator.sample(own, min(len(own), MOST_RECORDINGS)))
        pairs = [pair for pair in combinations(chosen, 2) if pair[0].copy != pair[1].copy]
        of_speaker[speaker] = [pair for pair in pairs if pair[0].session != pair[1].session] or pairs
    cap = fair_cap([len(pairs) for pairs in of_speaker.values()], most)
    return [pair for pairs in of_speaker.values() for pair in generator.sample(pairs, min(len(pairs), cap))]


def by_speaker(tests: Sequence[Heard]) -> dict[str, list[Heard]]:
    """Return speaker -> recordings, in the order of the digests."""
    found: dict[str, list[Heard]] = defaultdict(list)
    for one in sorted(tests):
        found[one.speaker].append(one)
    return dict(found)


def fair_cap(counts: Sequence[int], most: int) -> int:
    """Return the largest cap such that counts cut to it sum up to at most `most`."""
    cap = left = most
    for place, count in enumerate(sorted(counts)):
        cap = left // (len(counts) - place)
        if count > cap:
            return cap
        left -= count
    return max(counts, default=cap)


def draw_trials(tests: Sequence[Heard], seed: int, groups: Mapping[str, str] | None = None) -> list[Trial]:
    """Return sorted trials, as many non-targets as targets.

    groups: speaker -> group; non-targets are then of speakers of one group. Raises InputError if no trial can be made.
    """
    generator = random.Random(seed)
    targets = draw_targets(tests, generator)
    of_speaker = by_speaker(tests)
    rivals = {speaker: [other for other in of_speaker if other != speaker
                        and (groups is None or groups.get(other, "") == groups.get(speaker, "") != "")]
              for speaker in of_speaker}
    nontargets: dict[tuple[str, str], Trial] = {}
    for first, _ in targets:
        others = rivals[first.speaker]
        for _ in range(TRIES if others else 0):
            one = generator.choice(of_speaker[first.speaker])
            other = generator.choice(of_speaker[generator.choice(others)])
            pair = min(one.id, other.id), max(one.id, other.id)
            if pair not in nontargets and one.copy != other.copy:
                nontargets[pair] = (*pair, "nontarget")
                break
    number = min(len(targets), len(nontargets))
    if not number:
        raise InputError(f"the {len(of_speaker)} test speakers give {len(targets)} target and {len(nontargets)} "
                         "non-target trials; more speakers, two or more recordings of each, or --trials are needed")
    kept = generator.sample(targets, number)
    return sorted([*((one.id, other.id, "target") for one, other in kept), *list(nontargets.values())[:number]])


def group_of(more: Mapping[str, Mapping[str, str]], columns: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the columns in which hard non-targets agree, and speaker -> group.

    more: speaker -> what is known; columns: those asked for; without, gender, or else the first column that sorts the
    speakers into a few groups. Raises InputError for a column that nobody has.
    """
    known = list(dict.fromkeys(name for cells in more.values() for name in cells))
    for name in columns:
        if name not in known:
            raise InputError(f"--hard-by names {name!r}, which --meta does not tell of speakers; "
                             f"known: {', '.join(known) or 'nothing'}")
    if not columns:
        values = {name: len({cells.get(name, "") for cells in more.values()} - {""}) for name in known}
        few = [name for name in known if 2 <= values[name] <= len(more) / 3]
        columns = ["gender"] if values.get("gender", 0) > 1 else few[:1]
    groups = {speaker: "|".join(cells.get(name, "").lower() for name in columns) for speaker, cells in more.items()
              if all(cells.get(name) for name in columns)}
    return list(columns), groups if columns else {}


class Line(NamedTuple):
    """A line of a given list."""

    number: int
    first: str
    second: str
    label: str


def read_list(path: Path) -> list[Line]:
    """Read a trial list: `1|0 <path> <path>`, or `<path> <path> target|nontarget`, with tabs if paths hold blanks.

    Raises InputError naming the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a list with --trials") from error
    lines = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        words = line.split("\t") if "\t" in line else line.split()
        if not line.strip():
            continue
        if len(words) == 3 and words[0] in LABELS:
            words = [*words[1:], words[0]]
        if len(words) != 3 or words[2] not in LABELS:
            raise InputError(f"{path}:{number}: {line[:100]!r}; wanted `1|0 <path> <path>` or `<path> <path> "
                             "target|nontarget`, with tabs between them if a path holds a blank")
        lines.append(Line(number, words[0], words[1], LABELS[words[2]]))
    if not lines:
        raise InputError(f"{path}: no trials; name another list with --trials")
    return lines


def place_of(word: str, roots: Sequence[str], ids: Mapping[str, str]) -> str | None:
    """Return the id of a word of a list: an id, or a path, absolute or below one of `roots`, or without its ending.

    ids: of utterances by path, by path without ending and by id; None: unknown.
    """
    for place in (word, *(os.path.normpath(os.path.join(root, word)) for root in roots)):
        if place in ids:
            return ids[place]
    return None
