"""Fingerprints: detect changes in a step's inputs and outputs.

    file                 its content; above WHOLE_FILE its size and SAMPLES blocks of it
    script (*.scp)       its lines, and the fingerprints of the archives that they name
    wav.scp              its lines, and size and time of each audio file
    record (.done*)      the step's options, inputs and outputs
    directory            its record's fingerprint, or else those of its files
    data directory       the same, but without trial lists and speakers' tables, on which no feature depends; a step
                         that reads one lists it as an input of its own

A work folder may be moved or copied: its own path, kept in `.place` at its top (utils/jobs/place.py), is left out.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import write_aside
from utils.jobs.place import HOLD_PATHS, in_this_place, without_place

RECORD = ".done"
WHOLE_FILE = 64 << 20  # bytes: up to this size a file is read completely
OFFSET = re.compile(r"(:\d+)?(\[[^][]*\])?$")  # offset of a matrix in an archive, and its row range
SAMPLES, SAMPLE = 64, 1 << 16  # blocks of a larger file, and bytes of each


def fingerprint(path: Path) -> str:
    """Return the fingerprint of an input; raises InputError if it is missing."""
    if path.is_dir():
        record = path / RECORD
        return fingerprint(record) if record.is_file() else of_folder(path)
    if not path.exists():
        raise InputError(f"{path} is missing; run the stage that makes it first")
    if path.name.startswith(RECORD):
        return read_record(path)["made"]
    if path.name == "wav.scp":
        return of_audio(path)
    if path.suffix == ".scp":
        return digest([of_content(path), *(state_of(archive) for archive in archives(path))])
    return of_content(path)


def digest(parts: Iterable[str]) -> str:
    """Return one digest of several texts."""
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def of_content(path: Path) -> str:
    """Return the fingerprint of a file's content, independent of the location of its work folder."""
    size = path.stat().st_size
    if size <= WHOLE_FILE or HOLD_PATHS.fullmatch(str(path.absolute())):
        return hashlib.sha256(without_place(path.read_bytes(), path)).hexdigest()
    found = hashlib.sha256(str(size).encode())
    with open(path, "rb") as stream:
        for block in range(SAMPLES):
            stream.seek(block * (size - SAMPLE) // (SAMPLES - 1))
            found.update(stream.read(SAMPLE))
    return found.hexdigest()


def of_folder(folder: Path) -> str:
    """Return the fingerprint of a directory without a record, from all files except logs, splits and hidden ones."""
    inside = []
    apart = ("split", "trials", "spk2") if (folder / "utt2spk").is_file() else ("split",)
    for path in sorted(files_below(folder)):
        parts = path.relative_to(folder).parts
        if path.is_file() and not (any(part.startswith(".") or part == "log" for part in parts)
                                   or parts[0].startswith(apart)):
            inside.append(f"{path.relative_to(folder)} {fingerprint(path)}")
    return digest(inside)


def files_below(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield what is in a folder and those below it, also below links, except links that lead back to a parent."""
    above = (*above, os.path.realpath(folder))
    for path in folder.iterdir():
        if not path.is_dir():
            yield path
        elif os.path.realpath(path) not in above:
            yield from files_below(path, above)


def of_audio(script: Path) -> str:
    """Return the fingerprint of a wav.scp: a replaced audio file differs in size or time.

    Within a run of a recipe (VOX_SCRATCH) the audio files are checked only once.
    """
    content = of_content(script)
    kept = Path(os.environ["VOX_SCRATCH"]) / f"audio.{content}" if "VOX_SCRATCH" in os.environ else None
    if kept and kept.is_file():
        return kept.read_text()
    paths = list(dict.fromkeys(named(script)))
    with ThreadPoolExecutor(8) as pool:  # hides the latency of network file systems
        found = digest([content, *pool.map(size_and_time, paths, chunksize=1000)])
    if kept:
        with write_aside(kept) as stream:  # steps of several systems may do this at once
            stream.write(found)
    return found


def size_and_time(path: str) -> str:
    """Return an audio file's size and time, which change if it is replaced; "" for a command or a missing file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # the step that reads it reports the error
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def archives(script: Path) -> list[Path]:
    """Return the archives that a script names (`id archive:offset[rows]`), each once, in the script's order."""
    return list(dict.fromkeys(Path(OFFSET.sub("", place, count=1)) for place in named(script)))


def named(script: Path) -> Iterator[str]:
    """Yield the paths or commands in a script's lines, which may hold any bytes."""
    with open(script, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for line in lines:
            yield in_this_place(line.partition(" ")[2].strip(), script)


def state_of(archive: Path) -> str:
    """Return the fingerprint of an archive, "" if it is missing: the step that reads it reports the error."""
    try:
        return of_content(archive) if archive.is_file() else ""
    except (OSError, ValueError):
        return ""


def read_record(path: Path) -> dict[str, Any]:
    """Read a record; raises InputError if it is damaged or from an earlier version of this program."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["digest"], record["options"], record["inputs"], record["outputs"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged record; delete it to redo the step") from error
    if not isinstance(record.get("made"), str):
        raise InputError(f"{path}: record from an earlier version; delete it to redo the step")
    return record
