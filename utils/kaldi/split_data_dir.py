"""Split a data directory into parts for parallel jobs: <data>/split<N>/<1..N>.

Sizes of parts differ by at most one utterance. With --per-spk no speaker is divided, and the parts are in
<data>/split<N>spk. If the data have not changed, existing parts are kept.
e.g.: python3 -m utils.kaldi.split_data_dir data/train 4
"""

import argparse
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from utils.errors import InputError, run_main
from utils.files import write_aside
from utils.kaldi.data_dir import ALL_TABLES, DataDir, read_data_dir, write_data_dir


def boundaries(data: DataDir, parts: int, per_speaker: bool) -> list[int]:
    """Return the parts + 1 row numbers that bound the parts; raises InputError if a part would be empty."""
    number = len(data.ids)
    if not per_speaker:
        if parts > number:
            raise InputError(f"{parts} parts of {number} utterances; ask for at most {number} (--nj)")
        return [part * number // parts for part in range(parts + 1)]
    starts = [rows.start for _, rows in data.by_speaker()]
    if parts > len(starts):
        raise InputError(f"{parts} parts of {len(starts)} speakers; ask for at most {len(starts)} (--nj)")
    # The first speaker at or after an even share, but such that every part has at least one speaker.
    ends, first = [0], 0
    for part in range(1, parts):
        first += 1
        while first < len(starts) - (parts - part) and starts[first] < part * number / parts:
            first += 1
        ends.append(starts[first])
    return [*ends, number]


def state(folder: Path) -> str:
    """Return a text that changes whenever the tables do: their sizes and times."""
    status = [(name, (folder / name).stat()) for name in (*ALL_TABLES, "spk2utt") if (folder / name).exists()]
    return "".join(f"{name} {one.st_size} {one.st_mtime_ns} {one.st_ino}\n" for name, one in status)


def split(folder: Path, parts: int, per_speaker: bool) -> Path:
    """Write the parts unless they exist; return the folder that holds them."""
    output = folder / f"split{parts}{'spk' if per_speaker else ''}"
    record = output / ".source"
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory; run the stage that makes it first")
    with open(folder / ".split.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two steps may need the same parts at once
        before = state(folder)
        if not (record.is_file() and record.read_text(encoding="utf-8") == before):
            write_parts(folder, output, parts, per_speaker, before)
    return output


def write_parts(folder: Path, output: Path, parts: int, per_speaker: bool, before: str) -> None:
    """Write the parts into `output`, completely or not at all, with the `state` of their source."""
    data = read_data_dir(folder)
    rows = boundaries(data, parts, per_speaker)
    staging = Path(tempfile.mkdtemp(prefix=".split.", dir=folder))
    try:
        for part in range(parts):
            write_data_dir(staging / str(part + 1), data.select(range(rows[part], rows[part + 1])))
        with write_aside(staging / ".source") as stream:
            stream.write(before)
        staging.chmod(0o755)
        shutil.rmtree(output, ignore_errors=True)
        os.replace(staging, output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--per-spk", action="store_true", help="keep each speaker in one part")
    parser.add_argument("folder", type=Path, help="data directory")
    parser.add_argument("parts", type=int, help="number of parts")
    arguments = parser.parse_args()
    if arguments.parts < 1:
        raise InputError(f"{arguments.parts} parts; ask for 1 or more (--nj)")
    print(split(arguments.folder, arguments.parts, arguments.per_spk))


if __name__ == "__main__":
    run_main(main)
