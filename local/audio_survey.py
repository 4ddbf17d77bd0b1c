"""What is in a corpus's audio files: each is decoded and measured once; the next call reuses the measurements."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from local.audio_sketches import sketch_of
from utils.audio import SAMPLE_RATE, SOUNDLESS, read_audio
from utils.errors import InputError
from utils.files import write_aside
from utils.progress import progress

FULL_SCALE = 32768.0
INAUDIBLE = 33            # largest sample of a file that counts as silent: 60 dB below full scale
CLIPPED = 0.001           # share of samples at the limit from which a file counts as clipped
LOUD = 1000.0             # limits below this level are not clipping
BLOCK = 8                 # files per task
KEEP_SECONDS = 600.0      # between two writings of what has been measured


@dataclass(frozen=True)
class Measured:
    """A file. `fault` tells why it cannot be used; the rest is empty then."""

    fault: str = ""
    seconds: float = 0.0
    kind: str = ""                  # its format: wav, flac, ...
    rate: int = 0                   # Hz
    channels: int = 1
    clipped: float = 0.0            # share of the samples at the limit
    silent: bool = False
    digest: str = ""                # of the decoded samples
    sketch: str = ""                # of its sound (local/audio_sketches.py): 8 hexadecimal digits per word

    @property
    def sounding(self) -> str:
        """The digest, or "" for a silent file."""
        return "" if self.silent else self.digest

    def words(self) -> np.ndarray:
        """Return the words of the sketch."""
        return np.frombuffer(bytes.fromhex(self.sketch), ">u4")


def measure(path: str) -> Measured:
    """Decode a file and measure it; a file that cannot be decoded has a fault."""
    try:
        if not os.path.getsize(path):
            return Measured("empty")
        audio = read_audio(path)
    except InputError as error:
        return Measured(" ".join(str(error).replace(f"{path}: ", "").split(";")[0].split()))
    except OSError as error:
        return Measured(error.strerror or "unreadable")
    samples = audio.samples
    peak = float(np.abs(samples).max())
    limit = 0.99 * min(peak, FULL_SCALE)
    clipped = float(np.mean(np.abs(samples) >= limit)) if peak >= LOUD else 0.0
    channels = next((int(note.split()[0]) for note in audio.notes if note.endswith(" channels")), 1)
    silent = peak < INAUDIBLE or bool(set(SOUNDLESS).intersection(audio.notes))
    return Measured("", len(samples) / SAMPLE_RATE, kind_of(path), audio.rate, channels, clipped, silent,
                    hashlib.sha256(np.round(samples).astype(np.int32).tobytes()).hexdigest()[:32],
                    "" if silent else sketch_of(samples).astype(">u4").tobytes().hex())


def kind_of(path: str) -> str:
    """Return the format of a file by its first bytes."""
    with open(path, "rb") as stream:
        head = stream.read(12)
    known = ((b"RIFF", "wav"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"FORM", "aiff"),
             (b"NIST", "sph"), (b".snd", "au"), (b"caff", "caf"), (b"riff", "w64"))
    if head[4:8] == b"ftyp":
        return "m4a"
    if head[:1] == b"\xff" and len(head) > 1:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return next((name for start, name in known if head.startswith(start)), "other")


def survey(paths: Sequence[str], kept: Path, jobs: int) -> list[Measured]:
    """Return the measurements of files, from the file `kept` where they have not changed since.

    It is written anew at the end, and now and then before, so that a killed survey goes on from there. Raises
    InputError if a process dies.
    """
    known = read_kept(kept)
    states = {path: state_of(path) for path in paths}
    found = {path: known[path][1] for path, state in states.items() if path in known and known[path][0] == state}
    todo = [path for path in states if path not in found]

    def keep() -> None:
        with write_aside(kept) as stream:
            for path in filter(found.__contains__, states):
                stream.write(f"{json.dumps([path, states[path], asdict(found[path])])}\n")

    if todo:
        written = time.monotonic()
        try:
            for path, measured in zip(todo, measure_all(todo, jobs), strict=True):
                found[path] = measured
                if time.monotonic() > written + KEEP_SECONDS:
                    keep()
                    written = time.monotonic()
        except BrokenProcessPool as error:
            raise InputError(f"a process that measures recordings was killed, perhaps for want of memory, after "
                             f"{len(found)} of {len(paths)}; run it again, with fewer processes (--nj)") from error
        finally:
            keep()
    return [found[path] for path in paths]


def measure_all(paths: Sequence[str], jobs: int) -> Iterator[Measured]:
    """Yield the measurements of files, from up to `jobs` processes."""
    blocks = [paths[start:start + BLOCK] for start in range(0, len(paths), BLOCK)]
    if jobs == 1 or len(blocks) < 2 * jobs:
        yield from progress(map(measure, paths), len(paths), "listen to the recordings", "files")
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for block in progress(pool.map(measure_block, blocks), len(blocks), "listen to the recordings",
                              f"x {BLOCK} files"):
            yield from block


def measure_block(paths: Sequence[str]) -> list[Measured]:
    """Measure some files."""
    return [measure(path) for path in paths]


def state_of(path: str) -> str:
    """Return size and time of a file, which change with its content."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def read_kept(path: Path) -> dict[str, tuple[str, Measured]]:
    """Return path -> (state, measurements) of an earlier survey; nothing if there is none that can be read."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return {name: (state, Measured(**one)) for name, state, one in rows}
    except (OSError, ValueError, TypeError):
        return {}
