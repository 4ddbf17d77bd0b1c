"""Adapt a PLDA model to unlabelled embeddings of another domain.

The embeddings are processed with the back-end's mean and LDA transform. The new back-end folder has the same mean and
transform, and the adapted PLDA.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from steps.backend.adaptation import METHODS
from steps.backend.embeddings import read_embeddings
from steps.backend.lda import process
from steps.backend.lda_plda import LdaPlda
from utils.arguments import share
from utils.errors import InputError, run_main
from utils.kaldi.shared_speakers import trained_speakers, write_speakers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="kaldi")
    parser.add_argument("--within", type=share("--within"), help="share of the excess for W (default: the method's)")
    parser.add_argument("--between", type=share("--between"), help="share of the excess for B (default: the method's)")
    parser.add_argument("folder", type=Path, help="back-end: mean.vec, transform.mat, plda")
    parser.add_argument("embeddings", type=Path, help="script or archive of vectors, or the folder with its script")
    parser.add_argument("out", type=Path, help="folder of the adapted back-end")
    arguments = parser.parse_args()
    shares = {name: value for name in ("within", "between") if (value := getattr(arguments, name)) is not None}
    if arguments.method == "kaldi" and sum(({"within": 0.75, "between": 0.25} | shares).values()) > 1:
        raise InputError(f"--within {shares.get('within', 0.75)} and --between {shares.get('between', 0.25)}: they "
                         "share one excess, but their sum is more than 1")
    backend = LdaPlda.load(arguments.folder)
    _, x = read_embeddings(arguments.embeddings)
    adapted = METHODS[arguments.method](backend.plda, process(x, backend.mean, backend.transform), **shares)
    replace(backend, plda=adapted).save(arguments.out)
    write_speakers(arguments.out, trained_speakers(arguments.folder))


if __name__ == "__main__":
    run_main(main)
