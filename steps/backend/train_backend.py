"""Train the back-end of a system on its training embeddings: mean.vec, transform.mat (LDA) and plda.

Reads the block `backend:` of the system's configuration. The order is that of Kaldi's i-vector recipe:
subtract the mean, LDA, length normalisation, PLDA.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from steps.backend.lda import apply_transform, estimate_lda, normalise_length
from steps.backend.plda import Plda, train_gaussian, train_two_covariance, write_plda
from utils.ark import read_table, read_vectors
from utils.config import build, read_yaml
from utils.errors import InputError, first_five, run_main
from utils.kaldi_io import write_matrix, write_vector


@dataclass(frozen=True)
class BackendOptions:
    """The block `backend:`."""

    lda_dim: int
    total_covariance_factor: float = 0.0
    plda: Literal["two_covariance", "gaussian"] = "two_covariance"
    eigenvoices: int = 200  # of gaussian

    def __post_init__(self) -> None:
        if self.lda_dim < 1 or self.eigenvoices < 1 or not 0 <= self.total_covariance_factor <= 1:
            raise ValueError("wanted lda_dim >= 1, eigenvoices >= 1 and total_covariance_factor from 0 to 1")


def train_backend(x: np.ndarray, speakers: list[str], options: BackendOptions) -> tuple[np.ndarray, np.ndarray, Plda]:
    """Return mean (D), LDA transform (L x (D + 1)) and PLDA model of N x D training vectors."""
    mean = x.mean(axis=0, dtype=np.float64)
    transform = estimate_lda(x - mean, speakers, options.lda_dim, options.total_covariance_factor)
    processed = normalise_length(apply_transform(x - mean, transform))
    if options.plda == "gaussian":
        return mean, transform, train_gaussian(processed, speakers, options.eigenvoices)
    return mean, transform, train_two_covariance(processed, speakers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("utt2spk", type=Path)
    parser.add_argument("embeddings", type=Path, help="script file of vectors")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    options = build(BackendOptions, read_yaml(arguments.config).get("backend", {}), f"{arguments.config}: backend")
    ids, x = read_vectors(arguments.embeddings)
    speaker_of = dict(zip(*read_table(arguments.utt2spk), strict=True))
    unknown = [name for name in ids if name not in speaker_of]
    if unknown:
        raise InputError(f"{arguments.embeddings}: no speaker in {arguments.utt2spk} for {first_five(unknown)}")
    mean, transform, plda = train_backend(x, [speaker_of[name] for name in ids], options)
    write_vector(arguments.out / "mean.vec", mean.astype(np.float32))
    write_matrix(arguments.out / "transform.mat", transform.astype(np.float32))
    write_plda(arguments.out / "plda", plda)


if __name__ == "__main__":
    run_main(main)
