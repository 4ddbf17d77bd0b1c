"""Repair a data directory as far as that needs no knowledge of the corpus.

Sorts each table, drops carriage returns, blank lines, tabs between fields, second lines of an utterance
and lines without a value or with a bad id, then every utterance that some table lacks; makes spk2utt
anew from utt2spk. What was dropped is counted and named; the old files are kept in <data>/.backup.
Trial lists lose their carriage returns and blank lines only: no trial is ever dropped.
e.g.: python3 -m utils.fix_data_dir data/train
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from utils.data_dir import BAD_ID, ONE_WORD, TABLES, VALUE_CHECKS, DataDir, write_data_dir
from utils.errors import InputError, first_five, run_main
from utils.trials import list_files
from utils.validate_data_dir import validate


def fix(folder: Path) -> list[str]:
    """Repair a data directory; return a line for each thing that was dropped.

    Raises InputError, and changes nothing, when what remains could not be valid.
    """
    tables, notes = {}, []
    for name in TABLES:
        if (folder / name).is_file():
            tables[name], more = mend_table(folder / name)
            notes += more
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
    backup = folder / ".backup"
    old = [folder / name for name in (*tables, "spk2utt")] + list_files(folder)
    for path in filter(Path.exists, old):
        (backup / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, backup / path.relative_to(folder))
    write_data_dir(folder, data, {path.name: mended_trials(backup / "trials" / path.name)
                                  for path in list_files(folder)})
    return [*notes, f"{len(ids)} utterances written; the old files are in {backup}"]


def mend_table(path: Path) -> tuple[dict[str, str], list[str]]:
    """Read what can be read of a table; return utterance -> value and a line for each kind of fault."""
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
        elif "\ufffd" in line:
            faults.setdefault("lines that are not UTF-8", []).append(f"line {number}")
        elif (path.name in ONE_WORD and len(value.split()) > 1) or not check(value):
            faults.setdefault("lines with a bad value", []).append(name)
        elif name in table:
            faults.setdefault("second lines of an utterance", []).append(name)
        else:
            table[name] = value
    return table, [f"{path.name}: dropped {len(items)} {what}: {first_five(items)}"
                   for what, items in faults.items()]


def mended_trials(path: Path) -> Iterator[str]:
    """Yield the lines of a trial list without carriage returns and blank lines."""
    with open(path, encoding="utf-8", newline="\n") as lines:
        yield from (f"{line.strip()}\n" for line in lines if line.strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="data directory")
    folder = parser.parse_args().folder
    try:
        print(validate(folder))
    except InputError as fault:
        print(f"mending: {fault}")
        for note in fix(folder):
            print(f"{folder}: {note}")
        print(validate(folder))


if __name__ == "__main__":
    run_main(main)
