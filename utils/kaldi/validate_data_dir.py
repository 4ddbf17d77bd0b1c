"""Check a data directory: every table, spk2utt, and the trial lists; report the first fault and change nothing.

The fault is printed with file, line and remedy, and the exit status is 1. A fault is: an empty or
truncated file, a carriage return, a NUL byte, a missing field, an id that holds a blank, `/` or `..`, an unsorted or
duplicate id, tables with different ids, a speaker that is not a prefix of its utterance, a spk2utt that
is not the inverse of utt2spk, a trial of an unknown id, of an id with itself or with a label other than target or
nontarget, a pair with both labels, features and VAD of different lengths (checked in 50 utterances); with segments: a
recording that wav.scp lacks, or that has no segment, a start at or after the end, a segment outside of its recording
(if reco2dur has its length).
e.g.: python3 -m utils.kaldi.validate_data_dir data/train
"""

import argparse
import sys
from pathlib import Path

from utils.errors import InputError, run_main
from utils.kaldi.ark import read_matrix
from utils.kaldi.data_dir import DataDir, read_data_dir, spread
from utils.kaldi.trials import check_trials, list_files

SAMPLE = 50  # utterances whose features are checked


def validate(folder: Path) -> str:
    """Return a summary of a valid data directory; raises InputError at the first fault."""
    data = read_data_dir(folder)
    check_lengths(data, folder)
    lists = []
    for path in list_files(folder):
        trials, repeated = check_trials(path, data.ids)
        lists.append(f"{path.name} {trials}")
        if repeated:
            print(f"warning: {path}: {repeated} of {trials} trials repeat a pair of an earlier line", file=sys.stderr)
    speakers = sum(1 for _ in data.by_speaker())
    trials = f"; trials: {', '.join(lists)}" if lists else ""
    return (f"{folder}: valid: {len(data.ids)} utterances, {speakers} speakers; "
            f"{', '.join(data.columns)}{trials}")


def check_lengths(data: DataDir, folder: Path) -> None:
    """Read features and VAD of up to SAMPLE utterances; raises InputError if their lengths differ."""
    tables = [name for name in ("feats.scp", "vad.scp") if name in data.columns]
    for row in spread(range(len(data.ids)), min(SAMPLE, len(data.ids))) if tables else ():
        frames = {name: len(read_matrix(data.columns[name][row])) for name in tables}
        if "utt2num_frames" in data.columns:
            frames["utt2num_frames"] = int(data.columns["utt2num_frames"][row])
        if len(set(frames.values())) > 1:
            raise InputError(f"{folder}: {data.ids[row]}: numbers of frames differ: "
                             f"{', '.join(f'{name} {number}' for name, number in frames.items())}; "
                             "compute features and VAD again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="data directory")
    print(validate(parser.parse_args().folder))


if __name__ == "__main__":
    run_main(main)
