"""Adapt a PLDA model to unlabelled embeddings of another domain, as Kaldi's ivector-adapt-plda.

The embeddings are processed with the back-end's mean and LDA transform. The new back-end folder has the same mean and
transform, and the adapted PLDA.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from steps.backend.embeddings import read_embeddings
from steps.backend.lda import process
from steps.backend.lda_plda import LdaPlda
from steps.backend.plda import adapt
from utils.arguments import share
from utils.errors import InputError, run_main
from utils.kaldi.shared_speakers import trained_speakers, write_speakers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--within", type=share("--within"), default=0.75, help="share of the excess variance for W")
    parser.add_argument("--between", type=share("--between"), default=0.25, help="share of the excess variance for B")
    parser.add_argument("folder", type=Path, help="back-end: mean.vec, transform.mat, plda")
    parser.add_argument("embeddings", type=Path, help="script or archive of vectors, or the folder with its script")
    parser.add_argument("out", type=Path, help="folder of the adapted back-end")
    arguments = parser.parse_args()
    if arguments.within + arguments.between > 1:
        raise InputError(f"--within {arguments.within} and --between {arguments.between}: the sum is more than 1")
    backend = LdaPlda.load(arguments.folder)
    _, x = read_embeddings(arguments.embeddings)
    adapted = adapt(backend.plda, process(x, backend.mean, backend.transform), arguments.within, arguments.between)
    replace(backend, plda=adapted).save(arguments.out)
    write_speakers(arguments.out, trained_speakers(arguments.folder))


if __name__ == "__main__":
    run_main(main)
