"""Checks before work begins: find audio files that are missing, empty, cut short or unreadable.

Only headers are read: 1.2 million files take a minute or two. RIFF and MP4 headers are parsed here,
which is faster than opening a decoder and detects files that were cut short; a decoder opens all others.
"""

import os
import stat
import struct
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import av
import soundfile

from utils.errors import InputError, first_five
from utils.progress import progress

PLAIN = (1, 3, 0xFFFE)  # WAVE format tags: PCM, float, and the extensible form of either
BLOCK = 500  # files per task


def file_faults(paths: Sequence[str]) -> list[str]:
    """Return the fault of each file, or an empty string for a good one."""
    blocks = [paths[start:start + BLOCK] for start in range(0, len(paths), BLOCK)]
    faults: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        checked = pool.map(lambda block: [file_fault(path) for path in block], blocks)
        for block in progress(checked, len(blocks), "check audio headers", f"x {BLOCK} files"):
            faults += block
    return faults


def file_fault(path: str) -> str:
    """Return "missing", "empty", "cut short", "unreadable: <why>", or an empty string for a good file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # does not block on a FIFO
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    try:
        kind, size = os.fstat(handle).st_mode, os.fstat(handle).st_size
        if not stat.S_ISREG(kind):
            return "unreadable: not a regular file"
        if size == 0:
            return "empty"
        head = os.pread(handle, 12, 0)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            fault = wave_fault(handle, size)
        elif head[4:8] == b"ftyp":
            fault = mp4_fault(handle, size)
        else:
            fault = None
    except OSError as error:
        return f"unreadable: {error.strerror}"
    finally:
        os.close(handle)
    return decoder_fault(path, head) if fault is None else fault


def wave_fault(handle: int, size: int) -> str | None:
    """Parse the chunks of a RIFF file up to its samples; return the fault, "", or None if a decoder must check."""
    place, plain = 12, False
    while place + 8 <= size:
        head = os.pread(handle, 10, place)
        name, length = struct.unpack("<4sI", head[:8])
        if name == b"fmt ":
            plain = int.from_bytes(head[8:10], "little") in PLAIN
        if name == b"data":
            unknown = length == 0 or length >= 0x7FFF0000  # written through a pipe, which is not seekable
            if unknown or not plain:
                return None
            return "cut short" if place + 8 + length > size else ""
        place += 8 + length + length % 2
    return "cut short" if plain else None


def mp4_fault(handle: int, size: int) -> str | None:
    """Parse the boxes of an MP4 file up to its end; return the fault, "", or None if a decoder must check."""
    place, whole = 0, False
    while place < size:
        head = os.pread(handle, 16, place)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # to the end of the file
            length = size - place
        if length < 8:
            return None
        whole |= head[4:8] == b"moov"
        place += length
    return "cut short" if place > size else "" if whole else None


def decoder_fault(path: str, head: bytes) -> str:
    """Open a file, which begins with `head`, with the decoder that utils/audio.py would use; return the fault or ""."""
    adts = head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0
    try:
        if adts or head[4:8] == b"ftyp":
            with av.open(path, format="aac" if adts else "mov") as container:
                return "" if container.streams.audio else "unreadable: holds no audio"
        with soundfile.SoundFile(path) as sound:
            return "" if sound.frames else "empty"
    except (soundfile.SoundFileError, av.FFmpegError, RuntimeError, TypeError, ValueError):
        return "unreadable: damaged, or an unknown audio format"


def judge(what: str, items: Sequence[str], total: int, limit: float, option: str, way_out: str) -> str:
    """Report `items`, the bad ones of `total`, and return the sentence on them, "" without any.

    Raises InputError if their share is above `limit`.
    """
    if not items:
        return ""
    message = f"{len(items)} of {total} {what}: {first_five(items)}"
    if len(items) > limit * total:
        raise InputError(f"{message}; {way_out}, or allow it with {option} {share(len(items), total)}")
    print(f"warning: {message}", file=sys.stderr)
    return message


def share(count: int, total: int) -> str:
    """Return count / total, rounded up to three digits."""
    return f"{min(1, -(-count * 1000 // total) / 1000):g}"


def by_kind(paths: Sequence[str], faults: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each kind of fault that occurs with its files."""
    for kind in ("missing", "empty", "cut short", "unreadable"):
        files = [path for path, fault in zip(paths, faults, strict=True) if fault.startswith(kind)]
        if files:
            yield kind, files
