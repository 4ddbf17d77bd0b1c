"""Calibrate the chains of one system, each on its own, on trials whose labels are given: steps/backend/calibrate.py.

Writes one JSON object; its keys are the names of the chains, the ends of the score files' names. `histogram` counts the
scores of targets and non-targets in bins of equal width from `low` to `high`. A chain that cannot be calibrated,
because its targets do not score higher, is left out with a warning: such a system still has error rates.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from steps.backend.calibrate import report, train, warn_of_no_errors
from utils.arguments import prior_of
from utils.errors import InputError, run_main
from utils.files import write_aside
from utils.labelled_scores import read_labelled_scores

BINS = 60


def histogram(targets: np.ndarray, nontargets: np.ndarray) -> dict[str, Any]:
    """Return how many scores of each kind lie in each bin, all scores in one of them."""
    edges = np.histogram_bin_edges(np.concatenate([targets, nontargets]), BINS)
    return {"low": float(edges[0]), "high": float(edges[-1]), "targets": np.histogram(targets, edges)[0].tolist(),
            "nontargets": np.histogram(nontargets, edges)[0].tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prior", type=prior_of, default=0.05, help="probability of a target")
    parser.add_argument("trials", type=Path)
    parser.add_argument("scores", type=Path, nargs="+")
    parser.add_argument("json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, object] = {}
    for path in arguments.scores:
        chain = path.name.rpartition(".")[2]
        targets, nontargets = read_labelled_scores(arguments.trials, path)
        scores = np.concatenate([targets, nontargets])[:, None]
        is_target = np.repeat([True, False], [len(targets), len(nontargets)])
        try:
            calibration = train(scores, is_target, arguments.prior)
        except InputError as error:
            print(f"warning: {path}: not calibrated: {error}", file=sys.stderr)
            continue
        found[chain] = report(calibration, scores, is_target, arguments.prior) | {
            "histogram": histogram(targets, nontargets)}
        warn_of_no_errors(found[chain], str(path))
    with write_aside(arguments.json) as stream:
        stream.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
