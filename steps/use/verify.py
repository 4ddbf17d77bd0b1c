"""Say whether two recordings are of one speaker: score, log-likelihood ratio, and the decision at a prior.

The ratio compares how probable the score is for one speaker and for two. It comes from a calibration on held-out
training speakers, and holds for recordings like theirs. At a prior P of one speaker, it is cheapest to say "same
speaker" if the ratio is at least ln((1 - P) / P), both kinds of errors costing the same. Warnings name what makes a
recording less reliable.
e.g.: utils/verify xvector_bundle a.wav b.m4a --prior 0.01
"""

import argparse

from nnet.embed import load
from steps.backend.interface import Enrolment
from steps.use.listen import add_common, listen
from steps.use.scoring import Scoring, probability
from utils.arguments import prior_of
from utils.errors import run_main
from utils.metrics import bayes_threshold


def lines(scoring: Scoring, score: float, prior: float | None) -> list[str]:
    """Return what is printed."""
    found = [f"score        {score:.4f} (chain {scoring.name}: {scoring.chain.words}; higher: rather one speaker)"]
    if scoring.calibration is None:
        return [*found, "decision     none: the chain is not calibrated (steps/train_calibration.sh)"]
    known = scoring.calibration
    prior = prior or known.prior
    ratio, threshold = float(scoring.ratios(score)), bayes_threshold(prior)
    same = ratio >= threshold
    return [*found,
            f"ratio        {ratio:.3f} (log-likelihood ratio, natural logarithm)",
            f"decision     {'same speaker' if same else 'different speakers'} (threshold {threshold:.3f} at prior "
            f"{prior:g})",
            f"probability  {probability(ratio, prior):.4f} of one speaker, at prior {prior:g}",
            f"calibration  {known.trials} trials of held-out training speakers, EER {known.eer:.2f} %"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="utils/verify", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prior", type=prior_of, help="probability of one speaker, before listening "
                        "(default: that of the calibration)")
    parser.add_argument("--chain", default="", help="name of a back-end (default: the best calibrated one)")
    add_common(parser)
    parser.add_argument("first", help="recording")
    parser.add_argument("second", help="recording")
    arguments = parser.parse_args()
    model = load(arguments.bundle, arguments.device)  # first: it makes sure that a bundle is unchanged
    scoring = Scoring.load(arguments.bundle, arguments.chain)
    vectors, _ = listen(model, [arguments.first, arguments.second])
    score = scoring.scores(Enrolment(vectors[:1]), vectors[1:])[0, 0]
    print("\n".join(lines(scoring, float(score), arguments.prior)))


if __name__ == "__main__":
    run_main(main)
