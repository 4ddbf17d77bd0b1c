"""Join the scripts of parallel jobs into one; it must hold every id of the reference once.

e.g.: python3 -m utils.kaldi.join_tables data/test/feats.scp out/xvector.scp out/xvector.1.scp out/xvector.2.scp
"""

import argparse
from pathlib import Path

from utils.errors import InputError, first_five, run_main
from utils.files import write_aside
from utils.kaldi.ark import read_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("parts", type=Path, nargs="+")
    arguments = parser.parse_args()
    lines: dict[str, str] = {}
    for part in arguments.parts:
        for name, where in zip(*read_table(part), strict=True):
            if name in lines:
                raise InputError(f"{part}: {name} is already in an earlier part; delete the parts and run again")
            lines[name] = where
    wanted, _ = read_table(arguments.reference)
    missing = [name for name in wanted if name not in lines]
    if missing or len(lines) != len(wanted):
        raise InputError(f"{arguments.output}: {len(lines)} of {len(wanted)} utterances done; "
                         f"missing: {first_five(missing)}; see the jobs' logs")
    with write_aside(arguments.output) as stream:
        stream.writelines(f"{name} {lines[name]}\n" for name in sorted(lines))


if __name__ == "__main__":
    run_main(main)
