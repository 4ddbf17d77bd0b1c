"""Train the back-end of a system on its training embeddings: mean.vec, transform.mat (LDA) and plda.

Beside them `speakers` names the training speakers, of whom no trial may be (see utils/kaldi/shared_speakers.py).
Reads the block `backend:` of the system's configuration. The order is that of Kaldi's i-vector recipe:
subtract the mean, LDA, length normalisation, PLDA.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from steps.backend.embeddings import read_embeddings
from steps.backend.lda import estimate_lda, process
from steps.backend.plda import Plda, train_gaussian, train_two_covariance, write_plda
from steps.backend.speaker_stats import collect
from utils.config import Count, Share, build
from utils.errors import InputError, first_five, run_main
from utils.kaldi.ark import read_table
from utils.kaldi.objects import write_matrix, write_vector
from utils.kaldi.shared_speakers import write_speakers
from utils.strict_yaml import read_yaml

EIGENVOICES = 200


@dataclass(frozen=True)
class BackendOptions:
    """The block `backend:`."""

    lda_dim: Count
    total_covariance_factor: Share = 0.0
    plda: Literal["two_covariance", "gaussian"] = "two_covariance"
    eigenvoices: Count | None = None  # of gaussian: 200, unless others are wanted

    def __post_init__(self) -> None:
        if self.eigenvoices and self.plda != "gaussian":
            raise ValueError(f"eigenvoices is {self.eigenvoices}, but plda {self.plda}, which has none; leave it out, "
                             "or null where it comes from a base")


def train_backend(x: np.ndarray, speakers: list[str], options: BackendOptions) -> tuple[np.ndarray, np.ndarray, Plda]:
    """Return mean (D), LDA transform (L x (D + 1)) and PLDA model of N x D training vectors."""
    stats = collect(x, speakers)
    mean = stats.mean
    centred = replace(stats, means=stats.means - mean)
    transform = estimate_lda(centred, options.lda_dim, options.total_covariance_factor)
    stats = collect(process(x, mean, transform), speakers)
    if options.plda == "gaussian":
        return mean, transform, train_gaussian(stats, options.eigenvoices or EIGENVOICES)
    return mean, transform, train_two_covariance(stats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("utt2spk", type=Path)
    parser.add_argument("embeddings", type=Path, help="script or archive of vectors, or the folder with its script")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    options = build(BackendOptions, read_yaml(arguments.config).get("backend", {}), f"{arguments.config}: backend")
    ids, x = read_embeddings(arguments.embeddings)
    speaker_of = dict(zip(*read_table(arguments.utt2spk), strict=True))
    unknown = [name for name in ids if name not in speaker_of]
    if unknown:
        raise InputError(f"{arguments.embeddings}: no speaker in {arguments.utt2spk} for {len(unknown)} ids: "
                         f"{first_five(unknown)}; name the data that the embeddings were made of")
    print(f"{len(ids)} embeddings of {len(speaker_of)} utterances, dimension {x.shape[1]}", file=sys.stderr)
    mean, transform, plda = train_backend(x, [speaker_of[name] for name in ids], options)
    write_vector(arguments.out / "mean.vec", mean.astype(np.float32))
    write_matrix(arguments.out / "transform.mat", transform.astype(np.float32))
    write_plda(arguments.out / "plda", plda)
    write_speakers(arguments.out, (speaker_of[name] for name in ids))


if __name__ == "__main__":
    run_main(main)
