"""The mean score of each utterance with the cohort of a chain, as a table `utterance value`: a quality measure.

The chain ends in normalisation; asnorm300 gives the mean of the 300 highest scores.
"""

import argparse
from pathlib import Path

from steps.backend.chain import Chain
from steps.backend.embeddings import read_embeddings
from steps.backend.interface import Enrolment
from steps.backend.score_norm import cohort_normal, cohort_threads
from utils.errors import InputError, run_main
from utils.files import write_aside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="of one chain that normalises scores")
    parser.add_argument("embeddings", type=Path, help="script or archive of vectors, or the folder with its script")
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    chain = Chain.load(arguments.folder)
    if chain.words.norm is None or chain.cohort is None:
        raise InputError(f"{arguments.folder}: the chain {chain.words} has no cohort; name one that ends in asnorm300 "
                         "or the like")
    ids, x = read_embeddings(arguments.embeddings)
    found = cohort_normal(chain.plain_scorer(Enrolment(x), chain.cohort), len(x), len(chain.cohort),
                          chain.words.norm.number or 0, cohort_threads())
    with write_aside(arguments.table) as stream:
        stream.writelines(f"{name} {value:.6g}\n" for name, value in zip(ids, found.mean, strict=True))


if __name__ == "__main__":
    run_main(main)
