"""Score a trial list: `id1 id2 score` a line, cosine or PLDA.

With --enrolment, the first id of a trial is a model of that table (the mean of some utterances), and
--num-utts says of how many.
"""

import argparse
from pathlib import Path

import numpy as np

from steps.backend.scoring import read_backend, score_trials
from utils.ark import read_table, read_vectors
from utils.errors import InputError, first_five, run_main


def read_num_utts(path: Path, ids: list[str]) -> np.ndarray:
    """Return the number of utterances behind each enrolment vector, from lines `id number`."""
    known = dict(zip(*read_table(path), strict=True))
    missing = [name for name in ids if not known.get(name, "").isdigit() or int(known[name]) < 1]
    if missing:
        raise InputError(f"{path}: no number of utterances for {first_five(missing)}")
    return np.array([int(known[name]) for name in ids])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=("cosine", "plda"), default="plda")
    parser.add_argument("--enrolment", type=Path)
    parser.add_argument("--num-utts", type=Path)
    parser.add_argument("folder", type=Path, help="mean.vec, transform.mat, plda")
    parser.add_argument("embeddings", type=Path, help="script file of vectors")
    parser.add_argument("trials", type=Path)
    parser.add_argument("scores", type=Path)
    arguments = parser.parse_args()
    test_ids, test = read_vectors(arguments.embeddings)
    ids, enrolment = read_vectors(arguments.enrolment) if arguments.enrolment else (test_ids, test)
    num_utts = read_num_utts(arguments.num_utts, ids) if arguments.num_utts else 1
    sides = read_backend(arguments.folder).sides(arguments.backend, enrolment, test, num_utts)
    score_trials(arguments.trials, arguments.scores, sides, ids, test_ids)


if __name__ == "__main__":
    run_main(main)
