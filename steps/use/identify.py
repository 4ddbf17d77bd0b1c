"""Say which enrolled speaker each recording is of, or `unknown`. Writes a line per recording, with tabs:

    <recording>  <name, or unknown>  <probability>  <nearest speaker>  <its log-likelihood ratio>  <its score>

A recording is of one of the N enrolled speakers with the probability P before listening (--prior), each of them being
as likely, and of somebody else with 1 - P. With the calibrated ratio r_i of speaker i, the odds of these answers are
P/N exp(r_i) and 1 - P; the most probable one is given, with its probability.
e.g.: utils/identify xvector_bundle who.wav --prior 0.9
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnet.embed import load
from steps.backend.interface import Enrolment
from steps.use.listen import add_common, listen
from steps.use.scoring import Scoring
from steps.use.store import UNKNOWN, Speaker, Store, model_of, store_beside
from utils.arguments import prior_of
from utils.errors import run_main


def enrolment_of(speakers: Sequence[Speaker]) -> Enrolment:
    """Return the enrolment side: each speaker's model has all of its recordings."""
    ends = np.cumsum([len(speaker.vectors) for speaker in speakers])
    return Enrolment(np.concatenate([speaker.vectors for speaker in speakers]),
                     [np.arange(end - len(speaker.vectors), end) for end, speaker in zip(ends, speakers, strict=True)])


def answer(ratios: np.ndarray, prior: float) -> tuple[int, float]:
    """Return the most probable answer and its probability, of N log-likelihood ratios: a speaker, or N for unknown."""
    log_odds = np.append(ratios + np.log(prior / len(ratios)), np.log1p(-prior)).astype(np.float64)
    odds = np.exp(log_odds - log_odds.max())
    best = int(np.argmax(odds))
    return best, float(odds[best] / odds.sum())


def main() -> None:
    parser = argparse.ArgumentParser(prog="utils/identify", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prior", type=prior_of, default=0.5,
                        help="probability that a recording is of an enrolled speaker (default: %(default)s)")
    parser.add_argument("--store", type=Path, help="folder of the speakers (default: <bundle>.speakers)")
    parser.add_argument("--chain", default="", help="name of a back-end (default: the best calibrated one)")
    add_common(parser)
    parser.add_argument("recordings", nargs="+", help="files")
    arguments = parser.parse_args()
    model = load(arguments.bundle, arguments.device)  # first: it makes sure that a bundle is unchanged
    scoring = Scoring.load(arguments.bundle, arguments.chain)
    speakers = Store(arguments.store or store_beside(arguments.bundle), model_of(arguments.bundle)).read()
    vectors, _ = listen(model, arguments.recordings)
    scores = scoring.scores(enrolment_of(speakers), vectors)
    for path, of_path, ratios in zip(arguments.recordings, scores.T, scoring.ratios(scores).T, strict=True):
        best, sure = answer(ratios, arguments.prior)
        near = int(np.argmax(ratios))
        name = speakers[best].name if best < len(speakers) else UNKNOWN
        print(path, name, f"{sure:.4f}", speakers[near].name, f"{ratios[near]:.3f}", f"{of_path[near]:.4f}", sep="\t")


if __name__ == "__main__":
    run_main(main)
