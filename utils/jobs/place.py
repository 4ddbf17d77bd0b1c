"""Where a work folder is: its scripts hold absolute paths, as Kaldi's do, and it may be moved or copied.

`python3 -m utils.jobs.place WORK` notes the folder's path in WORK/.place. Where that names another place, the paths
below it in scripts and tables are changed to this one first, so that a copy reads its own features, not the original's.
"""

import argparse
import functools
import os
import re
import sys
from pathlib import Path

from utils.errors import InputError, run_main
from utils.files import write_aside

PLACE = ".place"
HOLD_PATHS = re.compile(r".*\.scp|utt2augment|corpus")  # names of files with paths of the work folder


@functools.cache
def place_above(folder: Path) -> tuple[Path, str] | None:
    """Return the work folder that a folder belongs to and the path that it notes; None outside of one."""
    for above in (folder, *folder.parents):
        note = above / PLACE
        if note.is_file():
            return above, note.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
    return None


def prefix(place: str, but: str = "") -> re.Pattern[bytes]:
    """Match a work folder's path where it begins a path in it, except in paths of the folder `but` inside of it."""
    inner = but.removeprefix(f"{place}/") if but.startswith(f"{place}/") else ""
    skip = b"(?!" + re.escape(os.fsencode(inner)) + b"/)" if inner else b""
    return re.compile(rb"(?<![^\s\"'=])" + re.escape(os.fsencode(place)) + rb"/" + skip)


def without_place(content: bytes, path: Path) -> bytes:
    """Return what a file in a work folder holds, without that folder's path."""
    found = place_above(path.absolute().parent)
    return prefix(found[1]).sub(b"", content) if found and os.fsencode(found[1]) in content else content


def in_this_place(path: str, script: Path) -> str:
    """Return where a path that a script names is now, should the work folder that holds both have moved."""
    found = place_above(script.absolute().parent)
    inside = found and path.startswith(f"{found[1]}/")
    return f"{found[0]}/{path.removeprefix(f'{found[1]}/')}" if inside else path


def require_place(path: Path) -> None:
    """Raise InputError when the work folder of `path` was moved or copied and its scripts name the old place."""
    found = place_above(path.absolute().parent)
    if found and not same_folder(*found):
        raise InputError(f"{found[0]} was moved or copied from {found[1]}, which its scripts still name; run the "
                         f"recipe on it, or: python3 -m utils.jobs.place {found[0]}")


def same_folder(folder: Path, place: str) -> bool:
    """Whether a noted path leads to the folder, perhaps through a link."""
    return os.path.exists(place) and os.path.samefile(folder, place)


def settle(work: Path) -> None:
    """Note where a work folder is; where it was elsewhere before, change the paths in its scripts."""
    note = work / PLACE
    found = place_above(work) if note.is_file() else None
    if found and same_folder(*found):
        return
    if found:
        changed = 0
        old = prefix(found[1], but=str(work))  # a run that was killed here may have changed some
        new = (os.fsencode(work) + b"/").replace(b"\\", rb"\\")
        for path in sorted(path for path in work.rglob("*") if HOLD_PATHS.fullmatch(path.name) and path.is_file()):
            content = path.read_bytes()
            moved = old.sub(new, content)
            if moved != content:
                with write_aside(path, "wb") as stream:
                    stream.write(moved)
                changed += 1
        print(f"{work}: moved or copied from {found[1]}; {changed} files now name this place", file=sys.stderr)
    with write_aside(note) as stream:
        stream.write(f"{work}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path, help="work folder")
    settle(parser.parse_args().work.absolute())


if __name__ == "__main__":
    run_main(main)
