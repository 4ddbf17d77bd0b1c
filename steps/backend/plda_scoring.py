"""PLDA as the last part of a chain: log-likelihood ratios of two vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from steps.backend.cosine import cosine_sides
from steps.backend.plda import Plda, read_plda, side_by_side, train_gaussian, train_two_covariance, write_plda
from steps.backend.scoring import Sides
from steps.backend.speaker_stats import collect, in_blocks

EIGENVOICES = 200
PAIRS = 4000


@dataclass(frozen=True)
class TwoCovariance:
    """PLDA with two covariances, as in Kaldi: a log-likelihood ratio; plda5: 5 % of the covariance within speakers
    replaced by an isotropic one"""

    plda: Plda
    FILE: ClassVar[str] = "plda"
    NUMBER: ClassVar[str] = "allowed"

    @property
    def dim(self) -> int:
        """D of the model."""
        return len(self.plda.mean)

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], number: int | None = None) -> Self:
        """Train it; raises InputError when there are too few speakers or utterances."""
        return cls(train_two_covariance(collect(x, speakers), shrink=(number or 0) / 100))

    @classmethod
    def joined(cls, apart: Sequence[Self]) -> Self:
        """Take the parts for independent: the log-likelihood ratio is the sum of theirs, but for the normalisation of
        lengths, which concerns whole vectors."""
        return cls(side_by_side([one.plda for one in apart]))

    def save(self, folder: Path) -> None:
        """Write Kaldi's plda."""
        write_plda(folder / self.FILE, self.plda)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read Kaldi's plda or ours."""
        return cls(read_plda(folder / cls.FILE))

    def scorer(self, enrolment: np.ndarray, num_utts: np.ndarray | int, test: np.ndarray) -> Sides:
        """Return the scorer."""
        numbers, which = distinct(num_utts, len(enrolment))

        def enrolled(block: slice) -> np.ndarray:
            y = self.plda.project(enrolment[block], numbers[which[block]])
            return enrolment_side(self.plda, y, numbers, which[block])

        return Sides(in_blocks(enrolled, enrolment),
                     in_blocks(lambda block: test_side(self.plda, self.plda.project(test[block]), numbers), test))


class WithCosine(TwoCovariance):
    """the mean of PLDA's log-likelihood ratio, as of plda5, and of the vectors' cosine, scaled to deviate as much: it
    loses less on speech unlike that of the training"""

    def scorer(self, enrolment: np.ndarray, num_utts: np.ndarray | int, test: np.ndarray) -> Sides:
        """Return the scorer."""
        plda, cosine = super().scorer(enrolment, num_utts, test), cosine_sides(enrolment, test)
        scale = np.float32(0.5 * self.deviations_ratio())
        return Sides(np.hstack([0.5 * plda.rows, scale * cosine.rows]), np.hstack([plda.columns, cosine.columns]))

    def deviations_ratio(self) -> float:
        """Return the deviation of the log-likelihood ratio over that of the cosine, of pairs of utterances that the
        model itself draws, one half of the same speaker."""
        rng, model = np.random.default_rng(0), self.plda
        y, other = np.sqrt(model.psi) * rng.standard_normal((2, PAIRS, len(model.psi)))
        other[::2] = y[::2]
        back = np.linalg.inv(model.transform).T
        x = [(side + rng.standard_normal(side.shape)) @ back + model.mean for side in (y, other)]
        pairs = np.arange(PAIRS), np.arange(PAIRS)
        ratio = super().scorer(x[0], 1, x[1]).scores(*pairs).std() / cosine_sides(*x).scores(*pairs).std()
        return float(ratio)


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
    numbers, which = distinct(num_utts, len(enrolment))
    return Sides(enrolment_side(model, enrolment, numbers, which), test_side(model, test, numbers))


def distinct(num_utts: np.ndarray | float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values of n, and the place among them of that of each enrolment vector."""
    return np.unique(np.broadcast_to(np.asarray(num_utts, np.float64), count), return_inverse=True)


def enrolment_side(model: Plda, x: np.ndarray, numbers: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return the rows of `plda_sides`: m/v, the terms of x alone, and which column has the terms of y for its n."""
    shrunk = numbers[:, None] * model.psi / (numbers[:, None] * model.psi + 1)  # n psi / (n psi + 1), one row per n
    variance = variances(model, numbers)
    mean = shrunk[which] * x
    terms = -0.5 * (mean**2 / variance[which] + np.log(variance / (1 + model.psi))[which]).sum(axis=1)
    return np.hstack([mean / variance[which], terms[:, None], np.eye(len(numbers))[which]]).astype(np.float32)


def test_side(model: Plda, y: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the columns of `plda_sides`: y, 1, and the terms of y alone for each value of n."""
    terms = 0.5 * y**2 @ (1 / (1 + model.psi) - 1 / variances(model, numbers)).T
    return np.hstack([y, np.ones((len(y), 1)), terms]).astype(np.float32)


def variances(model: Plda, numbers: np.ndarray) -> np.ndarray:
    """Return v, the variance of y given x: a row per value of n."""
    return 1 + model.psi / (numbers[:, None] * model.psi + 1)
