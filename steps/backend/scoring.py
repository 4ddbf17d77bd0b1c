"""Scores of trial lists: cosine and PLDA log-likelihood ratio, in blocks of any list's lines.

Every score is a dot product of a row of the enrolment side with a row of the test side:
    cosine  x . y of the normalised vectors
    PLDA    log N(y; m, I + psi/(n psi + 1)) - log N(y; 0, I + psi),  m = n psi/(n psi + 1) x  (Kaldi's plda.cc)
            of projected vectors x (mean of n enrolment utterances) and y; expanded, with v the variance given x:
            sum (m/v) y  -  sum y^2/(2 v)  +  sum y^2/(2 (1 + psi))  -  sum (m^2/v + log v - log(1 + psi))/2
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steps.backend.lda import normalise_length, process
from steps.backend.plda import Plda, read_plda
from utils.errors import InputError, first_five
from utils.files import write_aside
from utils.kaldi.objects import read_matrix, read_vector
from utils.text_lines import (
    Block,
    IdTable,
    Lines,
    by_length,
    in_threads,
    locate,
    read_blocks,
    records,
    refuse_self_trials,
    windows,
)
from utils.text_numbers import LARGEST, WIDTH, format_numbers

DENSE = 25  # cells of a matrix product that take as long as one dot product of two rows fetched from memory
CHUNK = 4096  # such dot products at a time
MANY = 10000  # ids without an embedding after which no more are looked for


@dataclass(frozen=True)
class Sides:
    """What scores are made of: score(i, j) = rows[i] . columns[j]; float32, N x K and M x K."""

    rows: np.ndarray
    columns: np.ndarray

    def scores(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the scores (float32) of trials of enrolment rows `i` with test rows `j`."""
        rows, row = _used(i, len(self.rows))
        columns, column = _used(j, len(self.columns))
        if len(rows) * len(columns) <= DENSE * len(i):
            return (self.rows[rows] @ self.columns[columns].T)[row, column]
        scores = np.empty(len(i), np.float32)
        for start in range(0, len(i), CHUNK):
            part = slice(start, start + CHUNK)
            np.einsum("nk,nk->n", self.rows[i[part]], self.columns[j[part]], out=scores[part])
        return scores


