"""Calibrate the scores of one system, or fuse those of several, to log-likelihood ratios.

The ratio is f = w_1 s_1 + .. + w_S s_S + b (natural logarithm), w >= 0: higher scores never speak against a target, and
many systems do not fit the few speakers that they are fused on. w and b minimise the cross-entropy at a prior P of
targets (Brummer and du Preez 2006), with both kinds of trials weighted to it:
    P mean over targets of log(1 + exp(-f - l)) + (1 - P) mean over non-targets of log(1 + exp(f + l)),
with l = ln(P / (1 - P)).
They are fitted to trials whose labels are given: those of held-out training speakers. Speakers of the trials to be
calibrated are refused, and their labels are never read. At and above -l, accepting a trial costs less than rejecting
it; the JSON file has that threshold and the error rates of the training trials at it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from steps.backend.quality import LOG, of_labelled, of_scores
from steps.backend.scoring import count_columns, score_lines
from utils.arguments import prior_of, share
from utils.errors import InputError, run_main
from utils.files import write_aside
from utils.kaldi.ark import read_table
from utils.kaldi.shared_speakers import refuse_shared
from utils.labelled_scores import read_aligned_scores, read_labelled_scores
from utils.metrics import bayes_threshold, measure, measure_llr
from utils.text_lines import IdTable, locate, read_blocks

UNFIT = 4  # exit status, where the training trials tell nothing: the recipe then goes on without a fusion
RIDGE = 1e-6  # on the weights of standardised scores: finite even where no trial is wrong


class Calibration(NamedTuple):
    """f = weights . s + offset."""

    weights: np.ndarray
    offset: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Return the log-likelihood ratios of N x S scores."""
        return scores @ self.weights + self.offset


