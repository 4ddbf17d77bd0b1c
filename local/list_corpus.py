"""Print what a corpus holds: each folder with the time of its last change, and the files at its top.

A folder's time changes when a file in it comes, goes or is renamed, so two equal listings mean the same
corpus without looking at every file. Used to tell whether prepared data are out of date.
"""

import argparse
import os

from utils.errors import InputError, run_main


def listing(root: str) -> list[str]:
    """Return a line `path nanoseconds` for each folder under `root` and each file directly in it, sorted."""
    lines = []
    todo = [root]
    while todo:
        folder = todo.pop()
        lines.append(f"{folder} {os.stat(folder).st_mtime_ns}")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    todo.append(entry.path)
                elif folder == root:
                    lines.append(f"{entry.path} {entry.stat().st_mtime_ns}")
    return sorted(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("paths", nargs="+", help="corpus folders, or single files such as trial lists")
    for path in parser.parse_args().paths:
        if not os.path.exists(path):
            raise InputError(f"{path} does not exist")
        print(*(listing(path) if os.path.isdir(path) else [f"{path} {os.stat(path).st_mtime_ns}"]), sep="\n")


if __name__ == "__main__":
    run_main(main)
