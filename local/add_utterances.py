"""Add the utterances and the trial lists of a data directory to another.

Its own lists and other files, such as spk2gender, stay. An utterance or a list that both have is an error.
e.g.: python3 -m local.add_utterances data/test data/test_joined
"""

import argparse
from pathlib import Path

from utils.errors import InputError, run_main
from utils.kaldi.combine_data import combine
from utils.kaldi.data_dir import read_data_dir, separate, write_data_dir
from utils.kaldi.trials import list_files, trial_lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="data directory to change")
    parser.add_argument("more", type=Path, help="data directory to add")
    arguments = parser.parse_args()
    data, more = arguments.data, arguments.more
    separate(data, [more])
    own, added = ({path.name: path for path in list_files(folder)} for folder in (data, more))
    if both := sorted(own.keys() & added.keys()):
        raise InputError(f"{data} and {more} both have a list {both[0]}; rename one")
    combined = combine([read_data_dir(data), read_data_dir(more)])
    write_data_dir(data, combined, {name: trial_lines(path) for name, path in (own | added).items()})
    print(f"{data}: {len(combined.ids)} utterances with those of {more}")


if __name__ == "__main__":
    run_main(main)
