"""Make data/train and data/test from VoxCeleb corpora, in any layout in circulation.

train: VoxCeleb1 dev and VoxCeleb2 dev, or the parts in --train. test: the utterances in the trial lists,
with the lists as test/trials/<name> (`utt1 utt2 target|nontarget`). The layout is detected; nothing
is ever written into a corpus folder. Without --lists, lists with official names in the corpus folder are
used, except those that share speakers with the training data (E and H if VoxCeleb1 dev is in it).
e.g.: python3 -m local.prepare_voxceleb --voxceleb1-root /corpora/VoxCeleb1 data
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.corpus import Utterance, find_utterances, read_names
from local.preflight import by_kind, file_faults, judge
from local.speaker_tables import FILES, Tables, read_speakers, write_speakers
from local.trial_lists import OFFICIAL, ORIGINAL, TrialList, find_files
from utils.arguments import share
from utils.errors import InputError, first_five, run_main
from utils.kaldi.data_dir import DataDir, write_data_dirs

PARTS = ("voxceleb1-dev", "voxceleb1-test", "voxceleb2-dev", "voxceleb2-test")
CORPORA = {"voxceleb1": "voxceleb1-dev", "voxceleb2": "voxceleb2-dev"}  # short for their dev parts
TEST_SPEAKERS = {f"id{number}" for number in range(10270, 10310)}  # of VoxCeleb1


def tell(message: str) -> None:
    """Print a remark about the data."""
    print(f"prepare_voxceleb: {message}", file=sys.stderr)


def collect(root: Path, number: int, names: Mapping[str, str], test: set[str]) -> list[Utterance]:
    """Find the utterances of VoxCeleb<number>; their `part` becomes one of PARTS.

    test: the test speakers, needed if dev and test are merged.
    """
    utterances = []
    for one in find_utterances(root, number, names):
        part = one.part if one.part != "merged" else "test" if one.speaker in test else "dev"
        utterances.append(one._replace(part=f"voxceleb{number}-{part}"))
    for part in PARTS:
        speakers = [one.speaker for one in utterances if one.part == part]
        if speakers:
            tell(f"{root}: {part}: {len(set(speakers))} speakers, {len(speakers)} utterances")
    strange = sorted({one.speaker for one in utterances if not re.fullmatch(r"(id|simulated)\d+", one.speaker)})
    if strange:
        what = "not in vox1_meta.csv" if names else "not ids (if the lists have ids, map the names with --meta)"
        tell(f"{root}: {len(strange)} names of speakers are {what}: {first_five(strange)}")
    return utterances


def choose_lists(lists: Sequence[TrialList], named: bool, train: set[str], present: set[str],
                 limit: float) -> list[TrialList]:
    """Return the lists to use: all if they were `named`; otherwise those that suit the audio and the training data.

    train, present: the training speakers, and the speakers with audio. limit: the share of a list's speakers
    that may be in the training data. Raises InputError if a list exceeds it, or if no list is left.
    """
    chosen, reasons = [], []
    for one in lists:
        speakers = set(one.speakers.values())
        shared, absent = sorted(speakers & train), sorted(speakers - present)
        number = len(speakers)
        if not named and len(absent) > number / 2:
            reasons.append(f"{one.path} left out: {len(absent)} of its {number} speakers have no audio")
        elif not named and len(shared) > number * max(limit, 1 / 2):
            reasons.append(f"{one.path} left out: {len(shared)} of its {number} speakers are in the training data")
        else:
            judge(f"speakers of {one.path} are also in the training data", shared, number, limit,
                  "--max-shared-speakers", "name lists of other speakers with --lists")
            chosen.append(one)
    for reason in reasons:
        tell(reason)
    if not chosen:
        why = f" ({'; '.join(reasons)})" if reasons else ""
        raise InputError(f"no trial list to test on{why}; put veri_test.txt into the corpus folder or name "
                         "lists with --lists")
    return chosen


def usable(utterances: Sequence[Utterance], limit: float) -> set[str]:
    """Return the ids of usable audio files; raises InputError if too many are unusable."""
    paths = [one.path for one in utterances]
    faults = file_faults(paths)
    for kind, files in by_kind(paths, faults):
        tell(f"{len(files)} of {len(paths)} audio files {kind}: {first_five(files)}")
    bad = [f"{path} ({fault})" for path, fault in zip(paths, faults, strict=True) if fault]
    judge("audio files cannot be used", bad, len(paths), limit, "--max-missing",
          "get them again or remove them")
    return {one.id for one, fault in zip(utterances, faults, strict=True) if not fault}


def data_dir(utterances: Sequence[Utterance], keep: set[str]) -> DataDir:
    """Return wav.scp and utt2spk of the utterances in `keep`."""
    kept = [one for one in utterances if one.id in keep]
    return DataDir([one.id for one in kept], {"utt2spk": [one.speaker for one in kept],
                                              "wav.scp": [one.path for one in kept]})


def name_lists(chosen: Sequence[TrialList]) -> dict[str, TrialList]:
    """Return the lists by their names under trials/; raises InputError if two have the same name."""
    named: dict[str, TrialList] = {}
    for one in chosen:
        other = named.setdefault(one.path.stem, one)
        if other is not one:
            raise InputError(f"{one.path} and {other.path} have the same name; rename one")
    return named


def prepare(arguments: argparse.Namespace) -> None:
    """Find and check all data, then write; raises InputError before anything is written."""
    roots = {number: root for number, root in ((1, arguments.voxceleb1_root), (2, arguments.voxceleb2_root))
             if root}
    if not roots:
        raise InputError("no corpus; name --voxceleb1-root or --voxceleb2-root")
    found = find_files(roots[1], ("vox1_meta.csv",)) if 1 in roots else []
    meta = [arguments.meta] if arguments.meta else found
    names = read_names(meta[0]) if meta else {}
    official = [path for root in roots.values() for path in find_files(root, OFFICIAL)]
    lists = {path: TrialList(path, names) for path in arguments.lists or official}
    original = [lists[path] if path in lists else TrialList(path, names)
                for path in dict.fromkeys([*lists, *official]) if path.name in ORIGINAL]
    test_speakers = TEST_SPEAKERS.union(*(one.speakers.values() for one in original))

    utterances = sorted(one for number, root in roots.items()
                        for one in collect(root, number, names, test_speakers if number == 1 else set()))
    train = [one for one in utterances if one.part in arguments.train]
    if not train:
        raise InputError(f"no audio of {', '.join(arguments.train)} in {', '.join(map(str, roots.values()))}; name "
                         "the folders that hold it")
    trained, present = {one.speaker for one in train}, {one.speaker for one in utterances}
    chosen = name_lists(choose_lists(list(lists.values()), bool(arguments.lists), trained, present,
                                     arguments.max_shared_speakers))
    wanted = set().union(*(one.speakers for one in chosen.values()))
    test = [one for one in utterances if one.id in wanted]
    good = usable(sorted({*train, *test}), arguments.max_missing)
    sets = {"train": data_dir(train, good), "test": data_dir(test, good)}
    write_sets(arguments.data, *sets.values(), chosen, arguments.max_missing_trials)
    known: Tables = {}
    for path in (path for root in roots.values() for path in find_files(root, FILES)):
        for name, table in read_speakers(path).items():
            known[name] = known.get(name, {}) | table
    for name, data in sets.items():
        write_speakers(arguments.data / name, data.speakers, known)


def write_sets(folder: Path, train: DataDir, test: DataDir, lists: Mapping[str, TrialList],
               limit: float) -> None:
    """Write train and test; raises InputError if too many of a list's utterances are not in test."""
    known = set(test.ids)
    for one in lists.values():
        judge(f"utterances of {one.path} have no usable audio", sorted(set(one.speakers) - known),
              len(one.speakers), limit, "--max-missing-trials",
              "name the corpus folder that holds them, or the list of its release")
        if one.carriage_returns:
            tell(f"{one.path}: {one.carriage_returns} carriage returns (Windows line ends) ignored")
    trials = {name: one.lines(known) for name, one in lists.items()}
    write_data_dirs({folder / "train": (train, {}), folder / "test": (test, trials)})
    for name, data in (("train", train), ("test", test)):
        print(f"{folder / name}: {len(set(data.speakers))} speakers, {len(data.ids)} utterances")
    for name, one in lists.items():
        left_out = f" of {one.trials}, the others without audio" if one.written < one.trials else ""
        print(f"{folder / 'test/trials' / name}: {one.written} trials{left_out}")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voxceleb1-root", type=Path, metavar="DIR", help="folder of VoxCeleb1")
    parser.add_argument("--voxceleb2-root", type=Path, metavar="DIR", help="folder of VoxCeleb2")
    parser.add_argument("--lists", type=Path, nargs="+", action="extend", metavar="FILE",
                        help="trial lists, lines `1|0 <path> <path>` (default: those in the corpus folder)")
    parser.add_argument("--train", default="voxceleb1-dev,voxceleb2-dev", metavar="PARTS",
                        help=f"parts to train on, of {','.join(PARTS)},\nor voxceleb1, voxceleb2 for their dev parts "
                             "(default: %(default)s)")
    parser.add_argument("--meta", type=Path, metavar="FILE",
                        help="vox1_meta.csv, which maps names to ids (default: the one in the corpus folder)")
    for option, meaning in (("--max-missing", "audio files that are missing, empty, cut short or unreadable"),
                            ("--max-missing-trials", "utterances of a trial list that have no audio"),
                            ("--max-shared-speakers", "speakers of a trial list that are in the training data")):
        parser.add_argument(option, type=share(option), default=0.0, metavar="SHARE",
                            help=f"stop above this share of {meaning} (default: 0)")
    parser.add_argument("data", type=Path, nargs="?", help="folder to write train and test into")
    arguments = parser.parse_args()
    if arguments.data is None and len(arguments.lists or ()) > 1:
        arguments.data = arguments.lists.pop()  # `--lists a b data`: argparse takes all three as lists
    if arguments.data is None:
        parser.error("the argument `data`, the folder to write into, is missing")
    arguments.train = [CORPORA.get(name, name) for name in arguments.train.split(",")]
    unknown = sorted(set(arguments.train) - set(PARTS))
    if unknown:
        parser.error(f"--train: {unknown[0]!r} is not one of {', '.join((*CORPORA, *PARTS))}")
    return arguments


def main() -> None:
    prepare(parse_arguments())


if __name__ == "__main__":
    run_main(main)
