"""Make a data directory from some utterances or speakers of another.

A trial list is copied only if all its utterances are kept.
e.g.: python3 -m utils.kaldi.subset_data_dir --longest 100000 data/train data/train_100k
      python3 -m utils.kaldi.subset_data_dir --spk-list data/valid/spk2utt data/mfcc24/train data/mfcc24/valid
"""

import argparse
import random
import sys
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from utils.arguments import seed
from utils.errors import InputError, first_five, run_main
from utils.kaldi.data_dir import DataDir, read_data_dir, separate, spread, write_data_dir
from utils.kaldi.option_files import common_options, write_options
from utils.kaldi.table_values import positive_integer
from utils.kaldi.trials import check_trials, list_files, trial_lines


def listed(path: Path, known: set[str], what: str) -> set[str]:
    """Return the first word of each line of `path` that is in `known`; print the others."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file; it must name one {what} per line") from error
    words = {line.split()[0] for line in lines if line.strip()}
    strange = sorted(words - known)
    if strange:
        print(f"{path}: {len(strange)} {what}s are not in the directory: {first_five(strange)}",
              file=sys.stderr)
    return words & known


def by_length(data: DataDir, number: int, longest: bool) -> list[int]:
    """Return the rows of the `number` longest or shortest utterances, in order; ties by id."""
    if "utt2num_frames" not in data.columns:
        raise InputError("--longest and --shortest need utt2num_frames; compute features first")
    frames = [int(value) for value in data.columns["utt2num_frames"]]
    return sorted(sorted(range(len(frames)), key=frames.__getitem__, reverse=longest)[:number])


def chosen_rows(data: DataDir, arguments: argparse.Namespace) -> Sequence[int]:
    """Return the rows that the one option given on the command line selects, in order."""
    rows = range(len(data.ids))
    if arguments.utt_list:
        keep = listed(arguments.utt_list, set(data.ids), "utterance")
        return [row for row in rows if data.ids[row] in keep]
    speakers = dict(data.by_speaker())
    if arguments.spk_list or arguments.exclude_spk_list:
        keep = listed(arguments.spk_list or arguments.exclude_spk_list, set(speakers), "speaker")
        wanted = bool(arguments.spk_list)
        return list(compress(rows, ((speaker in keep) == wanted for speaker in data.speakers)))
    if arguments.per_spk:
        return [row for rows in speakers.values() for row in spread(rows, min(arguments.per_spk, len(rows)))]
    number = next(value for name in NUMBERS if (value := getattr(arguments, name)))
    number = at_most(number, len(speakers) if arguments.speakers else len(rows))
    if arguments.speakers:
        picked = sorted(random.Random(arguments.seed).sample(list(speakers), number))
        return [row for speaker in picked for row in speakers[speaker]]
    if arguments.longest or arguments.shortest:
        return by_length(data, number, longest=bool(arguments.longest))
    if arguments.utts:
        return spread(rows, number)
    return rows[:number] if arguments.first else rows[len(rows) - number:]


NUMBERS = {
    "utts": "this many utterances, spread evenly",
    "first": "the first utterances",
    "last": "the last utterances",
    "shortest": "the shortest utterances by utt2num_frames",
    "longest": "the longest utterances by utt2num_frames",
    "speakers": "this many speakers, drawn at random by --seed",
}


def at_most(number: int, available: int) -> int:
    """Return `number`, or `available` after printing a note if that is less."""
    if number > available:
        print(f"asked for {number}, the directory has {available}: taking all", file=sys.stderr)
    return min(number, available)


def positive(text: str) -> int:
    """Convert an option's value to an integer above zero; raises ValueError for other text."""
    if not positive_integer(text):
        raise ValueError
    return int(text)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--utt-list", type=Path, metavar="FILE", help="utterances named first in the lines of FILE")
    group.add_argument("--spk-list", type=Path, metavar="FILE",
                       help="speakers named first in the lines of FILE, e.g. a spk2utt")
    group.add_argument("--exclude-spk-list", type=Path, metavar="FILE", help="all but these speakers")
    group.add_argument("--per-spk", type=positive, metavar="N",
                       help="N utterances of each speaker, spread evenly")
    for name, meaning in NUMBERS.items():
        group.add_argument(f"--{name}", type=positive, metavar="N", help=meaning)
    parser.add_argument("--seed", type=seed, default=1, help="seed of --speakers (default: %(default)s)")
    parser.add_argument("source", type=Path, help="data directory to choose from")
    parser.add_argument("output", type=Path, help="data directory to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    source, output = arguments.source, arguments.output
    separate(output, [source])
    data = read_data_dir(source)
    subset = data.select(chosen_rows(data, arguments))
    trials = {}
    for path in list_files(source):
        try:
            check_trials(path, subset.ids)
            trials[path.name] = trial_lines(path)
        except InputError:
            print(f"{output}: without trials/{path.name}, which names utterances left out", file=sys.stderr)
    write_data_dir(output, subset, trials)
    write_options(output, common_options([source]))
    print(f"{output}: {len(subset.ids)} of {len(data.ids)} utterances of {source}")


if __name__ == "__main__":
    run_main(main)
