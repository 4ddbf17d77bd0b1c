"""Disk space: what a step is about to write against what is free."""

import os
import shutil
from pathlib import Path

from utils.errors import InputError

SPARE = 1.05  # file systems take a little more than files


def require_space(folder: str | os.PathLike, needed: float, what: str) -> None:
    """Raise InputError when fewer than `needed` bytes are free where `folder` is, or will be."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed * SPARE > free:
        raise InputError(f"{folder}: {what} need about {megabytes(needed * SPARE)}, {megabytes(free)} are free on that "
                         "disk; make room, or put the work elsewhere with --work")


def megabytes(size: float) -> str:
    """Return a size in words: `12 MB`, `3.4 GB`."""
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
