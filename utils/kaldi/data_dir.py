"""Kaldi data directories: read strictly, written completely or not at all.

A directory holds text tables, one line per utterance, sorted by utterance in C order:

    utt2spk          id10270-x6uYqmx31kE-00001 id10270
    wav.scp          id10270-x6uYqmx31kE-00001 /corpora/VoxCeleb1/wav/id10270/x6uYqmx31kE/00001.wav
    feats.scp        id10270-x6uYqmx31kE-00001 data/mfcc24/test/feats.1.ark:26
    vad.scp          id10270-x6uYqmx31kE-00001 data/mfcc24/test/vad.1.ark:26
    utt2num_frames   id10270-x6uYqmx31kE-00001 827
    utt2speed        sp0.9-id10270-x6uYqmx31kE-00001 0.9     (audio played 0.9 times as fast)
    utt2formants     sp1x0.9-id10270-x6uYqmx31kE-00001 0.9   (resonances at 0.9 times their frequency, after utt2speed)
    utt2augment      id10270-x6uYqmx31kE-00001-noise {"kind": "noise", ...}     (see utils/features/augment.py)
    segments         id10270-call7-0012 call7 12.3 17.85     (see utils/kaldi/segments.py)

and spk2utt, the inverse of utt2spk; utils/kaldi/option_files.py has feats.conf and vad.conf. A path in wav.scp is the
rest of its line and may hold spaces.
With segments, wav.scp and reco2dur have a line per recording; in memory, they have a value per utterance as well.
`trials/<list>` (see utils/kaldi/trials.py) names pairs of the directory's utterances.

Memory: one list of ids and one list of values per table, about 200 bytes per utterance and table.
"""

import operator
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby, islice, repeat, zip_longest
from pathlib import Path

from utils.errors import InputError, first_five
from utils.files import encodable, write_aside
from utils.kaldi.segments import DURATIONS, OF_RECORDINGS, SEGMENTS, by_recording, check_ends, segments_of
from utils.kaldi.table_values import BAD_ID, VALUE_CHECKS
from utils.kaldi.trials import check_trials

CHANGES = {"utt2speed": "1", "utt2formants": "1", "utt2augment": "{}"}  # changes to the audio -> value for "unchanged"
KEY_FILES = ("feats.scp", "wav.scp")  # written last: if one exists, the directory is complete
TABLES = ("utt2spk", "utt2num_frames", *CHANGES, SEGMENTS, "vad.scp", *KEY_FILES)
ALL_TABLES = (*TABLES, DURATIONS)  # reco2dur is read only with segments
AUDIO_TABLES = ("wav.scp", SEGMENTS, DURATIONS)  # where an utterance's audio is
ONE_WORD = ("utt2spk", "utt2num_frames", "utt2speed", "utt2formants", DURATIONS)
TrialLists = Mapping[str, Iterable[str]]  # name of a list -> its lines


def repair(folder: Path | str) -> str:
    """Return the end of a message about a fault that fix_data_dir repairs."""
    return f"repair: python3 -m utils.kaldi.fix_data_dir {folder}"


@dataclass
class DataDir:
    """The tables of a data directory, aligned: row i of each column belongs to ids[i]."""

    ids: list[str]                  # utterances, in C order
    columns: dict[str, list[str]]   # table name -> values; utt2spk is always there

    @property
    def speakers(self) -> list[str]:
        """The speaker of each utterance."""
        return self.columns["utt2spk"]

    def select(self, rows: Sequence[int]) -> "DataDir":
        """Return the utterances with these row numbers, in this order."""
        return DataDir([self.ids[row] for row in rows],
                       {name: [column[row] for row in rows] for name, column in self.columns.items()})

    def in_order(self) -> "DataDir":
        """Return the same utterances sorted by id."""
        return self.select(sorted(range(len(self.ids)), key=self.ids.__getitem__))

    def by_speaker(self) -> Iterator[tuple[str, range]]:
        """Yield each speaker with its row numbers."""
        start = 0
        for speaker, group in groupby(self.speakers):
            stop = start + sum(1 for _ in group)
            yield speaker, range(start, stop)
            start = stop

    def spk2utt(self) -> Iterator[str]:
        """Yield the lines of spk2utt."""
        for speaker, rows in self.by_speaker():
            yield f"{speaker} {' '.join(self.ids[rows.start:rows.stop])}\n"


