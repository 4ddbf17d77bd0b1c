"""Make a recipe's data directories from Kaldi's, which stay as they are: only tables are copied.

    <data>/train, <data>/test             the tables without features and voice activity; test with its trial lists
    <data>/<ready>/train, .../test        with --ready NAME: also the features and voice activity, under this name

Trial lists are the files of --trials, or else Kaldi's file `trials` in the test directory, or those in its
folder trials/.
"""

import argparse
from pathlib import Path

from utils.errors import InputError, run_main
from utils.kaldi.data_dir import DataDir, TrialLists, read_data_dir, separate, write_data_dirs
from utils.kaldi.trials import list_files, trial_lines

COMPUTED = ("feats.scp", "vad.scp", "utt2num_frames")


def without_features(data: DataDir) -> DataDir:
    """Return the tables without computed features; without wav.scp, the features are all there is, and stay."""
    dropped = COMPUTED if "wav.scp" in data.columns else ()
    return DataDir(data.ids, {name: column for name, column in data.columns.items() if name not in dropped})


def find_lists(test: Path, given: list[Path]) -> dict[str, Path]:
    """Return the trial lists by name; raises InputError if there is none, or two have one name."""
    found = given or ([test / "trials"] if (test / "trials").is_file() else list_files(test))
    if not found:
        raise InputError(f"{test}: no trial list, neither a file `trials` nor files in a folder trials/; name one with "
                         "--trials FILE")
    lists = {path.name: path for path in found}
    if len(lists) < len(found):
        raise InputError(f"--trials: two of {', '.join(map(str, found))} have one name; rename one")
    return lists


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=Path, nargs="*", default=[], help="trial lists")
    parser.add_argument("--ready", default="", help="name for the features that the directories have")
    parser.add_argument("train", type=Path, help="Kaldi's data directory to train on")
    parser.add_argument("test", type=Path, help="Kaldi's data directory of the trials")
    parser.add_argument("data", type=Path, help="folder for the data directories")
    arguments = parser.parse_args()
    folders = {"train": arguments.train, "test": arguments.test}
    sets: dict[Path, tuple[DataDir, TrialLists]] = {}
    lists = find_lists(arguments.test, arguments.trials)
    for name, folder in folders.items():
        data = read_data_dir(folder)
        of_set = lists if name == "test" else {}
        separate(arguments.data / name, folders.values())
        sets[arguments.data / name] = without_features(data), {one: trial_lines(path) for one, path in of_set.items()}
        if arguments.ready:
            if "feats.scp" not in data.columns:
                raise InputError(f"{folder} has no feats.scp, but --ready-features names its features; leave that out")
            ready = {one: trial_lines(path) for one, path in of_set.items()}
            sets[arguments.data / arguments.ready / name] = data, ready
    write_data_dirs(sets)
    for folder, (data, trials) in sets.items():
        print(f"{folder}: {len(data.ids)} utterances, {len(trials)} trial lists")


if __name__ == "__main__":
    run_main(main)
