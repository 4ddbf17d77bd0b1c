"""Error rates and costs of the scores of target and non-target trials.

A trial is accepted if its score is at or above the threshold. Each threshold gives a miss rate (targets
rejected) and a false-alarm rate (non-targets accepted); trials of equal score cross the threshold together.
EER: the point where both rates are equal, interpolated linearly between consecutive thresholds. (Kaldi's compute-eer
takes the miss rate at the threshold before: the two differ by at most one target.) minDCF: the minimum over all
thresholds, including the one that rejects everything, of P_target miss + (1 - P_target) false alarms, with unit costs,
divided by min(P_target, 1 - P_target) unless called unnormalised.

For scores that are natural logarithms of likelihood ratios, two more: actual DCF, the same cost at Bayes' threshold
ln((1 - P) / P); and C_llr (Brummer and du Preez 2006), the mean over both kinds of trials of log2(1 + exp(-s)) for
targets and log2(1 + exp(s)) for non-targets: 0 for perfect scores, 1 for scores that say nothing. Their minima over all
monotone maps of the scores come from the convex hull of the ROC, which isotonic regression finds (pool adjacent
violators). `eer_hull` is the equal error rate on that hull: at most the EER, and independent of any interpolation.

`--points` writes the curve itself, a line per threshold, for DET plots (probit axes) and ROC plots (1 - misses).

Time n log n.
"""

import argparse
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.arguments import prior_of
from utils.errors import InputError, run_main
from utils.files import write_aside
from utils.labelled_scores import read_kaldi_scores, read_labelled_scores

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
    targets, nontargets = _checked(targets, nontargets)
    costs = {prior: _min_dcf(targets, nontargets, prior) for prior in PRIORS}
    return Metrics(len(targets) + len(nontargets), len(targets), 100 * _eer(targets, nontargets),
                   costs[0.01] / 0.01, costs[0.05] / 0.05, costs[0.01], costs[0.05])


