"""Repair a data directory as far as possible without knowledge of the corpus.

Sorts each table, drops carriage returns, blank lines, tabs between fields, duplicate lines of an utterance
and lines without a value or with a bad id, then every utterance that some table lacks; creates spk2utt
from utt2spk. Dropped items are counted and named; the old files are kept in <data>/.backup, those of later
runs in .backup.2, .backup.3 and so on.
With segments, recordings without one are dropped, too, and segments outside of their recording (reco2dur).
Trial lists lose only their carriage returns and blank lines: no trial is ever dropped.
e.g.: python3 -m utils.kaldi.fix_data_dir data/train
"""

import argparse
import shutil
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

from utils.errors import InputError, first_five, run_main
from utils.files import encodable
from utils.kaldi.data_dir import ONE_WORD, TABLES, DataDir, write_data_dir
from utils.kaldi.segments import DURATIONS, OF_RECORDINGS, SEGMENTS, beyond, segments_of
from utils.kaldi.table_values import BAD_ID, VALUE_CHECKS
from utils.kaldi.trials import list_files
from utils.kaldi.validate_data_dir import validate


def fix(folder: Path) -> list[str]:
    """Repair a data directory; return one line per kind of dropped item.

    Raises InputError, and changes nothing, if the result would not be valid.
    """
    tables, notes = {}, []
    for name in TABLES:
        if (folder / name).is_file():
            tables[name], more = mend_table(folder / name)
            notes += more
    if (folder / SEGMENTS).is_file():
        notes += fit_segments(folder, tables)
    if "utt2spk" not in tables:
        raise InputError(f"{folder}/utt2spk is missing; run the stage that makes it first")
    ids = sorted(set.intersection(*(set(table) for table in tables.values())))
    if not ids:
        raise InputError(f"{folder}: no utterance is in all of {', '.join(tables)}; run the stage that makes "
                         "them again")
    for name, table in tables.items():
        lost = sorted(set(table).difference(ids))
        if lost:
            notes.append(f"{name}: dropped {len(lost)} of {len(table)} utterances that another table lacks: "
                         f"{first_five(lost)}")
    data = DataDir(ids, {name: [table[one] for one in ids] for name, table in tables.items()})
    lists = {path.name: mended_trials(path) for path in list_files(folder)}
    backup = keep([folder / name for name in (*tables, "spk2utt")] + list_files(folder), folder)
    try:
        write_data_dir(folder, data, lists)
    except BaseException:
        shutil.rmtree(backup)
        raise
    return [*notes, f"{len(ids)} utterances written; the old files are in {backup}"]


def fit_segments(folder: Path, tables: dict[str, dict[str, str]]) -> list[str]:
    """Drop segments that are not inside a known recording; give wav.scp and reco2dur a value per utterance.

    Return one line per kind of dropped item.
    """
    notes, segments = [], tables[SEGMENTS]
    if (folder / DURATIONS).is_file():
        tables[DURATIONS], notes = mend_table(folder / DURATIONS)
    faults: dict[str, list[str]] = {}
    for name, segment in zip(list(segments), segments_of(segments.values()), strict=True):
        known = [table for table in OF_RECORDINGS if table in tables]
        unknown = [table for table in known if segment.recording not in tables[table]]
        if unknown:
            faults.setdefault(f"segments of recordings that {unknown[0]} lacks", []).append(name)
        elif DURATIONS in tables and beyond(segment, float(tables[DURATIONS][segment.recording])):
            faults.setdefault("segments that are not inside their recording", []).append(name)
        else:
            continue
        del segments[name]
    left = {name: segment.recording for name, segment in zip(segments, segments_of(segments.values()), strict=True)}
    for table in OF_RECORDINGS:
        if table in tables:
            if unused := sorted(set(tables[table]).difference(left.values())):
                faults.setdefault(f"recordings of {table} without a segment", []).extend(unused)
            tables[table] = {name: tables[table][recording] for name, recording in left.items()}
    return [*notes, *(f"{SEGMENTS}: dropped {len(items)} {what}: {first_five(items)}"
                      for what, items in faults.items())]


def keep(paths: list[Path], folder: Path) -> Path:
    """Copy those of `paths` that exist to a new folder in `folder`: .backup, or .backup.2 ... if it exists."""
    names = chain([".backup"], (f".backup.{number}" for number in count(2)))
    backup = next(path for name in names if not (path := folder / name).exists())
    backup.mkdir()
    for path in filter(Path.exists, paths):
        (backup / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, backup / path.relative_to(folder))
    return backup


def mend_table(path: Path) -> tuple[dict[str, str], list[str]]:
    """Read the valid lines of a table; return utterance -> value and one line per kind of fault."""
    table: dict[str, str] = {}
    faults: dict[str, list[str]] = {}
    check = VALUE_CHECKS.get(path.name, (bool, ""))[0]
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        line = raw.replace(b"\r", b"").decode("utf-8", errors="replace")
        name, *rest = line.split(maxsplit=1) or [""]
        value = rest[0].strip() if rest else ""
        if not name:
            continue
        if not value or BAD_ID.search(name):
            faults.setdefault("lines without a value or with a bad id", []).append(f"line {number}")
        elif "\ufffd" in line or "\0" in line:
            faults.setdefault("lines that are not UTF-8 or hold a NUL byte", []).append(f"line {number}")
        elif (path.name in ONE_WORD and len(value.split()) > 1) or not check(value):
            faults.setdefault("lines with a bad value", []).append(name)
        elif name in table:
            faults.setdefault("duplicate lines of an utterance", []).append(name)
        else:
            table[name] = value
    return table, [f"{path.name}: dropped {len(items)} {what}: {first_five(items)}"
                   for what, items in faults.items()]


def mended_trials(path: Path) -> Iterator[str]:
    """Yield the lines of a trial list without carriage returns and blank lines; raises InputError if not UTF-8."""
    with open(path, encoding="utf-8", newline="\n", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not encodable(line):
                raise InputError(f"{path}:{number}: not UTF-8; correct the line")
            if line.strip():
                yield f"{line.strip()}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="data directory")
    folder = parser.parse_args().folder
    try:
        print(validate(folder))
    except InputError as fault:
        print(f"repairing: {fault}")
        for note in fix(folder):
            print(f"{folder}: {note}")
        print(validate(folder))


if __name__ == "__main__":
    run_main(main)
