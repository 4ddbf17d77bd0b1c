"""PLDA as the last part of a chain: log-likelihood ratios of two vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from steps.backend.plda import Plda, read_plda, train_gaussian, train_two_covariance, write_plda
from steps.backend.scoring import Sides
from steps.backend.speaker_stats import collect

EIGENVOICES = 200


@dataclass(frozen=True)
class TwoCovariance:
    """PLDA with two covariances, as in Kaldi: a log-likelihood ratio"""

    plda: Plda
    FILE: ClassVar[str] = "plda"
    NUMBER: ClassVar[str] = ""

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], number: int | None = None) -> Self:
        """Train it; raises InputError when there are too few speakers or utterances."""
        return cls(train_two_covariance(collect(x, speakers)))

    def save(self, folder: Path) -> None:
        """Write Kaldi's plda."""
        write_plda(folder / self.FILE, self.plda)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read Kaldi's plda or ours."""
        return cls(read_plda(folder / cls.FILE))

    def scorer(self, enrolment: np.ndarray, num_utts: np.ndarray | int, test: np.ndarray) -> Sides:
        """Return the scorer."""
        return plda_sides(self.plda, self.plda.project(enrolment, num_utts), self.plda.project(test), num_utts)


class Gaussian(TwoCovariance):
    """Gaussian PLDA with a subspace of so many eigenvoices (200 without a number): a log-likelihood ratio"""

    NUMBER: ClassVar[str] = "allowed"

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], number: int | None = None) -> Self:
        """Train it with `number` eigenvoices."""
        return cls(train_gaussian(collect(x, speakers), number or EIGENVOICES))


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
