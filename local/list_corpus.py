"""List the contents of a corpus, to detect whether prepared data are out of date: one line per folder, with a digest
of the names, sizes and times of its files.

e.g.: python3 -m local.list_corpus data/corpus /corpora/VoxCeleb1 /corpora/lists/veri_test2.txt
"""

import argparse
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from utils.errors import InputError, run_main
from utils.files import encodable, write_if_changed


def folders_under(root: str) -> list[str]:
    """Return a folder and all folders below it, sorted. Links are followed; a folder reached twice is listed once."""
    found, todo, seen = [], [root], set()
    while todo:
        folder = todo.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        found.append(folder)
        with os.scandir(folder) as entries:  # sorted: the way by which a folder is reached stays the same
            todo += sorted(entry.path for entry in entries if entry.is_dir())
    return sorted(found)


def state_of_folder(folder: str) -> str:
    """Return a digest of the names, sizes and times of the files in a folder."""
    with os.scandir(folder) as entries:
        files = sorted((entry.name, state_of_file(entry.path)) for entry in entries if not entry.is_dir())
    return hashlib.sha256(repr(files).encode(errors="surrogateescape")).hexdigest()


def state_of_file(path: str) -> str:
    """Return size and time of a file; "" for a broken link."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def printable(path: str) -> str:
    """Return a path as UTF-8 can hold it."""
    return path if encodable(path) else ascii(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="file to write, if its contents change")
    parser.add_argument("paths", nargs="+", help="corpus folders, or single files such as trial lists")
    arguments = parser.parse_args()
    lines = []
    for path in arguments.paths:
        if not os.path.exists(path):
            raise InputError(f"{path} does not exist")
        if arguments.out.resolve().is_relative_to(Path(path).resolve()):
            raise InputError(f"{arguments.out.parent} lies in the corpus {path}, and its files would become part of "
                             "it; name another work folder (--work)")
        if not os.path.isdir(path):
            lines.append(f"{path} {state_of_file(path)}\n")
            continue
        folders = folders_under(path)
        with ThreadPoolExecutor(8) as pool:  # hides the latency of network file systems
            states = pool.map(state_of_folder, folders)
            lines += [f"{printable(folder)} {state}\n" for folder, state in zip(folders, states, strict=True)]
    write_if_changed(arguments.out, "".join(lines))


if __name__ == "__main__":
    run_main(main)
