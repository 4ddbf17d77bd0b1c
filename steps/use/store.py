"""Enrolled speakers: a folder with one file per speaker, <name>.json, which can be copied, read and deleted.

    {"format": "attvec speaker", "version": 1, "name": ..., "model": <SHA-256 of its weights>,
     "recordings": [{"file": ..., "seconds": ..., "embedding": [...]}, ...], "sha256": <of all that>}

A file is written aside, synced and renamed: after a kill, the store holds the old file or the new one. Writers take
turns (flock on the file .lock, which the system releases when a process ends). Each file has a checksum, and a damaged
one costs only its own speaker.
"""

import contextlib
import fcntl
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnet.bundle import digest_of
from utils.errors import InputError, first_five
from utils.files import encodable, write_aside

FORMAT, VERSION = "attvec speaker", 1
UNKNOWN = "unknown"  # what utils/identify answers where nobody enrolled fits
LONGEST = 200  # bytes of a name: file systems allow 255 with what is added
WEIGHTS = ("model.safetensors", "final.ie")


class Speaker(NamedTuple):
    """An enrolled speaker. model: digest of the weights; vectors: N x E float32, one row per recording."""

    name: str
    model: str
    files: tuple[str, ...]
    seconds: tuple[float, ...]
    vectors: np.ndarray


def store_beside(bundle: Path) -> Path:
    """Return the store of a bundle: beside it, so that it does not change, with .speakers added to its name."""
    bundle = bundle.resolve()
    return bundle.with_name(f"{bundle.name}.speakers")


def model_of(bundle: Path) -> str:
    """Return what tells models apart whose embeddings cannot be compared: the SHA-256 of the weights."""
    return digest_of(next(bundle / name for name in WEIGHTS if (bundle / name).is_file()))


def check_name(name: str) -> str:
    """Return the name of a speaker; raises InputError if it cannot be a file's name everywhere."""
    if not name or name.startswith((".", "-")) or "/" in name or "\\" in name or not name.isprintable() or (
            name != name.strip()) or not encodable(name) or len(name.encode()) > LONGEST:
        raise InputError(f"the name {name!r}: wanted 1 to {LONGEST} printable characters without / and \\, none of . - "
                         "and space first, and no space last")
    if name == UNKNOWN:
        raise InputError(f"the name {UNKNOWN} is what identification answers where no enrolled speaker fits; use "
                         "another")
    return name


class Store:
    """The speakers in a folder, all of one model."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.model = folder, model

    def path_of(self, name: str) -> Path:
        return self.folder / f"{check_name(name)}.json"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of writers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write(self, speaker: Speaker, replace: bool) -> None:
        """Write a speaker's file; raises InputError if there is one of this name, unless it is to be replaced."""
        path = self.path_of(speaker.name)
        content = {"format": FORMAT, "version": VERSION, "name": speaker.name, "model": speaker.model, "recordings": [
            {"file": file, "seconds": round(seconds, 2), "embedding": vector} for file, seconds, vector in zip(
                speaker.files, speaker.seconds, speaker.vectors.astype(float).tolist(), strict=True)]}
        with self._alone():
            if path.exists() and not replace:
                raise InputError(f"{speaker.name} is enrolled already ({path}); use another name, or --replace")
            with write_aside(path) as stream:
                stream.write(json.dumps({**content, "sha256": checksum(content)}) + "\n")

    def read(self) -> list[Speaker]:
        """Return all speakers, by name; prints a warning for each file that is damaged and leaves it out.

        Raises InputError if there is none, or if one was enrolled with another model.
        """
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                found.append(read_speaker(path))
            except (InputError, OSError) as error:
                print(f"warning: {error}; left out; enrol this speaker again with --replace", file=sys.stderr)
        if not found:
            raise InputError(f"{self.folder}: no enrolled speaker; enrol one with utils/enrol, or name the store with "
                             "--store")
        if others := [speaker.name for speaker in found if speaker.model != self.model]:
            raise InputError(f"{self.folder}: {first_five(others)} were enrolled with another model, whose embeddings "
                             "cannot be compared; enrol them again with --replace, or name another --store")
        return found


def checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a speaker's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_speaker(path: Path) -> Speaker:
    """Read a file of the store; raises InputError if it is damaged, of another version, or has been renamed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise InputError(f"{path}: format {content['format']!r}, version {content['version']!r}; wanted "
                             f"{FORMAT!r}, {VERSION}")
        if checksum({key: value for key, value in content.items() if key != "sha256"}) != content["sha256"]:
            raise InputError(f"{path}: damaged: its checksum is wrong")
        recordings: Sequence[dict[str, Any]] = content["recordings"]
        vectors = np.array([one["embedding"] for one in recordings], np.float32)
        speaker = Speaker(content["name"], content["model"], tuple(one["file"] for one in recordings),
                          tuple(one["seconds"] for one in recordings), vectors)
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise InputError(f"{path}: damaged: not one embedding per recording")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged: {error}") from error
    if path.name != f"{speaker.name}.json":
        raise InputError(f"{path}: holds the speaker {speaker.name}; give the file its name again")
    return speaker
