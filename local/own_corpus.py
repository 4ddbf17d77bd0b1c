"""Find the audio files of any folder, with the speaker and session of each, and make ids for Kaldi's tables.

A speaker is a folder (at a level below the corpus), a part of the path (a regular expression), or a cell of a table.
Ids are <speaker>-<session>-<recording>, or <speaker>-<recording> where sessions are not known; each part consists of
ASCII letters, digits and `_`. Names that would give the same id, or ids that differ only in case, get a number.
"""

import csv
import io
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.corpus import is_container
from utils.errors import InputError, first_five
from utils.files import encodable
from utils.recordings import ENDINGS, walk

LONGEST = 40  # characters of a part of an id
COLUMNS = ("path", "speaker", "session")


@dataclass(frozen=True)
class Recording:
    """An audio file. Names are as in the corpus; `speaker` is empty if nothing names one."""

    path: str                # as opened
    name: str                # relative to the corpus
    speaker: str
    session: str             # empty: not known
    more: dict[str, str] = field(default_factory=dict, compare=False)  # further columns of --meta


@dataclass(frozen=True)
class Naming:
    """How speakers are found: by `level` (1: the corpus's own folders; 0: found out), by `pattern`, or by `table`."""

    level: int = 0
    pattern: re.Pattern[str] | None = None
    table: "Table | None" = None


@dataclass(frozen=True)
class Table:
    """--meta: rows by absolute path, or, without a column `path`, by speaker."""

    path: Path
    by_path: dict[str, dict[str, str]]
    by_speaker: dict[str, dict[str, str]]


def pattern_of(text: str) -> re.Pattern[str]:
    """Return the compiled value of --speaker-regex; raises InputError unless it has a group for the speaker."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f"--speaker-regex {text!r}: {error}; correct it") from error
    if not pattern.groups:
        raise InputError(f"--speaker-regex {text!r} has no group; put the speaker into parentheses, for example "
                         "'^([^_]+)_' or '(?P<speaker>[^/_]+)_(?P<session>[^/]+)'")
    return pattern


def read_table(path: Path, base: Path, test: Path | None = None) -> Table:
    """Read --meta: tabs, semicolons or commas between cells, a header with the columns `path` or `speaker`.

    base: the folder that relative paths start from; those of files that it does not have start from the folder `test`.

    Raises InputError for another header, a row of another length, and a path or speaker that is listed twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a table with --meta") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    head = text.partition("\n")[0]
    sign = next((sign for sign in "\t;" if sign in head), ",")
    # Between tabs, a quote is a character like any other: sentences may begin with one.
    cells = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True,
                       quoting=csv.QUOTE_NONE if sign == "\t" else csv.QUOTE_MINIMAL)
    try:
        header, *rows = [[cell.strip() for cell in row] for row in cells if row] or [[]]
    except csv.Error as error:
        raise InputError(f"{path}: line {cells.line_num}: {error}; close the quote there, or the one before") from error
    names = [cell.lower() for cell in header]
    key = next((name for name in COLUMNS[:2] if name in names), None)
    if key is None or len(set(names)) < len(names):
        raise InputError(f"{path}: its first line has the columns {', '.join(header) or '(none)'}; wanted path and "
                         "speaker, or speaker alone, each column once")
    found: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise InputError(f"{path}: row {number} has {len(row)} cells, the first line {len(names)}; quote cells "
                             "that hold a separator")
        entry = dict(zip(names, row, strict=True))
        place = entry[key]
        if key == "path":
            place = os.path.abspath(base / entry[key])
            if test and not os.path.exists(place) and os.path.exists(test / entry[key]):
                place = os.path.abspath(test / entry[key])
        if not entry[key] or place in found:
            raise InputError(f"{path}: row {number}: {key} is {entry[key]!r}, "
                             f"{'listed twice' if entry[key] else 'empty'}; correct the row")
        found[place] = entry
    return Table(path, found if key == "path" else {}, found if key == "speaker" else {})


def find_recordings(root: Path, naming: Naming, skip: Path | None = None) -> tuple[list[Recording], list[str]]:
    """Return the audio files below `root`, sorted, and remarks on how speakers were found and what was left out.

    Raises InputError if it finds no audio, or cannot tell the speakers apart.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; name the one that holds the recordings")
    top, table, remarks = os.path.abspath(root), naming.table, []
    names, others = [], Counter()
    for name in walk(top, str(skip) if skip and skip.is_dir() else None):
        ending = os.path.splitext(name)[1].lower()
        if ending in ENDINGS or row_of(name, top, table):
            names.append(name)
        else:
            others[ending or "no ending"] += 1
    if not names:
        seen = ", ".join(f"{count} with {ending}" for ending, count in others.most_common(5)) or "no files at all"
        raise InputError(f"{root}: no audio ({' '.join(sorted(ENDINGS))}); it holds {seen}; name the folder of the "
                         "recordings")
    if others:
        remarks.append(f"{sum(others.values())} files are not audio by their ending: "
                       f"{', '.join(f'{count} {ending}' for ending, count in others.most_common(5))}")
    if table and table.by_path:
        names, remarks = in_table(names, table, root, top, remarks)
    level = naming.level
    by_table = bool(table and any("speaker" in row for row in table.by_path.values()))
    if not naming.pattern and not level and not by_table:
        level = guess_level(names, root)
        remarks.append(f"speakers are the folders at level {level}, such as {example(names, level)} "
                       "(another level: --speaker-level)")
    found = [identify(f"{top}/{name}", name, naming, level, row_of(name, top, table)) for name in names]
    return found, remarks


def in_table(names: Sequence[str], table: Table, root: Path, top: str, remarks: list[str],
             ) -> tuple[list[str], list[str]]:
    """Return the names that a table lists, and the remarks with those on the others.

    Raises InputError if the table lists none.
    """
    kept = [name for name in names if row_of(name, top, table)]
    if not kept:
        raise InputError(f"{table.path}: none of its {len(table.by_path)} paths is in {root}, such as "
                         f"{next(iter(table.by_path), '')!r}; wanted absolute paths, or relative ones, such as "
                         f"{names[0]!r}")
    if len(kept) < len(names):
        left = sorted(set(names) - set(kept))
        remarks = [*remarks, f"{len(left)} audio files are not in {table.path} and are left out: "
                             f"{first_five(map(shown_name, left))}"]
    return kept, remarks


def row_of(name: str, top: str, table: Table | None) -> dict[str, str]:
    """Return the cells of a file's row, {} without one; `name` starts from the folder `top`."""
    return table.by_path.get(f"{top}/{name}", {}) if table else {}


