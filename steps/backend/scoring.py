"""Scores of trial lists: cosine and PLDA log-likelihood ratio, in blocks of any list's lines.

Every score is a dot product of a row of the enrolment side with a row of the test side plus a number of each:
    cosine  x . y of the normalised vectors
    PLDA    log N(y; m, I + psi/(n psi + 1)) - log N(y; 0, I + psi),  m = n psi/(n psi + 1) x  (Kaldi's plda.cc)
            of projected vectors x (mean of n enrolment utterances) and y; expanded, with v the variance given x:
            sum (m/v) y  -  sum y^2/(2 v)  +  sum y^2/(2 (1 + psi))  -  sum (m^2/v + log v - log(1 + psi))/2
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steps.backend.lda import apply_transform, normalise_length
from steps.backend.plda import Plda, read_plda
from steps.backend.text_lines import IdTable, locate, read_blocks
from utils.errors import InputError, first_five
from utils.files import write_aside
from utils.kaldi_io import read_matrix, read_vector


@dataclass(frozen=True)
class Sides:
    """What scores are made of: score(i, j) = rows[i] . columns[j] + row_terms[i] + column_terms[j]."""

    rows: np.ndarray
    columns: np.ndarray
    row_terms: np.ndarray
    column_terms: np.ndarray

    def scores(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the scores of trials of enrolment rows `i` with test rows `j`."""
        return np.einsum("nd,nd->n", self.rows[i], self.columns[j]) + self.row_terms[i] + self.column_terms[j]


def cosine_sides(enrolment: np.ndarray, test: np.ndarray) -> Sides:
    """Return the sides of the cosine of N x D and M x D vectors."""
    def unit(x: np.ndarray) -> np.ndarray:
        return (normalise_length(x.astype(np.float64)) / x.shape[1] ** 0.5).astype(np.float32)
    return Sides(unit(enrolment), unit(test), np.zeros(len(enrolment)), np.zeros(len(test)))


def plda_sides(model: Plda, enrolment: np.ndarray, test: np.ndarray, num_utts: np.ndarray | float = 1) -> Sides:
    """Return the sides of the log-likelihood ratio of projected vectors N x D and M x D.

    num_utts: utterances behind each enrolment vector (N, or one number for all).
    """
    n = np.broadcast_to(np.asarray(num_utts, np.float64), len(enrolment))[:, None]
    psi = model.psi
    gain = n * psi / (n * psi + 1)
    variance = 1 + psi / (n * psi + 1)
    m = gain * enrolment
    rows, columns = m / variance, test
    row_terms = -0.5 * (m**2 / variance + np.log(variance) - np.log(1 + psi)).sum(axis=1)
    column_terms = 0.5 * (test**2 / (1 + psi)).sum(axis=1)
    if np.ptp(n) == 0:  # one variance for all: its quadratic term belongs to the test side alone
        column_terms = column_terms - 0.5 * (test**2 / variance[0]).sum(axis=1)
    else:
        rows, columns = np.hstack([rows, -0.5 / variance]), np.hstack([test, test**2])
    return Sides(rows.astype(np.float32), columns.astype(np.float32), row_terms, column_terms)


@dataclass(frozen=True)
class Backend:
    """A trained back-end: mean (D), LDA transform and PLDA model."""

    mean: np.ndarray
    transform: np.ndarray
    plda: Plda

    def process(self, x: np.ndarray) -> np.ndarray:
        """Return centred, transformed, length-normalised vectors: what PLDA is trained and scored on."""
        return normalise_length(apply_transform(self.centre(x), self.transform))

    def centre(self, x: np.ndarray) -> np.ndarray:
        """Return N x D vectors less the training mean; raises InputError when D is another."""
        if x.shape[1] != len(self.mean):
            raise InputError(f"embeddings of dimension {x.shape[1]}, back-end of dimension {len(self.mean)}; "
                             "train the back-end on embeddings of the same model")
        return x - self.mean

    def sides(self, kind: str, enrolment: np.ndarray, test: np.ndarray, num_utts: np.ndarray | float = 1) -> Sides:
        """Return what the scores of a back-end, cosine or plda, are made of.

        Both subtract the training mean: cosine scores of i-vectors are poor without it.
        """
        if kind == "cosine":
            return cosine_sides(self.centre(enrolment), self.centre(test))
        return plda_sides(self.plda, self.plda.project(self.process(enrolment), num_utts),
                          self.plda.project(self.process(test)), num_utts)


def read_backend(folder: Path) -> Backend:
    """Read mean.vec, transform.mat and plda, Kaldi's or ours."""
    return Backend(read_vector(folder / "mean.vec"), read_matrix(folder / "transform.mat"), read_plda(folder / "plda"))


def score_trials(trials: str | os.PathLike, output: str | os.PathLike, sides: Sides, enrolment_ids: list[str],
                 test_ids: list[str]) -> int:
    """Write `id1 id2 score` for each trial, in the list's order; return how many.

    Raises InputError naming the first five ids without an embedding; then nothing is written.
    """
    tables = IdTable(enrolment_ids), IdTable(test_ids)
    with open(trials, encoding="utf-8") as first:
        columns = 2 if len(first.readline().split()) == 2 else 3  # labels or none
    missing: dict[str, None] = {}
    count = 0
    with write_aside(output, "wb") as stream:
        for block in read_blocks(trials):
            lines = locate(block, columns)
            found = []
            for column, table in enumerate(tables):
                rows = table.find(lines.text, lines.starts[:, column], lines.ends[:, column])
                missing.update((lines.field(row, column), None) for row in np.flatnonzero(rows < 0).tolist())
                found.append(rows)
            count += len(found[0])
            if missing:
                continue
            scores = sides.scores(*found)
            if not np.isfinite(scores).all():
                pair = lines.field(int(np.argmin(np.isfinite(scores))), 0, 1)
                raise InputError(f"{trials}: the score of {pair} is no number; check the embeddings")
            pairs = (lines.field(row, 0, 1) for row in range(len(scores)))
            stream.write("".join(f"{pair} {score:.7g}\n" for pair, score in zip(pairs, scores, strict=True)).encode())
        if missing:
            raise InputError(f"{trials}: {len(missing)} ids have no embedding: {first_five(missing)}; the list is of "
                             "another release of the corpus, or their extraction failed")
    return count
