"""Make data/train and data/test of speechocean762: the corpus's training and test speakers, with two trial lists.

test/trials/all: all pairs of utterances of each test speaker, and as many random pairs of different speakers; hard: the
same targets, with non-targets of the same gender and age group (children up to 15, adults). spk2gender and spk2age are
copied.
e.g.: python3 -m local.prepare_speechocean762 --seed 1 /corpora/speechocean762 data
"""

import argparse
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from local.speechocean762 import PARTS, SPEAKERS, UTTERANCES, Speaker, paths, read_corpus
from utils.arguments import seed
from utils.errors import InputError, run_main
from utils.files import write_aside
from utils.kaldi.data_dir import DataDir, write_data_dirs


def data_dir(speakers: Sequence[Speaker]) -> DataDir:
    """Return wav.scp and utt2spk of these speakers."""
    files = {path.replace("/", "-"): (path.split("/")[0], str(Path(file).absolute()))
             for path, file in paths(speakers).items()}
    ids = sorted(files)
    return DataDir(ids, {"utt2spk": [files[one][0] for one in ids], "wav.scp": [files[one][1] for one in ids]})


def draw_trials(speakers: Sequence[Speaker], hard: bool, seed: int) -> list[str]:
    """Return sorted lines `utt utt target|nontarget`, as many non-targets as targets, no pair twice.

    Raises InputError if there are too few pairs of different speakers (hard: of the same gender and age group).
    """
    ids = [[f"{one.id}-{place.replace('/', '-')}" for place, _ in one.utterances] for one in speakers]
    targets = [(*pair, "target") for own in ids for pair in combinations(own, 2)]
    nontargets = [(first, second, "nontarget") for one, other in combinations(range(len(speakers)), 2)
                  if not hard or speakers[one].group == speakers[other].group
                  for first in ids[one] for second in ids[other]]
    if len(nontargets) < len(targets):
        raise InputError(f"{len(speakers)} test speakers give {len(nontargets)} non-targets for {len(targets)} "
                         "targets; more speakers are needed")
    drawn = random.Random(seed).sample(nontargets, len(targets))
    return [f"{' '.join(trial)}\n" for trial in sorted(targets + drawn)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=seed, default=1, help="seed of the non-targets (default: %(default)s)")
    parser.add_argument("--speakers", type=int, default=SPEAKERS, help="expected number (default: %(default)s)")
    parser.add_argument("--utterances", type=int, default=UTTERANCES, help="expected number (default: %(default)s)")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    speakers = read_corpus(arguments.corpus, arguments.speakers, arguments.utterances)
    parts = {part: [one for one in speakers if one.part == part] for part in PARTS}
    trials = {name: draw_trials(parts["test"], hard, arguments.seed)
              for name, hard in (("all", False), ("hard", True))}
    write_data_dirs({arguments.data / "train": (data_dir(parts["train"]), {}),
                     arguments.data / "test": (data_dir(parts["test"]), trials)})
    for part, chosen in parts.items():
        for name in ("gender", "age"):
            with write_aside(arguments.data / part / f"spk2{name}") as stream:
                stream.writelines(f"{one.id} {getattr(one, name)}\n" for one in chosen)
        print(f"{arguments.data / part}: {len(chosen)} speakers, {len(paths(chosen))} utterances")
    for name, lines in trials.items():
        print(f"{arguments.data / 'test/trials' / name}: {len(lines)} trials")


if __name__ == "__main__":
    run_main(main)
