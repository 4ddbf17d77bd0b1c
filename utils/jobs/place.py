"""The location of a work folder: its scripts hold absolute paths, like Kaldi's, but it may be moved or copied.

`python3 -m utils.jobs.place WORK` notes the folder's path in WORK/.place. If the note names another location, the paths
in scripts and tables are first changed to the new one, so that a copy reads its own features, not the original's.
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
# Files that hold paths in the work folder: tables, the weights of fusions, figures and the report.
HOLD_PATHS = re.compile(r".*/([^/]*\.scp|utt2augment|corpus|calibration/[^/]*\.json|figures\.json|report\.html)")


@functools.cache
def place_above(folder: Path) -> tuple[Path, str] | None:
    """Return the work folder that contains a folder, and the path noted there; None outside a work folder."""
    for above in (folder, *folder.parents):
        note = above / PLACE
        if note.is_file():
            return above, note.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
    return None


def prefix(place: str, but: str = "") -> re.Pattern[bytes]:
    """Return a pattern for a work folder's path at the start of paths below it, except those below subfolder `but`."""
    inner = but.removeprefix(f"{place}/") if but.startswith(f"{place}/") else ""
    skip = b"(?!" + re.escape(os.fsencode(inner)) + b"/)" if inner else b""
    return re.compile(rb"(?<![^\s\"'=])" + re.escape(os.fsencode(place)) + rb"/" + skip)


def without_place(content: bytes, path: Path) -> bytes:
    """Return the content of a file in a work folder without that folder's path."""
    found = place_above(path.absolute().parent)
    return prefix(found[1]).sub(b"", content) if found and os.fsencode(found[1]) in content else content


def in_this_place(path: str, script: Path) -> str:
    """Return the present location of a path in a script, which differs if the work folder that holds both has moved."""
    found = place_above(script.absolute().parent)
    inside = found and path.startswith(f"{found[1]}/")
    return f"{found[0]}/{path.removeprefix(f'{found[1]}/')}" if inside else path


def require_place(path: Path) -> None:
    """Raise InputError if the work folder of `path` was moved or copied and its scripts name the old location."""
    found = place_above(path.absolute().parent)
    if found and not same_folder(*found):
        raise InputError(f"{found[0]} was moved or copied from {found[1]}, which its scripts still name; run the "
                         f"recipe on it, or: python3 -m utils.jobs.place {found[0]}")


def same_folder(folder: Path, place: str) -> bool:
    """Whether a noted path leads to the folder, perhaps through a link."""
    return os.path.exists(place) and os.path.samefile(folder, place)


def settle(work: Path) -> None:
    """Note the location of a work folder; if it has changed, change the paths in its scripts."""
    note = work / PLACE
    found = place_above(work) if note.is_file() else None
    if found and same_folder(*found):
        return
    if found:
        changed = 0
        old = prefix(found[1], but=str(work))  # a killed run may have changed some already
        new = (os.fsencode(work) + b"/").replace(b"\\", rb"\\")
        for path in sorted(path for path in work.rglob("*") if HOLD_PATHS.fullmatch(str(path)) and path.is_file()):
            content = path.read_bytes()
            moved = old.sub(new, content)
            if moved != content:
                with write_aside(path, "wb") as stream:
                    stream.write(moved)
                changed += 1
        print(f"{work}: moved or copied from {found[1]}; {changed} files now name the new location", file=sys.stderr)
    with write_aside(note) as stream:
        stream.write(f"{work}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path, help="work folder")
    settle(parser.parse_args().work.absolute())


if __name__ == "__main__":
    run_main(main)
