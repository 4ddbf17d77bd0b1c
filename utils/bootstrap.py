"""Intervals of error rates, and tests of their differences, by drawing speakers anew (Efron 1979).

Trials of one speaker depend on each other: 15,200 trials of 40 speakers say much less than trials of 15,200 speakers
would. So each replicate draws as many speakers as the list has, with replacement. A speaker who is drawn c times counts
c times: a target trial has the weight c, a non-target trial of speakers a and b the weight c_a c_b. The interval of an
error rate reaches from the 2.5 % to the 97.5 % quantile of the replicates. Two systems on one list get the same
speakers in each replicate, so that the interval of their difference is free of what both share.
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.arguments import seed
from utils.errors import InputError, run_main
from utils.labelled_scores import Scored, read_scores_with_speakers
from utils.metrics import measure

REPLICATES = 1000
LEVELS = (2.5, 97.5)  # %
THRESHOLDS = 20_000  # at most; between more than these, rates are interpolated


class Interval(NamedTuple):
    """Two quantiles of the replicates."""

    low: float
    high: float


def draws(speakers: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each speaker is drawn, one array per replicate."""
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        yield np.bincount(rng.integers(speakers, size=speakers), minlength=speakers).astype(np.float64)


def equal_error_rates(scored: Scored, replicates: int = REPLICATES, seed: int = 1) -> np.ndarray:
    """Return the EER of each replicate, in %.

    A replicate that draws no target or no non-target, which happens with a few speakers, is NaN. Raises InputError if
    the list has fewer than two speakers.
    """
    known, numbers = np.unique(scored.speakers, return_inverse=True)
    if len(known) < 2:
        raise InputError(f"the list has {len(known)} speakers: an interval over speakers needs two or more")
    order = np.argsort(scored.values, kind="stable")
    numbers = numbers.reshape(-1, 2)[order].astype(np.int32)
    values, is_target = scored.values[order], scored.is_target[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # of each group of equal scores
    last = last[np.linspace(0, len(last) - 1, min(len(last), THRESHOLDS)).round().astype(int)]
    of_targets, (first, second) = numbers[is_target, 0], numbers[~is_target].T.copy()
    up_to = np.cumsum(is_target)[last]  # targets up to each threshold

    def eer(counts: np.ndarray) -> float:
        targets = np.append(0, np.cumsum(counts[of_targets]))[up_to]
        nontargets = np.append(0, np.cumsum(counts[first] * counts[second]))[last + 1 - up_to]
        return weighted_eer(targets, nontargets)

    with ThreadPoolExecutor(8) as pool:  # numpy computes outside of Python's lock
        return np.array(list(pool.map(eer, draws(len(known), replicates, seed))))


def weighted_eer(targets: np.ndarray, nontargets: np.ndarray) -> float:
    """Return the EER in %, interpolated as in utils/metrics.py; NaN if a kind of trials has no weight.

    targets, nontargets: weights of the trials with scores up to each value, which ascend.
    """
    if not targets[-1] or not nontargets[-1]:
        return np.nan
    miss, alarm = targets / targets[-1], 1 - nontargets / nontargets[-1]
    place = int(np.argmax(miss >= alarm))
    before_miss, before_alarm = (miss[place - 1], alarm[place - 1]) if place else (0.0, 1.0)
    above, below = before_alarm - before_miss, miss[place] - alarm[place]
    return 100 * float(before_miss + (miss[place] - before_miss) * above / (above + below))


def interval(replicates: np.ndarray) -> Interval:
    """Return the quantiles of the replicates that are numbers."""
    return Interval(*map(float, np.nanpercentile(replicates, LEVELS)))


def chance(differences: np.ndarray) -> float:
    """Return the two-sided probability that a difference of zero or of the other sign is due to the speakers."""
    differences = differences[~np.isnan(differences)]
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return min(1.0, 2 * (tail + 1) / (len(differences) + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=seed, default=1, help="of the drawn speakers (default: %(default)s)")
    parser.add_argument("trials", type=Path, help="lines `utt1 utt2 target|nontarget`")
    parser.add_argument("utt2spk", type=Path, help="the speakers of the list's utterances")
    parser.add_argument("scores", type=Path, nargs="+", help="files of scores, lines `utt1 utt2 score`; each one is "
                        "compared with the first")
    arguments = parser.parse_args()
    first: np.ndarray | None = None
    for path in arguments.scores:
        scored = read_scores_with_speakers(arguments.trials, path, arguments.utt2spk)
        eer, replicates = measure(*scored.parts()).eer, equal_error_rates(scored, seed=arguments.seed)
        line = "{}  EER {:.2f} %, interval {:.2f} to {:.2f}".format(path, eer, *interval(replicates))
        if first is None:
            first, first_eer = replicates, eer
        else:
            differences = replicates - first
            line += "; {:+.2f}, interval {:+.2f} to {:+.2f}, p {:.3f}".format(
                eer - first_eer, *interval(differences), chance(differences))
        print(line)


if __name__ == "__main__":
    run_main(main)
