"""Adapt a PLDA model to unlabelled embeddings of another domain.

The embeddings are processed with the chain's transforms. The new folder has the same chain with the adapted PLDA.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from steps.backend.adaptation import METHODS
from steps.backend.chain import Chain
from steps.backend.embeddings import read_embeddings
from steps.backend.plda_scoring import TwoCovariance
from utils.arguments import share
from utils.errors import InputError, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="kaldi")
    parser.add_argument("--within", type=share("--within"), help="share of the excess for W (default: the method's)")
    parser.add_argument("--between", type=share("--between"), help="share of the excess for B (default: the method's)")
    parser.add_argument("--chain", default="", help="words of the chain, for a folder without the file `chain`")
    parser.add_argument("folder", type=Path, help="of one chain, with PLDA")
    parser.add_argument("embeddings", type=Path, help="script or archive of vectors, or the folder with its script")
    parser.add_argument("out", type=Path, help="folder of the adapted chain")
    arguments = parser.parse_args()
    shares = {name: value for name in ("within", "between") if (value := getattr(arguments, name)) is not None}
    if arguments.method == "kaldi" and sum(({"within": 0.75, "between": 0.25} | shares).values()) > 1:
        raise InputError(f"--within {shares.get('within', 0.75)} and --between {shares.get('between', 0.25)}: they "
                         "share one excess, but their sum is more than 1")
    chain = Chain.load(arguments.folder, arguments.chain)
    if not isinstance(chain.comparison, TwoCovariance):
        raise InputError(f"{arguments.folder}: the chain {chain.words} has no PLDA to adapt; name a chain with plda")
    _, x = read_embeddings(arguments.embeddings)
    adapted = METHODS[arguments.method](chain.comparison.plda, chain.process(x), **shares)
    replace(chain, comparison=replace(chain.comparison, plda=adapted)).save(arguments.out)


if __name__ == "__main__":
    run_main(main)