def read_text(path: Path, way_out: str = "") -> str:
    """Read a text file of whole UTF-8 lines with LF ends; raises InputError naming file and line.

    way_out: what to do about lines that end otherwise (default: repair the data directory).
    """
    if not path.is_file():
        how = repair(path.parent) if path.name == "spk2utt" else "run the stage that makes it first"
        raise InputError(f"{path} is missing; {how}")
    content = path.read_bytes()
    if not content:
        raise InputError(f"{path} is empty; run the stage that makes it again")
    if b"\r" in content:
        line = content.count(b"\n", 0, content.index(b"\r")) + 1
        raise InputError(f"{path}:{line}: carriage return (Windows line end); {way_out or repair(path.parent)}")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise InputError(f"{path}:{line}: a NUL byte, not allowed in ids, paths and numbers; correct the line")
    if not content.endswith(b"\n"):
        raise InputError(f"{path}: no line end after the last line, the file may be cut short; "
                         f"{way_out or repair(path.parent)}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8; rename the file that it names and prepare the data "
                         "again") from error


def read_column(path: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Read a table of `id value` lines: the ids, sorted and unique, and their values.

    A value is the rest of the line, a single word in utt2spk, utt2num_frames and utt2speed.
    Raises InputError naming file, line, fault and remedy.
    """
    path = Path(path)
    lines = read_text(path)[:-1].split("\n")
    parts = [line.partition(" ") for line in lines]
    ids, values = [part[0] for part in parts], [part[2].strip(" ") for part in parts]
    word = path.name in ONE_WORD
    fine = (all(ids) and all(values) and not BAD_ID.search("\n".join(ids)) and ascending(ids)
            and not (word and " " in "".join(values)))
    if not fine:
        raise InputError(_first_fault(path, lines, ids, values, word))
    check, meaning = VALUE_CHECKS.get(path.name, (None, ""))
    if check:
        # utt2spk has few different values, so checking each once is fast
        wrong = {value for value in set(values) if not check(value)}
        if wrong:
            row = next(row for row, value in enumerate(values) if value in wrong)
            raise InputError(f"{path}:{row + 1}: {values[row]!r} is not {meaning}; {repair(path.parent)}")
    return ids, values


def check_column(path: Path, ids: Sequence[str], values: Sequence[str]) -> None:
    """Check a table before it is written; raises InputError if `read_column` would refuse or change it.

    `check_data_dir` checks the order of the ids.
    """
    def fits(text: str, number: int) -> bool:  # text: `number` items joined with line ends
        return text.count("\n") == number - 1 and "\r" not in text and "\0" not in text and encodable(text)

    check, meaning = VALUE_CHECKS.get(path.name, (bool, "a value"))
    names, text = "\n".join(ids), "\n".join(values)
    word = path.name in ONE_WORD
    if (all(ids) and fits(names, len(ids)) and not BAD_ID.search(names) and fits(text, len(ids))
            and all(map(check, set(values))) and all(map(str.__eq__, values, map(str.strip, values, repeat(" "))))
            and not (word and " " in text)):
        return
    for name, value in zip(ids, values, strict=True):
        if not name or "\n" in name or BAD_ID.search(name) or not encodable(name):
            raise InputError(f"{path}: id {name!r}: an id is one word without blanks, `/`, `..` and control "
                             "characters; rename its source, such as the speaker's folder, and prepare the data "
                             "again")
        if not check(value) or (word and " " in value):
            raise InputError(f"{path}: {name}: {value!r} is not {meaning}; rename or correct it and prepare the data "
                             "again")
        if not fits(value, 1) or value != value.strip(" "):
            raise InputError(f"{path}: {name}: {value!r} holds a line end, a NUL, bytes that are not UTF-8 or a "
                             "space at an end; rename the file and prepare the data again")


def ascending(items: Sequence[str]) -> bool:
    """Whether each item is above the one before: sorted in C order, without duplicates."""
    return all(map(operator.lt, items, islice(items, 1, None)))


def _first_fault(path: Path, lines: list[str], ids: list[str], values: list[str], word: bool) -> str:
    for row, (name, value) in enumerate(zip(ids, values, strict=True)):
        where, before = f"{path}:{row + 1}", ids[row - 1] if row else ""
        if "\t" in lines[row].split(" ")[0]:
            return f"{where}: a tab instead of a space between the fields; {repair(path.parent)}"
        if not name or not value:
            return f"{where}: missing field in {lines[row]!r}; {repair(path.parent)}"
        if BAD_ID.search(name):
            return f"{where}: id {name!r} holds a blank, `/` or `..`; rename it and prepare the data again"
        if word and " " in value:
            return f"{where}: {len(value.split()) + 1} fields, expected 2; {repair(path.parent)}"
        if name == before:
            return f"{where}: duplicate id {name}; {repair(path.parent)}"
        if name < before:
            return f"{where}: {name} after {before}: not sorted (LC_ALL=C); {repair(path.parent)}"
    raise AssertionError(f"{path}: no fault found")


def read_data_dir(folder: str | os.PathLike) -> DataDir:
    """Read every table of a data directory and check it; raises InputError at the first fault.

    Required: utt2spk, spk2utt (its inverse), and wav.scp or feats.scp. Every table must have the same ids.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory; run the stage that makes it first")
    ids, speakers = read_column(folder / "utt2spk")
    columns = {"utt2spk": speakers}
    segmented = (folder / SEGMENTS).exists()
    for name in TABLES[1:]:
        if (folder / name).exists() and not (segmented and name in OF_RECORDINGS):
            theirs, columns[name] = read_column(folder / name)
            if theirs != ids:
                raise InputError(_difference(folder / name, theirs, ids))
    for name in OF_RECORDINGS:
        if segmented and (folder / name).exists():
            columns[name] = read_recordings(folder / name, columns[SEGMENTS])
    data = DataDir(ids, columns)
    check_data_dir(data, folder)
    path = folder / "spk2utt"
    for row, (line, wanted) in enumerate(zip_longest(read_text(path)[:-1].split("\n"), data.spk2utt())):
        if line is None or wanted is None or line.split() != wanted.split():
            raise InputError(f"{path}:{row + 1}: not the inverse of utt2spk; {repair(folder)}")
    return data


def read_recordings(path: Path, segments: Sequence[str]) -> list[str]:
    """Read a table with a line per recording; return the value of each segment's recording.

    Raises InputError if it lists other recordings than `segments`.
    """
    recordings, values = read_column(path)
    wanted = [segment.recording for segment in segments_of(segments)]
    value_of = dict(zip(recordings, values, strict=True))
    absent, unused = sorted(set(wanted) - set(recordings)), sorted(set(recordings) - set(wanted))
    if absent:
        raise InputError(f"{path}: lacks {len(absent)} recordings of segments: {first_five(absent)}; "
                         f"{repair(path.parent)}")
    if unused:
        raise InputError(f"{path}: no segment of {len(unused)} recordings: {first_five(unused)}; {repair(path.parent)}")
    return [value_of[recording] for recording in wanted]


def read_audio_table(folder: str | os.PathLike) -> tuple[list[str], list[str], list[str] | None]:
    """Return the utterances of a data directory, the path or command with the audio of each, and its segment.

    The segments are None where each utterance is a whole file. Raises InputError.
    """
    folder = Path(folder)
    if not (folder / SEGMENTS).exists():
        return *read_column(folder / "wav.scp"), None
    ids, segments = read_column(folder / SEGMENTS)
    return ids, read_recordings(folder / "wav.scp", segments), segments


def _difference(path: Path, theirs: list[str], ids: list[str]) -> str:
    known = set(ids)
    strange = next((row for row, name in enumerate(theirs) if name not in known), None)
    if strange is not None:
        return f"{path}:{strange + 1}: {theirs[strange]} is not in utt2spk; {repair(path.parent)}"
    absent = sorted(known.difference(theirs))
    return f"{path}: lacks {len(absent)} utterances of utt2spk: {first_five(absent)}; {repair(path.parent)}"


def check_data_dir(data: DataDir, folder: str | os.PathLike) -> None:
    """Check the tables together; raises InputError naming the directory and the utterance.

    Required: utterances, in order; a table with the location of the data; each speaker a prefix of its
    utterances, so that sorting by utterance also sorts by speaker, as Kaldi's tools expect.
    """
    ids, speakers = data.ids, data.speakers
    if not ids:
        raise InputError(f"{folder}: no utterances left")
    if not any(name in data.columns for name in KEY_FILES):
        raise InputError(f"{folder}: neither wav.scp nor feats.scp; run the stage that makes it again")
    if SEGMENTS in data.columns:
        segments = segments_of(data.columns[SEGMENTS])
        for name in OF_RECORDINGS:
            by_recording(segments, data.columns.get(name, [""] * len(ids)), f"{folder}/{name}")
        if DURATIONS in data.columns:
            check_ends(ids, segments, data.columns[DURATIONS], f"{folder}/{SEGMENTS}")
    if not ascending(ids):
        row = next(row for row in range(1, len(ids)) if ids[row] <= ids[row - 1])
        raise InputError(f"{folder}: two utterances with the id {ids[row]}; give one input a prefix "
                         "(python3 -m utils.kaldi.copy_data_dir --utt-prefix)")
    if not all(map(str.startswith, ids, speakers)):
        row = next(row for row, name in enumerate(ids) if not name.startswith(speakers[row]))
        raise InputError(f"{folder}/utt2spk:{row + 1}: speaker {speakers[row]} is not a prefix of utterance "
                         f"{ids[row]}; rename it {speakers[row]}-{ids[row]} in every table")
    if not all(map(operator.le, speakers, islice(speakers, 1, None))):
        row = next(row for row in range(1, len(ids)) if speakers[row] < speakers[row - 1])
        raise InputError(f"{folder}/utt2spk:{row + 1}: speaker {speakers[row]} after {speakers[row - 1]} "
                         "is not in order; rename them so that neither is a prefix of the other")


def write_data_dir(folder: str | os.PathLike, data: DataDir, trials: TrialLists | None = None) -> None:
    """Write one data directory, like `write_data_dirs`."""
    write_data_dirs({Path(folder): (data, trials or {})})


def write_data_dirs(sets: Mapping[Path, tuple[DataDir, TrialLists]]) -> None:
    """Write data directories, each with its tables, spk2utt and trial lists (name -> lines).

    All are checked and written to temporary folders before the first is published: on an error nothing changes.
    Raises InputError naming the id, the rule and the remedy if readers would refuse a directory.
    Publishing replaces all tables and trial lists of a directory and does not touch other files (ark, log).
    """
    for folder, (data, _) in sets.items():
        for name, column in data.columns.items():
            check_column(Path(folder) / name, data.ids, column)
        check_data_dir(data, folder)
    with ExitStack() as stack:
        for folder, (data, trials) in sets.items():
            staging = stack.enter_context(_staged(folder))
            for name, column in data.columns.items():
                lines = zip(data.ids, column, strict=True)
                if SEGMENTS in data.columns and name in OF_RECORDINGS:
                    lines = by_recording(segments_of(data.columns[SEGMENTS]), column, f"{folder}/{name}").items()
                with write_aside(staging / name) as stream:
                    stream.writelines(f"{one} {value}\n" for one, value in lines)
            with write_aside(staging / "spk2utt") as stream:
                stream.writelines(data.spk2utt())
            for name, lines in trials.items():
                with write_aside(staging / "trials" / name) as stream:
                    stream.writelines(lines)
                try:
                    check_trials(staging / "trials" / name, data.ids)
                except InputError as error:
                    raise InputError(str(error).replace(str(staging), str(folder))) from error


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside `folder`; at the end move its files there.

    The key file is removed first and written last, so that no reader sees a mixture of old and new files.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a directory")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staged.", dir=folder))
    try:
        yield staging
        stale = [DURATIONS] * (staging / SEGMENTS).exists()
        for name in (*reversed(TABLES), "spk2utt", *stale):
            if name in KEY_FILES or not (staging / name).exists():
                (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "trials", ignore_errors=True)
        for path in sorted(staging.iterdir(), key=lambda path: path.name in KEY_FILES):
            os.replace(path, folder / path.name)
        staging.rmdir()
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        for path in missing:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise


def spread(rows: Sequence[int], number: int) -> list[int]:
    """Return `number` evenly spaced rows, starting with the first."""
    return [rows[i * len(rows) // number] for i in range(number)]


def separate(output: str | os.PathLike, inputs: Iterable[str | os.PathLike]) -> None:
    """Raise InputError if `output` is one of `inputs`, since writing would destroy the input."""
    for folder in inputs:
        if Path(output).resolve() == Path(folder).resolve():
            raise InputError(f"{output} is both input and output; name another output directory")
