"""The recordings of a corpus for the recipe egs/mycorpus: found, measured, and without those that cannot be used."""

import argparse
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.audio_sketches import same_recordings
from local.audio_survey import Measured, survey
from local.corpus_summary import Entry
from local.own_corpus import (
    Naming,
    Recording,
    Table,
    find_recordings,
    make_ids,
    pattern_of,
    read_table,
    shown_name,
    speaker_ids,
)
from local.preflight import judge
from utils.errors import InputError, first_five
from utils.files import encodable

GENDERS = {"f": "f", "female": "f", "w": "f", "woman": "f", "m": "m", "male": "m", "man": "m"}


@dataclass
class Corpus:
    """All recordings, row by row, and what has been found out about them."""

    recordings: list[Recording]
    tests: set[int]                 # rows below --test
    paths: list[str]                # as wav.scp names them: the file, or a link to it
    measured: list[Measured]
    remarks: list[str]
    ids: list[str] = field(default_factory=list)
    speakers: dict[str, str] = field(default_factory=dict)  # name -> id
    out: dict[int, str] = field(default_factory=dict)       # row -> why it is left out
    copies: list[int] = field(default_factory=list)         # row -> number that copies of one recording share
    reasons: list[str] = field(default_factory=list)        # not to train

    def attempt(self, check: Callable[[], str]) -> None:
        """Run a check: what it returns becomes a remark, the message of its InputError a reason not to train."""
        try:
            self.remarks += filter(None, [check()])
        except InputError as error:
            self.reasons.append(str(error))

    def entries(self, rows: Sequence[int]) -> list[Entry]:
        """Return these rows for the summary."""
        return [Entry(self.recordings[row], self.measured[row]) for row in rows]

    def usable(self, test: bool | None = None) -> list[int]:
        """Return the rows in use: all, or those below --test, or the others."""
        return [row for row in range(len(self.recordings))
                if row not in self.out and (test is None or (row in self.tests) == test)]


def tabled(path: str, links: Path) -> str:
    """Return a path that wav.scp can hold: itself, or that of a link to it with a plain name."""
    if path.isprintable() and encodable(path) and path == path.strip() and not path.endswith("|"):
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
    link = links / f"{name}{os.path.splitext(path)[1] if os.path.splitext(path)[1].isalnum() else ''}"
    links.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or os.readlink(link) != path:
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return str(link.absolute())


def read_corpus(arguments: argparse.Namespace) -> Corpus:
    """Find and measure all recordings; raises InputError if there are none or nothing names the speakers."""
    if arguments.speaker_level and arguments.speaker_regex:
        raise InputError("--speaker-level and --speaker-regex both name the speakers; give one of them")
    if arguments.test and arguments.test.exists() and arguments.test.samefile(arguments.corpus):
        raise InputError(f"--corpus and --test are both {arguments.test}; name another folder, or leave --test out: "
                         "test speakers are held out then")
    naming = Naming(arguments.speaker_level, pattern_of(arguments.speaker_regex) if arguments.speaker_regex else None,
                    read_table(arguments.meta, arguments.corpus, arguments.test) if arguments.meta else None)
    found, remarks = find_recordings(arguments.corpus, naming, skip=arguments.test)
    tests: list[Recording] = []
    if arguments.test:
        tests, more = find_recordings(arguments.test, naming)
        remarks += [f"tests: {remark}" for remark in more]
    recordings = [*found, *tests]
    paths = [tabled(one.path, arguments.data / "links") for one in recordings]
    measured = survey(paths, arguments.data / "survey.jsonl", arguments.nj)
    corpus = Corpus(recordings, set(range(len(found), len(recordings))), paths, measured, remarks)
    if naming.table:
        known = {os.path.abspath(one.path) for one in recordings}
        corpus.attempt(lambda: judge(f"rows of {arguments.meta} name files that are not there",
                                     [path for path in naming.table.by_path if path not in known],
                                     len(naming.table.by_path), arguments.max_missing, "--max-missing",
                                     "correct their paths, which start from the corpus"
                                     + (" or from the folder of --test" if arguments.test else "")))
        corpus.remarks += speakers_on_one_side(naming.table, recordings)
    return corpus


def speakers_on_one_side(table: Table, recordings: Sequence[Recording]) -> list[str]:
    """Return remarks on the speakers of a table by speaker who have no recordings, and on those it does not list."""
    if table.by_path:
        return []
    heard = {one.speaker for one in recordings if one.speaker.strip()}
    sides = ((sorted(table.by_speaker.keys() - heard), f"of {len(table.by_speaker)} speakers of {table.path} have no "
              "recordings"),
             (sorted(heard - table.by_speaker.keys()), f"of {len(heard)} speakers are not in {table.path}"))
    return [f"{len(names)} {what}: {first_five(map(shown_name, names))}" for names, what in sides if names]