def train(scores: np.ndarray, is_target: np.ndarray, prior: float, measures: int = 0) -> Calibration:
    """Fit to N x S scores. The last `measures` columns are quality measures, whose weights may be negative.

    Raises InputError if a kind of trials is missing, or the values of a column are all alike.
    """
    for wanted, kind in ((True, "target"), (False, "nontarget")):
        if not (is_target == wanted).any():
            raise InputError(f"no {kind} trial: calibration needs targets and nontargets")
    alike = scores.min(axis=0) == scores.max(axis=0)
    if alike.any():
        column, systems = int(np.argmax(alike)), scores.shape[1] - measures
        raise InputError(f"all scores of system {column + 1} are alike; score again" if column < systems else
                         f"all values of quality measure {(column - systems) // 2 + 1} are alike; leave it out")
    mean, deviation = scores.mean(axis=0), scores.std(axis=0)
    x, sign = (scores - mean) / deviation, np.where(is_target, 1.0, -1.0)
    # At a prior of one in a thousand, the cross-entropy is so small that ridge and tolerances would decide.
    scale = min(1.0, min(prior, 1 - prior) / 0.05)
    weight = np.where(is_target, prior / is_target.sum(), (1 - prior) / (~is_target).sum()) / scale
    prior_odds = -bayes_threshold(prior)

    def cost(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[:-1] + w[-1] + prior_odds)
        slope = -sign * weight * expit(-margin)
        value = weight @ np.logaddexp(0, -margin) + RIDGE * w[:-1] @ w[:-1]
        return float(value), np.append(slope @ x + 2 * RIDGE * w[:-1], slope.sum())

    start, bounds = np.zeros(x.shape[1] + 1), [(0, None)] * (x.shape[1] - measures) + [(None, None)] * (measures + 1)
    options = {"maxiter": 10_000, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    if not found[:x.shape[1] - measures].any():
        raise InputError("targets do not score higher than nontargets in any system; look for labels or scores that "
                         "are swapped")
    weights = found[:-1] / deviation
    return Calibration(weights, float(found[-1] - weights @ mean))


def speakers_of(trials: Path) -> set[str]:
    """Return the speakers of a list in a data directory; raises InputError for an utterance without a speaker."""
    ids, names = read_table(trials.absolute().parent.parent / "utt2spk")
    table, columns = IdTable(ids), count_columns(trials)
    rows: set[int] = set()
    for block in read_blocks(trials):
        lines = locate(block, columns)
        for side in (0, 1):
            found = table.find(lines.text, lines.starts[:, side], lines.ends[:, side])
            if (found < 0).any():
                line = int(np.argmin(found))
                raise InputError(f"{block.place(line)}: {lines.field(line, side)} has no speaker in utt2spk of the "
                                 "data directory; name lists of data directories, <data>/trials/<list>")
            rows.update(np.unique(found).tolist())
    return {names[row] for row in rows}


def write_scores(first: Path, values: np.ndarray, output: Path) -> None:
    """Write the lines of a score file with other scores."""
    done = 0
    with write_aside(output, "wb") as stream:
        for block in read_blocks(first):
            lines = locate(block, 3)
            stream.write(score_lines(lines, values[done:done + len(lines.starts)].astype(np.float32)))
            done += len(lines.starts)


def report(calibration: Calibration, scores: np.ndarray, is_target: np.ndarray, prior: float) -> dict[str, Any]:
    """Return what the JSON file holds: weights, threshold, and the error rates of the training trials at it."""
    ratios = calibration(scores)
    targets, nontargets, threshold = ratios[is_target], ratios[~is_target], bayes_threshold(prior)
    return {"weights": calibration.weights.tolist(), "offset": calibration.offset,
            "prior": prior, "threshold": threshold, "trials": len(ratios), "targets": len(targets),
            "miss": float((targets < threshold).mean()),
            "false_alarm": float((nontargets >= threshold).mean()),
            "eer": measure(targets, nontargets).eer, **vars(measure_llr(targets, nontargets))}


def warn_of_no_errors(found: dict[str, Any], what: str) -> None:
    """Say so if no training trial was wrong: then nothing bounds the size of the ratios."""
    if found["eer"] == 0:
        print(f"{what}: no training trial is wrong, so the size of the ratios is arbitrary; use more trials",
              file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prior", type=prior_of, default=0.05, help="probability of a target")
    parser.add_argument("--max-shared-speakers", type=share("--max-shared-speakers"), default=0.0)
    parser.add_argument("--train-scores", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--scores", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--train-quality", nargs="*", default=[], metavar="[log:]TABLE")
    parser.add_argument("--quality", nargs="*", default=[], metavar="[log:]TABLE")
    parser.add_argument("train_trials", type=Path)
    parser.add_argument("trials", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("json", type=Path)
    arguments = parser.parse_args()
    if len(arguments.train_scores) != len(arguments.scores):
        raise InputError(f"{len(arguments.train_scores)} files of scores to train on, {len(arguments.scores)} to apply "
                         "to; name the same systems in the same order")
    if len(arguments.train_quality) != len(arguments.quality):
        raise InputError(f"{len(arguments.train_quality)} quality measures to train on, {len(arguments.quality)} to "
                         "apply to; name the same ones in the same order")
    for one, other in zip(arguments.train_quality, arguments.quality, strict=True):
        if one.startswith(LOG) != other.startswith(LOG):
            raise InputError(f"--train-quality names {one}, --quality {other}; put {LOG} before both or neither")
    refuse_shared(speakers_of(arguments.train_trials), speakers_of(arguments.trials), str(arguments.trials),
                  arguments.max_shared_speakers)
    parts = [read_labelled_scores(arguments.train_trials, path) for path in arguments.train_scores]
    is_target = np.repeat([True, False], [len(part) for part in parts[0]])
    train_scores = np.stack([np.concatenate(part) for part in parts], axis=1)
    scores = read_aligned_scores(arguments.scores)
    if arguments.quality:
        train_scores = np.hstack([train_scores, of_labelled(arguments.train_trials, arguments.train_scores[0],
                                                            arguments.train_quality)])
        scores = np.hstack([scores, of_scores(arguments.scores[0], arguments.quality)])
    try:
        calibration = train(train_scores, is_target, arguments.prior, 2 * len(arguments.quality))
    except InputError as error:
        print(f"steps.backend.calibrate: error: {error}", file=sys.stderr)
        raise SystemExit(UNFIT) from error
    found = {"systems": [str(path) for path in arguments.scores], "quality": arguments.quality,
             **report(calibration, train_scores, is_target, arguments.prior)}
    warn_of_no_errors(found, "calibration")
    write_scores(arguments.scores[0], calibration(scores), arguments.out)
    with write_aside(arguments.json) as stream:
        stream.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