def guess_level(names: Sequence[str], root: Path) -> int:
    """Return the first level of folders that are several and not all called like parts of a corpus (dev, wav, ...)."""
    folders = [name.split("/")[:-1] for name in names]
    for level in range(1, 1 + max(map(len, folders))):
        own = {parts[level - 1] for parts in folders if len(parts) >= level}
        if len(own) > 1 and not all(map(is_container, own)):
            return level
    raise InputError(f"{root}: no level of folders tells speakers apart (the {len(names)} recordings are in "
                     f"{len({'/'.join(parts) for parts in folders})} folders, such as {names[0]!r}); name the speakers "
                     "by --speaker-regex or --meta, or a folder's level by --speaker-level")


def example(names: Sequence[str], level: int) -> str:
    """Return a speaker's folder, for messages."""
    deep = next(name for name in names if name.count("/") >= level)
    return shown_name("/".join(deep.split("/")[:level]))


def identify(path: str, name: str, naming: Naming, level: int, row: dict[str, str]) -> Recording:
    """Return the recording with its speaker and session; the speaker is empty if nothing names it."""
    speaker, session = row.get("speaker", ""), row.get("session", "")
    if naming.pattern:
        match = naming.pattern.search(name)
        groups = match.groupdict() if match else {}
        if match:
            speaker = (groups["speaker"] if "speaker" in groups else match[1]) or ""
        else:
            speaker = ""
        session = groups.get("session") or session
    elif level:
        parts = name.split("/")
        if len(parts) > level:
            speaker, session = parts[level - 1], session or "/".join(parts[level:-1])
        else:
            speaker = ""
    more = {key: value for key, value in row.items() if key not in COLUMNS}
    if naming.table and not more:
        cells = naming.table.by_speaker.get(speaker, {})
        more = {key: value for key, value in cells.items() if key not in COLUMNS}
    return Recording(path, name, speaker, session, more)


def shown_name(name: str) -> str:
    """Return a name as one line of messages can hold it."""
    return name if name.isprintable() and encodable(name) else ascii(name)


def plain(name: str) -> str:
    """Return a name in ASCII letters, digits and `_`: accents are dropped, other characters become their number.

    "José 2" is Jose_2, and "李" u674e. The result is not unique.
    """
    found = []
    for sign in unicodedata.normalize("NFKD", name):
        if sign.isascii():
            found.append(sign if sign.isalnum() else "_")
        elif not unicodedata.combining(sign):
            found.append(f"u{ord(sign):x}")
    return "".join(found)[:LONGEST] or "_"


def safe_names(names: Mapping[str, str]) -> dict[str, str]:
    """Return key -> part of an id, of key -> name. Parts are unique, also without regard to case."""
    parts: dict[str, str] = {}
    taken: set[str] = set()
    # Plain names first, so that they keep their form.
    for key, name in sorted(names.items(), key=lambda item: (plain(item[1]) != item[1], item[1], item[0])):
        part, number = plain(name), 1
        while part.lower() in taken:
            number += 1
            part = f"{plain(name)}_{number}"
        taken.add(part.lower())
        parts[key] = part
    return parts


def make_ids(recordings: Sequence[Recording]) -> list[str]:
    """Return the utterance id of each recording; `speaker_ids` gives the speakers'."""
    speakers = speaker_ids(recordings)
    sessions: dict[str, dict[str, str]] = defaultdict(dict)
    stems: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for one in recordings:
        sessions[one.speaker][one.session] = one.session
        stems[one.speaker, one.session][one.name] = os.path.splitext(os.path.basename(one.name))[0]
    of_session = {speaker: safe_names(names) for speaker, names in sessions.items()}
    of_file: dict[str, str] = {}
    for names in stems.values():
        of_file |= safe_names(names)
    return ["-".join([speakers[one.speaker], *([of_session[one.speaker][one.session]] if one.session else []),
                      of_file[one.name]]) for one in recordings]


def speaker_ids(recordings: Sequence[Recording]) -> dict[str, str]:
    """Return speaker -> id."""
    return safe_names({one.speaker: one.speaker for one in recordings})


def look_alikes(names: Iterable[str]) -> list[str]:
    """Return `A / B` for speakers whose names differ only in case, accents' encoding or blanks at an end."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        alike[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    return [" / ".join(map(repr, group)) for group in alike.values() if len(group) > 1]