def leave_out(corpus: Corpus, arguments: argparse.Namespace) -> None:
    """Find what cannot be used: faults, files without a speaker, and recordings of two speakers; then make the ids."""
    bad = []
    for row, (one, measured) in enumerate(zip(corpus.recordings, corpus.measured, strict=True)):
        fault = measured.fault or ("silent" if measured.silent else "no speaker" if not one.speaker.strip() else "")
        if fault:
            corpus.out[row] = fault
            bad.append(f"{shown_name(one.name)} ({fault})")
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(corpus.out.values()).most_common(4))
    corpus.attempt(lambda: judge(f"recordings cannot be used ({kinds})", bad, len(corpus.recordings),
                                 arguments.max_missing, "--max-missing", "repair or remove them"
                                 + (", or name their speakers in another way" if "no speaker" in kinds else "")))
    named = [row for row, one in enumerate(corpus.recordings) if one.speaker.strip()]
    chosen = [corpus.recordings[row] for row in named]
    corpus.speakers = speaker_ids(chosen)
    corpus.ids = [""] * len(corpus.recordings)
    for row, name in zip(named, make_ids(chosen), strict=True):
        corpus.ids[row] = name
    leave_out_copies(corpus, arguments.max_duplicates)


def leave_out_copies(corpus: Corpus, limit: float) -> None:
    """Leave out recordings that two speakers have, all copies of each, and identical copies within a speaker."""
    rows = corpus.usable()
    corpus.copies = list(range(len(corpus.recordings)))
    shared, alike = [], []
    heard = [corpus.measured[row] for row in rows]
    for group in same_recordings([one.sounding for one in heard], [one.words() for one in heard]):
        own = [rows[place] for place in group]
        for row in own:
            corpus.copies[row] = own[0]
        if len({corpus.recordings[row].speaker for row in own}) > 1:
            shared.append(own)
            continue
        seen: set[str] = set()
        for row in own:
            digest = corpus.measured[row].digest
            if digest in seen:
                corpus.out[row] = "the same samples as another recording of the speaker"
            seen.add(digest)
        alike += [own] * (len(seen) > 1)
    corpus.out |= {row: "also a recording of another speaker" for own in shared for row in own}
    among = [" = ".join(f"{shown_name(corpus.recordings[row].name)} ({shown_name(corpus.recordings[row].speaker)})"
                        for row in sorted(own, key=lambda row: corpus.recordings[row].speaker)[:3]) for own in shared]
    wrong = [name for own, name in zip(shared, among, strict=True) for _ in own]
    if wrong:
        corpus.attempt(lambda: judge_copies(among, len(wrong), len(rows), limit))
    same = sum(why.startswith("the same samples") for why in corpus.out.values())
    if same:
        corpus.remarks.append(f"{same} recordings have the same samples as another one of their speaker and are left "
                              "out")
    if alike:
        corpus.remarks.append(f"{len(alike)} recordings of one speaker are there in several versions (format, level, "
                              "microphone); no two versions of one make a trial")


def judge_copies(among: Sequence[str], files: int, total: int, limit: float) -> str:
    """Report recordings that two speakers have, and return the sentence on them.

    Raises InputError if their share of the files is above `limit`.
    """
    message = (f"{files} of {total} recordings belong to two speakers, compared by their sound: {first_five(among)}")
    if files > limit * total:
        raise InputError(f"{message}; remove the wrong ones, or leave all of them out with --max-duplicates "
                         f"{min(1, -(-files * 1000 // total) / 1000):g}")
    print(f"warning: {message}", file=sys.stderr)
    return message


def known_of(corpus: Corpus, rows: Sequence[int]) -> dict[str, dict[str, str]]:
    """Return speaker id -> the further columns that say the same in all of the speaker's rows; genders as f and m."""
    values: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        one = corpus.recordings[row]
        cells = values.setdefault(corpus.speakers[one.speaker], {})
        for name, value in one.more.items():
            cells.setdefault(name, set()).add(GENDERS.get(value.lower(), value) if name == "gender" else value)
    return {speaker: {name: own.copy().pop() for name, own in cells.items() if len(own) == 1 and own != {""}}
            for speaker, cells in values.items()}