def _used(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of `size` rows occur, and the place of each of `rows` among them."""
    if size > 16 * len(rows):
        return np.unique(rows, return_inverse=True)
    occurs = np.zeros(size, bool)
    occurs[rows] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[rows]


def cosine_sides(enrolment: np.ndarray, test: np.ndarray) -> Sides:
    """Return the sides of the cosine of N x D and M x D vectors."""
    rows = _unit(enrolment)
    return Sides(rows, rows if test is enrolment else _unit(test))


def _unit(x: np.ndarray) -> np.ndarray:
    return (normalise_length(x) / x.shape[1] ** 0.5).astype(np.float32)


def plda_sides(model: Plda, enrolment: np.ndarray, test: np.ndarray, num_utts: np.ndarray | float = 1) -> Sides:
    """Return the sides of the log-likelihood ratio of projected vectors N x D and M x D.

    num_utts: utterances behind each enrolment vector (N, or one number for all). The terms of one side are
    further columns, summed in float64: those of y depend on n, and have one column for each n there is.
    """
    numbers, which = np.unique(np.broadcast_to(np.asarray(num_utts, np.float64), len(enrolment)), return_inverse=True)
    shrunk = numbers[:, None] * model.psi / (numbers[:, None] * model.psi + 1)  # n psi / (n psi + 1), one row an n
    variance = 1 + model.psi / (numbers[:, None] * model.psi + 1)
    mean = shrunk[which] * enrolment
    row_terms = -0.5 * (mean**2 / variance[which] + np.log(variance / (1 + model.psi))[which]).sum(axis=1)
    column_terms = 0.5 * test**2 @ (1 / (1 + model.psi) - 1 / variance).T
    rows = np.hstack([mean / variance[which], row_terms[:, None], np.eye(len(numbers))[which]])
    columns = np.hstack([test, np.ones((len(test), 1)), column_terms])
    return Sides(rows.astype(np.float32), columns.astype(np.float32))


@dataclass(frozen=True)
class Backend:
    """A trained back-end: mean (D), LDA transform and PLDA model; cosine needs the mean alone."""

    mean: np.ndarray
    transform: np.ndarray | None = None
    plda: Plda | None = None

    def sides(self, kind: str, x: np.ndarray, models: list[np.ndarray] | None = None) -> Sides:
        """Return what the scores of a back-end, cosine or plda, are made of.

        x: N x D embeddings, the test side. models: for each enrolment model the rows of x whose mean, after
        centring (and LDA) and length normalisation, enrols it; None: each row is a model.
        Both kinds subtract the training mean: raw cosines of i-vectors and of ReLU outputs crowd together.
        """
        vectors = process(x, self.mean, self.transform if kind == "plda" else None)
        enrolled = vectors if models is None else np.stack([vectors[rows].mean(axis=0) for rows in models])
        if kind == "cosine":
            return cosine_sides(enrolled, vectors)
        num_utts = 1 if models is None else np.array([len(rows) for rows in models])
        return plda_sides(self.plda, self.plda.project(enrolled, num_utts), self.plda.project(vectors), num_utts)


def read_backend(folder: Path, kind: str = "plda") -> Backend:
    """Read mean.vec and, where the kind of scores is not cosine, transform.mat and plda, Kaldi's or ours."""
    if kind == "cosine":
        return Backend(read_vector(folder / "mean.vec"))
    return Backend(read_vector(folder / "mean.vec"), read_matrix(folder / "transform.mat"), read_plda(folder / "plda"))


def score_trials(trials: str | os.PathLike, output: str | os.PathLike, sides: Sides, enrolment_ids: list[str],
                 test_ids: list[str], check: Callable[[np.ndarray, np.ndarray], None] | None = None) -> None:
    """Write `id1 id2 score` for each trial, in the list's order.

    trials: with labels or without. Raises InputError naming the first five ids without an embedding; then, when a
    score is no number, and where a trial with a label is of an utterance with itself, nothing is written. Nor is it
    where `check` raises InputError: it gets the rows of the enrolment ids and of the test ids that the list names.
    """
    columns = count_columns(trials)
    enrolment = IdTable(enrolment_ids)
    tables = enrolment, enrolment if test_ids is enrolment_ids else IdTable(test_ids)
    missing: set[str] = set()
    named = np.zeros(len(enrolment_ids), bool), np.zeros(len(test_ids), bool)
    counts = columns == 3 and test_ids is enrolment_ids  # towards error rates, and of utterances on both sides

    def score_block(block: Block) -> tuple[list[str], np.ndarray]:
        lines = locate(block, columns)
        if counts:
            refuse_self_trials(lines)
        i, j = (table.find(lines.text, lines.starts[:, column], lines.ends[:, column])
                for column, table in enumerate(tables))
        unknown = [lines.field(row, column) for column, rows in enumerate((i, j))
                   for row in np.flatnonzero(rows < 0).tolist()]
        named[0][i] = named[1][j] = True
        return unknown, np.empty(0, np.uint8) if unknown else score_lines(lines, sides.scores(i, j))

    with write_aside(output, "wb") as stream:
        for unknown, text in in_threads(score_block, read_blocks(trials)):
            missing.update(unknown)
            if not missing:
                stream.write(text)
            if len(missing) > MANY:
                break
        if missing:
            raise InputError(_missing(trials, sorted(missing)))
        if check:
            check(*map(np.flatnonzero, named))


def _missing(trials: str | os.PathLike, names: list[str]) -> str:
    number = f"{len(names)}{' or more' if len(names) > MANY else ''} ids have no embedding: {first_five(names)}"
    if any("/" in name for name in names):
        return f"{trials}: {number}; they are paths as in a corpus's own list: use the list that data preparation made"
    return (f"{trials}: {number}; the list is of another set or release than the embeddings, or their features or "
            "extraction failed (see the logs of these stages)")


def count_columns(trials: str | os.PathLike) -> int:
    """Return 3 for a list with labels, 2 for one without."""
    with open(trials, "rb") as stream:
        columns = len(stream.readline().split())
    if columns not in (2, 3):
        raise InputError(f"{trials}:1: {columns} fields; wanted `id1 id2` or `id1 id2 target|nontarget`")
    return columns


def score_lines(lines: Lines, scores: np.ndarray) -> np.ndarray:
    """Return the text `id1 id2 score` of each line (uint8); raises InputError for a score that is no number."""
    wrong = np.flatnonzero(~(np.abs(scores) < LARGEST))
    if len(wrong):
        raise InputError(f"{lines.block.place(wrong[0])}: the score of {lines.field(wrong[0], 0, 1)} is "
                         f"{scores[wrong[0]]}; look for NaN or zero in its embeddings and in the back-end")
    head, tail = format_numbers(scores)
    starts, lengths = lines.starts[:, 0], lines.ends[:, 1] - lines.starts[:, 0]
    ends = np.cumsum(lengths + WIDTH + 2)
    text = np.empty(ends[-1], np.uint8)
    for length, rows in by_length(lengths):
        line = np.empty(len(lengths[rows]), [("ids", f"V{length}"), ("space", "u1"), ("head", "u8"), ("tail", "u1"),
                                             ("newline", "u1")])
        line["ids"] = records(lines.text, starts[rows], length)
        line["space"], line["head"], line["tail"], line["newline"] = ord(" "), head[rows], tail[rows], ord("\n")
        if isinstance(rows, slice):
            return line.view(np.uint8)
        windows(text, line.itemsize)[ends[rows] - line.itemsize] = line.view(f"V{line.itemsize}")
    return text
