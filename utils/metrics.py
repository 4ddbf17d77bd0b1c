"""Equal error rate and minimum detection cost of a score file.

A trial is accepted if its score is at or above the threshold. Each threshold gives a miss rate (targets
rejected) and a false-alarm rate (non-targets accepted); trials of equal score cross the threshold together.
EER: the point where both rates are equal, interpolated linearly between consecutive thresholds. (Kaldi's compute-eer
takes the miss rate at the threshold before: the two differ by at most one target.) minDCF: the minimum over all
thresholds, including the one that rejects everything, of P_target miss + (1 - P_target) false alarms, with unit costs,
divided by min(P_target, 1 - P_target) unless called unnormalised. Scores and trials are joined by both ids; each trial
has one score and each score one trial.

Time n log n; memory about 60 bytes per trial, i.e. 3.5 GB for 58 million.
"""

import argparse
import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from utils.errors import InputError, first_five, run_main
from utils.kaldi.trials import labels, read_trials
from utils.text_lines import Block, Lines, hash_words, in_threads, locate, read_blocks
from utils.text_numbers import parse_numbers

PRIORS = (0.01, 0.05)


@dataclass
class Metrics:
    """The figures reported for a trial list; the EER in %, the others from 0 to 1."""

    trials: int
    targets: int
    eer: float
    mindcf01: float
    mindcf05: float
    mindcf01_unnormalised: float
    mindcf05_unnormalised: float


def measure(targets: np.ndarray, nontargets: np.ndarray) -> Metrics:
    """Return the metrics of target and non-target scores (1-D each); raises InputError if one is empty."""
    targets, nontargets = np.sort(targets), np.sort(nontargets)
    for scores, kind in ((targets, "target"), (nontargets, "nontarget")):
        if not len(scores):
            raise InputError(f"no {kind} trial: error rates need targets and nontargets")
        if np.isnan(scores[-1]):  # sorted last
            raise InputError(f"{np.count_nonzero(np.isnan(scores))} {kind} scores are NaN; score again")
    costs = {prior: _min_dcf(targets, nontargets, prior) for prior in PRIORS}
    return Metrics(len(targets) + len(nontargets), len(targets), 100 * _eer(targets, nontargets),
                   costs[0.01] / 0.01, costs[0.05] / 0.05, costs[0.01], costs[0.05])


def _eer(targets: np.ndarray, nontargets: np.ndarray) -> float:
    """Equal error rate (0 to 1) of sorted scores."""
    def rates(score: float, side: str) -> tuple[float, float]:
        """Miss and false-alarm rate with the threshold at the score (left) or just above it (right)."""
        return (np.searchsorted(targets, score, side) / len(targets),
                1 - np.searchsorted(nontargets, score, side) / len(nontargets))

    def crossed(score: float) -> bool:
        miss, false_alarm = rates(score, "right")
        return miss >= false_alarm

    # The first target whose rejection raises the misses to the false alarms; the last target always does.
    score = targets[bisect_left(targets, True, key=crossed)]
    miss, false_alarm = rates(score, "left")
    if miss >= false_alarm:  # rejecting the non-targets below it was enough
        return miss
    after_miss, after_false_alarm = rates(score, "right")
    above, below = false_alarm - miss, after_miss - after_false_alarm
    return miss + (after_miss - miss) * above / (above + below)


def _min_dcf(targets: np.ndarray, nontargets: np.ndarray, prior: float) -> float:
    """Minimum detection cost of sorted scores, unnormalised.

    The best threshold is one of the target scores (raising a threshold up to the next target only saves false
    alarms) or above all scores. Among equal targets, all but the first count too many misses here, which never gives
    the minimum.
    """
    misses = np.arange(len(targets)) / len(targets)
    false_alarms = 1 - np.searchsorted(nontargets, targets) / len(nontargets)
    return min(prior, float((prior * misses + (1 - prior) * false_alarms).min()))


