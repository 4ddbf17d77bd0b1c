"""The audio files below a folder, as they are: any nesting, any names."""

import os
from collections.abc import Iterator

from utils.errors import InputError

# Endings of files that utils/audio.py can read; it recognises the format itself by the content.
ENDINGS = frozenset((".wav", ".wave", ".flac", ".m4a", ".mp4", ".aac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff",
                     ".au", ".snd", ".caf", ".w64", ".sph"))


def refuse(error: OSError) -> None:
    """Raise InputError for a folder that cannot be listed: what it holds would be missing without a word."""
    raise InputError(f"{error.filename}: {error.strerror}; make the folder readable, or move it away")


def walk(root: str, skip: str | None = None) -> Iterator[str]:
    """Yield the paths of all visible files below `root`, relative to it, without those below the folder `skip`.

    Links are followed; a folder that is reached twice is listed once. Raises InputError for one that cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen or (skip and os.path.samefile(folder, skip)):
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = os.path.relpath(folder, root)
        for name in sorted(files):
            if not name.startswith("."):
                yield name if inner == "." else f"{inner}/{name}"
