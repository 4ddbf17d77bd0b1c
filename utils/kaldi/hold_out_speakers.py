"""Hold out training speakers for validating networks, so that test trials never choose a model.

Draws speakers by --seed and writes <valid>, their utterances with a balanced list of trials among them
(trials/valid), and <rest>, all other speakers. Target trials pair utterances of different sessions (ids
up to the last `-`: VoxCeleb's videos) if a speaker has several.
e.g.: python3 -m utils.kaldi.hold_out_speakers --speakers 40 --trials 20000 data/train data/valid data/train_net
"""

import argparse
import random
from pathlib import Path

import numpy as np

from utils.arguments import seed
from utils.errors import InputError, run_main
from utils.kaldi.data_dir import DataDir, read_data_dir, separate, write_data_dirs

MOST = 1000  # utterances of a speaker that make pairs: half a million


def target_pairs(data: DataDir, rng: np.random.Generator) -> np.ndarray:
    """Return row numbers (N x 2) of all same-speaker pairs, from different sessions if a speaker has several.

    Of a speaker with more than MOST utterances, MOST are drawn.
    """
    sessions = np.unique([one.rpartition("-")[0] for one in data.ids], return_inverse=True)[1]
    found = []
    for _, rows in data.by_speaker():
        drawn = np.array(rows) if len(rows) <= MOST else np.sort(rng.choice(rows, MOST, replace=False))
        pairs = drawn[np.stack(np.triu_indices(len(drawn), 1), axis=1)]
        across = sessions[pairs[:, 0]] != sessions[pairs[:, 1]]
        found.append(pairs[across] if across.any() else pairs)
    return np.concatenate(found)


def nontarget_pairs(data: DataDir, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return row numbers (at most number x 2) of distinct random pairs of utterances of different speakers."""
    count = len(data.ids)
    speakers = np.unique(data.speakers, return_inverse=True)[1]
    if count < 2000:
        pairs = np.stack(np.triu_indices(count, 1), axis=1)
    else:  # far more pairs than needed: draw four times as many as wanted, then drop the unsuitable ones
        pairs = np.unique(np.sort(rng.integers(count, size=(4 * number, 2)), axis=1), axis=0)
    pairs = pairs[speakers[pairs[:, 0]] != speakers[pairs[:, 1]]]
    return rng.permutation(pairs)[:number]


def make_trials(data: DataDir, number: int, seed: int) -> list[str]:
    """Return the sorted lines of at most `number` trials, half of them target.

    Raises InputError if no speaker has two utterances, or if there is only one speaker.
    """
    rng = np.random.default_rng(seed)
    targets = rng.permutation(target_pairs(data, rng))[:number // 2]
    nontargets = nontarget_pairs(data, len(targets), rng)
    half = min(len(targets), len(nontargets))
    if half == 0:
        raise InputError(f"no {number} balanced trials among {len(set(data.speakers))} speakers with "
                         f"{len(data.ids)} utterances: hold out 2 or more speakers (--speakers), one of them "
                         "with 2 utterances, and ask for 2 or more trials (--trials)")
    lines = [f"{data.ids[first]} {data.ids[second]} {label}\n"
             for label, pairs in (("target", targets[:half]), ("nontarget", nontargets[:half]))
             for first, second in pairs.tolist()]
    return sorted(lines)


def hold_out(data: DataDir, number: int, seed: int) -> tuple[DataDir, DataDir]:
    """Return the utterances of `number` random speakers, and those of all others.

    Raises InputError if either side would have fewer than two speakers.
    """
    speakers = dict(data.by_speaker())
    if number < 2 or len(speakers) - number < 2:
        raise InputError(f"cannot hold out {number} of {len(speakers)} speakers: validation and training "
                         "need 2 or more each; change --speakers or add data")
    drawn = set(random.Random(seed).sample(list(speakers), number))
    sides = ([], [])
    for speaker, rows in speakers.items():
        sides[speaker not in drawn].extend(rows)
    return data.select(sides[0]), data.select(sides[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--speakers", type=int, default=40, help="speakers to hold out (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=20000,
                        help="maximum number of trials among them (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=1, help="seed of the draw (default: %(default)s)")
    parser.add_argument("source", type=Path, help="data directory to draw from")
    parser.add_argument("valid", type=Path, help="data directory to write: the speakers held out")
    parser.add_argument("rest", type=Path, help="data directory to write: all other speakers")
    arguments = parser.parse_args()
    source, valid, rest = arguments.source, arguments.valid, arguments.rest
    separate(valid, [source, rest])
    separate(rest, [source])
    held, kept = hold_out(read_data_dir(source), arguments.speakers, arguments.seed)
    trials = make_trials(held, arguments.trials, arguments.seed)
    write_data_dirs({valid: (held, {"valid": trials}), rest: (kept, {})})
    print(f"{valid}: {arguments.speakers} speakers, {len(held.ids)} utterances, {len(trials)} trials")
    print(f"{rest}: {len(set(kept.speakers))} speakers, {len(kept.ids)} utterances")


if __name__ == "__main__":
    run_main(main)
