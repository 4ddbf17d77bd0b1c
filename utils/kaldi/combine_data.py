"""Combine data directories into one, e.g. a corpus with its augmented copies.

Tables that every input has are kept; utt2speed, utt2formants and utt2augment also if only some inputs have them (the
audio of the others stays unchanged). Where only some inputs have segments, the utterances of the others become
recordings. No utterance may be in two inputs. Trial lists are not combined.
e.g.: python3 -m utils.kaldi.combine_data data/train_all data/train data/train_sp
"""

import argparse
import sys
from pathlib import Path

from utils.errors import run_main
from utils.kaldi.data_dir import (
    ALL_TABLES,
    CHANGES,
    DataDir,
    read_data_dir,
    separate,
    write_data_dir,
)
from utils.kaldi.option_files import common_options, write_options
from utils.kaldi.segments import SEGMENTS, WHOLE


def combine(parts: list[DataDir]) -> DataDir:
    """Return the utterances of all `parts`, in order, with the tables that they have in common."""
    if any(SEGMENTS in part.columns for part in parts):
        parts = [DataDir(part.ids, {SEGMENTS: [f"{name} {WHOLE}" for name in part.ids], **part.columns})
                 for part in parts]
    names = [name for name in ALL_TABLES if all(name in part.columns for part in parts)]
    columns = {name: [value for part in parts for value in part.columns[name]] for name in names}
    for name, nothing in CHANGES.items():
        if any(name in part.columns for part in parts):
            columns[name] = [value for part in parts for value in part.columns.get(name, [nothing] * len(part.ids))]
    return DataDir([utterance for part in parts for utterance in part.ids], columns).in_order()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path, help="data directory to write")
    parser.add_argument("sources", type=Path, nargs="+", help="data directories to combine")
    arguments = parser.parse_args()
    output, sources = arguments.output, arguments.sources
    separate(output, sources)
    parts = [read_data_dir(source) for source in sources]
    data, options = combine(parts), common_options(sources)
    write_data_dir(output, data)
    write_options(output, options)
    left_out = sorted({name for part in parts for name in part.columns} - set(data.columns))
    if left_out:
        print(f"{output}: without {', '.join(left_out)}, which some inputs lack", file=sys.stderr)
    print(f"{output}: {len(data.ids)} utterances of {len(sources)} directories")


if __name__ == "__main__":
    run_main(main)