def _checked(targets: np.ndarray, nontargets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both kinds of scores sorted; raises InputError if one is empty or has a NaN."""
    targets, nontargets = np.sort(targets), np.sort(nontargets)
    for scores, kind in ((targets, "target"), (nontargets, "nontarget")):
        if not len(scores):
            raise InputError(f"no {kind} trial: error rates need targets and nontargets")
        if np.isnan(scores[-1]):  # sorted last
            raise InputError(f"{np.count_nonzero(np.isnan(scores))} {kind} scores are NaN; score again")
    return targets, nontargets


@dataclass
class LlrMetrics:
    """The figures of scores that are log-likelihood ratios, from 0; normalised costs."""

    cllr: float
    min_cllr: float
    actdcf01: float
    actdcf05: float


def measure_llr(targets: np.ndarray, nontargets: np.ndarray) -> LlrMetrics:
    """Return the metrics of target and non-target log-likelihood ratios; raises InputError like `measure`."""
    targets, nontargets = _checked(targets, nontargets)
    cllr = (np.logaddexp(0, -targets).mean() + np.logaddexp(0, nontargets).mean()) / 2 / np.log(2)
    t, n = (counts / counts.sum() for counts in hull_steps(targets, nontargets))
    with np.errstate(divide="ignore", invalid="ignore"):  # scores of blocks of one kind are infinite, and cost nothing
        least = np.where(t, t * np.log2(1 + n / t), 0).sum() + np.where(n, n * np.log2(1 + t / n), 0).sum()
    return LlrMetrics(float(cllr), float(least / 2), *(act_dcf(targets, nontargets, prior) for prior in PRIORS))


def min_dcf(targets: np.ndarray, nontargets: np.ndarray, prior: float) -> float:
    """Return the normalised minDCF of sorted scores at P_target `prior`, between 0 and 1."""
    return _min_dcf(targets, nontargets, prior) / min(prior, 1 - prior)


def act_dcf(targets: np.ndarray, nontargets: np.ndarray, prior: float) -> float:
    """Return the normalised actual DCF of sorted log-likelihood ratios at P_target `prior`, between 0 and 1."""
    line = bayes_threshold(prior)
    miss = np.searchsorted(targets, line) / len(targets)
    alarm = 1 - np.searchsorted(nontargets, line) / len(nontargets)
    return float((prior * miss + (1 - prior) * alarm) / min(prior, 1 - prior))


def bayes_threshold(prior: float) -> float:
    """Return the log-likelihood ratio at and above which accepting costs less, with unit costs: ln((1 - P) / P)."""
    return float(np.log((1 - prior) / prior))


def hull_steps(targets: np.ndarray, nontargets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of targets and of non-targets between neighbouring vertices of the ROC's convex hull.

    From the lowest scores to the highest; isotonic regression of the share of targets finds the blocks.
    """
    from scipy.optimize import isotonic_regression  # here: bayes_threshold alone must not wait for SciPy

    _, group = np.unique(np.concatenate([targets, nontargets]), return_inverse=True)
    kinds = np.arange(len(group)) < len(targets)
    of_targets, of_both = np.bincount(group, kinds), np.bincount(group)
    starts = isotonic_regression(of_targets / of_both, weights=of_both).blocks[:-1]
    t, both = np.add.reduceat(of_targets, starts), np.add.reduceat(of_both, starts)
    return t, both - t


def eer_hull(targets: np.ndarray, nontargets: np.ndarray) -> float:
    """Return the equal error rate, in %, on the ROC's convex hull; raises InputError like `measure`."""
    t, n = (counts / counts.sum() for counts in hull_steps(*_checked(targets, nontargets)))
    miss, alarm = np.cumsum(t), 1 - np.cumsum(n)  # above each block
    place = int(np.argmax(miss >= alarm))
    before_miss, before_alarm = miss[place] - t[place], alarm[place] + n[place]
    return 100 * float(before_miss + t[place] * (before_alarm - before_miss) / (t[place] + n[place]))


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


def det_points(targets: np.ndarray, nontargets: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return thresholds in ascending order, with the false-alarm and miss rates (0 to 1) at each: (P,) each.

    Thresholds are scores: all of them, or, of more than 2 `most` of a kind, a selection with which the logarithms of
    both rates change in equal steps.
    """
    targets, nontargets = np.sort(targets), np.sort(nontargets)
    thresholds = np.unique(np.concatenate([_thinned(targets, most), _thinned(nontargets, most)]))
    return (thresholds, 1 - np.searchsorted(nontargets, thresholds) / len(nontargets),
            np.searchsorted(targets, thresholds) / len(targets))


def _thinned(scores: np.ndarray, most: int) -> np.ndarray:
    """Return at most 2 `most` of the sorted scores, dense at both ends."""
    if len(scores) <= 2 * most:
        return scores
    ranks = np.unique(np.geomspace(1, len(scores) // 2, most).astype(int)) - 1
    return scores[np.concatenate([ranks, len(scores) - 1 - ranks])]


def write_points(path: Path, targets: np.ndarray, nontargets: np.ndarray) -> None:
    """Write lines `threshold miss false_alarm` of all scores, in ascending order, below a line with these words."""
    thresholds, false_alarms, misses = det_points(targets, nontargets, len(targets) + len(nontargets))
    with write_aside(path) as stream:
        stream.write("threshold\tmiss\tfalse_alarm\n")
        np.savetxt(stream, np.stack([thresholds, misses, false_alarms], axis=1), fmt="%.9g", delimiter="\t")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("trials", type=Path, help="lines `utt1 utt2 target|nontarget`; or, without scores, the input "
                        "of Kaldi's\ncompute-eer, lines `score target|nontarget`")
    parser.add_argument("scores", type=Path, nargs="?", help="lines `utt1 utt2 score`")
    parser.add_argument("--llr", action="store_true", help="the scores are log-likelihood ratios: also print the EER "
                        "on\nthe ROC's convex hull, C_llr and actual DCF")
    parser.add_argument("--prior", type=prior_of, action="append", default=[], metavar="P",
                        help="print the costs at this P_target, too; may be repeated")
    parser.add_argument("--points", type=Path, help="write the points of the DET curve to this file: lines\n"
                        "`threshold miss false_alarm`")
    arguments = parser.parse_args()
    if arguments.scores:
        parts = read_labelled_scores(arguments.trials, arguments.scores)
    else:
        parts = read_kaldi_scores(arguments.trials)
    found = vars(measure(*parts))
    costs = {"mindcf": min_dcf}
    if arguments.llr:
        found |= {"eer_hull": eer_hull(*parts)} | vars(measure_llr(*parts))
        costs["actdcf"] = act_dcf
    ordered = _checked(*parts)
    found |= {f"{name}_{prior:g}": cost(*ordered, prior) for name, cost in costs.items() for prior in arguments.prior}
    if arguments.points:
        write_points(arguments.points, *parts)
    for name, value in found.items():
        print(f"{name:22} {value:.4f}" if isinstance(value, float) else f"{name:22} {value}")


if __name__ == "__main__":
    run_main(main)
