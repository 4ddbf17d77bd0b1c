"""Normalise scores with a cohort of other speakers: z-norm, t-norm, s-norm, adaptive s-norm.

With s(e, t) the score of enrolment e and test t, and mu_e, sigma_e the mean and deviation of the scores s(e, c) of e
with the speakers c of the cohort (mu_t, sigma_t: of s(c, t)),
    znorm   (s - mu_e) / sigma_e
    tnorm   (s - mu_t) / sigma_t
    snorm   ((s - mu_e) / sigma_e + (s - mu_t) / sigma_t) / 2
    asnormN snorm with the N highest scores of e, and of t, alone (Matejka et al. 2017, adaptive s-norm 1).
A speaker of the cohort is the mean of the embeddings of its utterances. Each utterance's statistics are computed once,
in blocks, so that millions of trials cost no more than their lines.
"""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from steps.backend import Word
from steps.backend.interface import Enrolment, Scorer
from steps.backend.scoring import Sides
from utils.ahead import in_order
from utils.errors import InputError, first_five

CELLS = 1 << 22  # scores with the cohort that a thread computes at a time
THREADS = 8


class Normal(NamedTuple):
    """Mean and deviation of the scores of each of N vectors with the cohort."""

    mean: np.ndarray
    deviation: np.ndarray

    def of(self, rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the normalised scores of trials of these rows."""
        return (scores - self.mean[rows]) / self.deviation[rows]


def cohort_normal(scorer: Scorer, count: int, cohort: int, top: int, threads: int = 1) -> Normal:
    """Return the statistics of `count` enrolment models with the `top` best of `cohort` test vectors (0: with all).

    Raises InputError if the scores of one model are all alike: nothing can be divided by their deviation.
    """
    columns = np.arange(cohort)

    def of_block(first: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(first, min(first + size, count))
        if isinstance(scorer, Sides):
            scores = scorer.rows[rows] @ scorer.columns.T
        else:
            scores = scorer.scores(np.repeat(rows, cohort), np.tile(columns, len(rows))).reshape(-1, cohort)
        if 0 < top < cohort:
            scores = np.partition(scores, cohort - top, axis=1)[:, cohort - top:]
        return scores.mean(axis=1, dtype=np.float64), scores.std(axis=1, dtype=np.float64)

    size = max(1, CELLS // cohort)
    found = list(in_order(of_block, range(0, count, size), threads))
    mean, deviation = (np.concatenate(part) for part in zip(*found, strict=True))
    flat = np.flatnonzero(~(deviation > 0))
    if len(flat):
        raise InputError(f"{len(flat)} of {count} embeddings have the same score with all of the cohort, or none that "
                         f"is a number (rows {first_five(map(str, flat))}); name another cohort, or look for zero or "
                         "NaN in the embeddings")
    return Normal(mean, deviation)


def cohort_threads() -> int:
    """Return the number of threads that compare with a cohort: those of the job, at most THREADS."""
    return min(THREADS, int(os.environ.get("OMP_NUM_THREADS") or 1))


def normals(plain_scorer: Callable[[Enrolment, np.ndarray], Scorer], norm: Word, cohort: np.ndarray,
            enrolment: Enrolment, test: np.ndarray, threads: int) -> tuple[Normal | None, Normal | None]:
    """Return the statistics of both sides with S x D cohort embeddings, None for the side that is not needed."""
    top = norm.number or 0
    if top > len(cohort):
        print(f"{norm}: the cohort has {len(cohort)} speakers, and all are taken", file=sys.stderr)
    sides: list[Normal | None] = [None, None]
    if norm.name != "tnorm":
        sides[0] = cohort_normal(plain_scorer(enrolment, cohort), len(enrolment), len(cohort), top, threads)
    if norm.name != "znorm":
        # The test vectors take the place of the enrolment: all our scores of one utterance with another are symmetric.
        sides[1] = (sides[0] if sides[0] and enrolment.x is test and enrolment.models is None else
                    cohort_normal(plain_scorer(Enrolment(test), cohort), len(test), len(cohort), top, threads))
    return sides[0], sides[1]


class Normalised(NamedTuple):
    """Normalised scores of trials: a Scorer (steps/backend/interface.py)."""

    plain: Scorer
    enrolment: Normal | None
    test: Normal | None

    def scores(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the scores of trials of enrolment models `i` with test rows `j`."""
        return self.of(self.plain.scores(i, j), i, j)

    def of(self, scores: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the normalised scores (float32) of plain ones."""
        parts = [side.of(rows, scores) for side, rows in ((self.enrolment, i), (self.test, j)) if side is not None]
        return (sum(parts) / len(parts)).astype(np.float32)
