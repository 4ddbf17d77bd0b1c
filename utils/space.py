"""Check that the disk has room for the files that a step will write."""

import os
import shutil
from pathlib import Path

from utils.errors import InputError

SPARE = 1.05  # file systems need a little more space than the files


def require_space(folder: str | os.PathLike, needed: float, what: str) -> None:
    """Raise InputError if fewer than `needed` bytes are free on the disk of `folder`, which need not exist yet."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed * SPARE > free:
        raise InputError(f"{folder}: {what} need about {megabytes(needed * SPARE)}, {megabytes(free)} are free on that "
                         "disk; make room, or put the work elsewhere with --work")


def megabytes(size: float) -> str:
    """Return a size as text: `12 MB`, `3.4 GB`."""
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
