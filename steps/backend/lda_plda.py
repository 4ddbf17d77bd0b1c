"""The back-end of Kaldi's recipes: subtract the mean, LDA, length normalisation, PLDA."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np

from steps.backend.interface import Enrolment
from steps.backend.lda import estimate_lda, process
from steps.backend.plda import Plda, read_plda, train_gaussian, train_two_covariance, write_plda
from steps.backend.scoring import Sides
from steps.backend.speaker_stats import collect
from utils.config import Count, Share
from utils.kaldi.objects import read_matrix, read_vector, write_matrix, write_vector

EIGENVOICES = 200


@dataclass(frozen=True)
class LdaPldaOptions:
    """Options of LDA and PLDA."""

    lda_dim: Count
    total_covariance_factor: Share = 0.0
    plda: Literal["two_covariance", "gaussian"] = "two_covariance"
    eigenvoices: Count | None = None  # for gaussian only; None: 200

    def __post_init__(self) -> None:
        if self.eigenvoices and self.plda != "gaussian":
            raise ValueError(f"eigenvoices is {self.eigenvoices}, but plda {self.plda}, which has none; leave it out, "
                             "or set it to null if a base configuration has it")


@dataclass(frozen=True)
class LdaPlda:
    """LDA, length normalisation, PLDA: a log-likelihood ratio

    mean: D; transform: of LDA, L x (D + 1); plda: of dimension L.
    """

    mean: np.ndarray
    transform: np.ndarray
    plda: Plda
    files: ClassVar[tuple[str, ...]] = ("mean.vec", "transform.mat", "plda")

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], options: LdaPldaOptions) -> Self:
        """Train LDA, then PLDA; raises InputError when there are too few speakers or utterances."""
        stats = collect(x, speakers)
        mean = stats.mean
        centred = replace(stats, means=stats.means - mean)
        transform = estimate_lda(centred, options.lda_dim, options.total_covariance_factor)
        stats = collect(process(x, mean, transform), speakers)
        if options.plda == "gaussian":
            plda = train_gaussian(stats, options.eigenvoices or EIGENVOICES)
        else:
            plda = train_two_covariance(stats)
        return cls(mean.astype(np.float32), transform.astype(np.float32), plda)

    def save(self, folder: Path) -> None:
        """Write Kaldi's mean.vec, transform.mat and plda."""
        write_vector(folder / "mean.vec", self.mean)
        write_matrix(folder / "transform.mat", self.transform)
        write_plda(folder / "plda", self.plda)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read Kaldi's files or ours."""
        return cls(read_vector(folder / "mean.vec"), read_matrix(folder / "transform.mat"), read_plda(folder / "plda"))

    def scorer(self, enrolment: Enrolment, test: np.ndarray) -> Sides:
        """Return the scorer: a model is the mean of its utterances' processed vectors, with their number for PLDA."""
        vectors = process(test, self.mean, self.transform)
        processed = vectors if enrolment.x is test else process(enrolment.x, self.mean, self.transform)
        num_utts = enrolment.num_utts
        enrolled = self.plda.project(enrolment.average(processed), num_utts)
        return plda_sides(self.plda, enrolled, self.plda.project(vectors), num_utts)


def plda_sides(model: Plda, enrolment: np.ndarray, test: np.ndarray, num_utts: np.ndarray | float = 1) -> Sides:
    """Return the sides of the log-likelihood ratio of projected vectors x, N x D, and y, M x D (Kaldi's plda.cc):

    log N(y; m, I + psi/(n psi + 1)) - log N(y; 0, I + psi),  m = n psi/(n psi + 1) x,
    x the mean of n enrolment utterances; expanded, with v the variance given x:
    sum (m/v) y  -  sum y^2/(2 v)  +  sum y^2/(2 (1 + psi))  -  sum (m^2/v + log v - log(1 + psi))/2

    num_utts: n of each enrolment vector (N, or one number for all). Terms of one side only become extra
    columns, summed in float64; those of y depend on n, so each value of n has its own column.
    """
    numbers, which = np.unique(np.broadcast_to(np.asarray(num_utts, np.float64), len(enrolment)), return_inverse=True)
    shrunk = numbers[:, None] * model.psi / (numbers[:, None] * model.psi + 1)  # n psi / (n psi + 1), one row per n
    variance = 1 + model.psi / (numbers[:, None] * model.psi + 1)
    mean = shrunk[which] * enrolment
    row_terms = -0.5 * (mean**2 / variance[which] + np.log(variance / (1 + model.psi))[which]).sum(axis=1)
    column_terms = 0.5 * test**2 @ (1 / (1 + model.psi) - 1 / variance).T
    rows = np.hstack([mean / variance[which], row_terms[:, None], np.eye(len(numbers))[which]])
    columns = np.hstack([test, np.ones((len(test), 1)), column_terms])
    return Sides(rows.astype(np.float32), columns.astype(np.float32))