def _read_trials(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Read lines `id id label`: return hashes of the id pairs (uint64), and whether each is a target (bool)."""
    lines, is_target = read_trials(block)
    return hash_words(lines.text, lines.starts[:, 0], lines.ends[:, 1]), is_target


def _read_scores(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Read lines `id id score`: return hashes of the id pairs (uint64), and the scores (float64)."""
    lines = locate(block, 3)
    return hash_words(lines.text, lines.starts[:, 0], lines.ends[:, 1]), _numbers(lines, 2)


def _numbers(lines: Lines, column: int) -> np.ndarray:
    numbers = parse_numbers(lines.text, lines.starts[:, column], lines.ends[:, column])
    wrong = np.flatnonzero(np.isnan(numbers))
    if len(wrong):
        raise InputError(f"{lines.block.place(wrong[0])}: score {lines.field(wrong[0], column)!r} is not a finite "
                         "number; score again")
    return numbers


def _read_kaldi(block: Block) -> tuple[np.ndarray, np.ndarray]:
    lines = locate(block, 2)
    return _numbers(lines, 0), labels(lines)


def read_kaldi_scores(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Return target and non-target scores of a file for Kaldi's compute-eer: lines `score target|nontarget`."""
    values, is_target = map(np.concatenate, zip(*in_threads(_read_kaldi, read_blocks(path)), strict=True))
    return values[is_target], values[~is_target]


def read_labelled_scores(trials: str | os.PathLike, scores: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Return target and non-target scores (float64) of a trial list and a score file; their orders may differ.

    A list may hold a pair twice if the score file does. Raises InputError naming pairs without a score,
    scores without a trial, a trial of an id with itself, or a pair that is both target and nontarget.
    """
    readers, parts = (_read_trials, _read_scores), ([], [])

    def jobs() -> Iterator[tuple[int, Block]]:
        for pair in zip_longest(read_blocks(trials), read_blocks(scores)):
            yield from ((kind, block) for kind, block in enumerate(pair) if block is not None)

    for kind, result in in_threads(lambda job: (job[0], readers[job[0]](job[1])), jobs()):
        parts[kind].append(result)
    (pairs, is_target), (scored_pairs, values) = (map(np.concatenate, zip(*part, strict=True)) for part in parts)
    _refuse_both_labels(trials, pairs, is_target)
    if not np.array_equal(pairs, scored_pairs):
        order, scored_order = np.argsort(pairs, kind="stable"), np.argsort(scored_pairs, kind="stable")
        if not np.array_equal(pairs[order], scored_pairs[scored_order]):
            raise InputError(_mismatch(trials, pairs, scores, scored_pairs))
        is_target, values = is_target[order], values[scored_order]
    return values[is_target], values[~is_target]


def _refuse_both_labels(path: str | os.PathLike, pairs: np.ndarray, is_target: np.ndarray) -> None:
    """Raise InputError naming a pair that has both labels, and its lines. pairs: hashes."""
    targets, others = pairs[is_target], pairs[~is_target]
    # Most lists have far more non-targets than targets, and no pair twice: after a look-up in a table of the targets'
    # leading bits, few non-targets remain to be compared.
    shift = np.uint64(64 - min(len(targets).bit_length() + 6, 26))
    marked = np.zeros(1 << (64 - int(shift)), bool)
    marked[targets >> shift] = True
    suspects = np.intersect1d(others[marked[others >> shift]], targets)
    if not len(suspects):
        return
    seen: dict[str, tuple[str, str]] = {}
    for block in read_blocks(path):
        lines = locate(block, 3)
        hashes = hash_words(lines.text, lines.starts[:, 0], lines.ends[:, 1])
        for row in np.flatnonzero(np.isin(hashes, suspects)).tolist():
            pair, label = lines.field(row, 0, 1), lines.field(row, 2)
            place, before = seen.setdefault(pair, (block.place(row), label))
            if before != label:
                raise InputError(f"{block.place(row)}: {pair} is {label} here and {before} in {place}; remove one "
                                 "of the lines")


def _mismatch(trials: str | os.PathLike, pairs: np.ndarray, scores: str | os.PathLike,
              scored_pairs: np.ndarray) -> str:
    unscored, strange = np.setdiff1d(pairs, scored_pairs), np.setdiff1d(scored_pairs, pairs)
    if len(unscored):
        return (f"{scores}: {len(unscored)} trials of {trials} have no score: {_name(trials, unscored)}; "
                "score the list again")
    if len(strange):
        return (f"{scores}: {len(strange)} scores belong to no trial of {trials}: {_name(scores, strange)}; "
                "name the list that was scored")
    (known, times), (scored, scored_times) = (np.unique(p, return_counts=True) for p in (pairs, scored_pairs))
    odd = known[times != scored_times]
    return (f"{scores}: {len(odd)} pairs have more or fewer scores than trials in {trials}: "
            f"{_name(trials, odd)}; remove the duplicates")


def _name(path: str | os.PathLike, wanted: np.ndarray) -> str:
    """Return the names of the first five pairs whose hashes are among `wanted`."""
    names: dict[str, None] = {}
    for block in read_blocks(path):
        lines = locate(block, 3)
        found = np.isin(hash_words(lines.text, lines.starts[:, 0], lines.ends[:, 1]), wanted)
        names.update((lines.field(row, 0, 1), None) for row in np.flatnonzero(found)[:6])
        if len(names) > 5:
            break
    return first_five([*names][:5]) + (f" and {len(wanted) - 5} more" if len(wanted) > 5 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("trials", type=Path, help="lines `utt1 utt2 target|nontarget`; or, without scores, the input "
                        "of Kaldi's\ncompute-eer, lines `score target|nontarget`")
    parser.add_argument("scores", type=Path, nargs="?", help="lines `utt1 utt2 score`")
    arguments = parser.parse_args()
    if arguments.scores:
        metrics = measure(*read_labelled_scores(arguments.trials, arguments.scores))
    else:
        metrics = measure(*read_kaldi_scores(arguments.trials))
    for name, value in vars(metrics).items():
        print(f"{name:22} {value:.4f}" if isinstance(value, float) else f"{name:22} {value}")


if __name__ == "__main__":
    run_main(main)
