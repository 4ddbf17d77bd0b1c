"""Score trial lists of any length, block by block: from ids to a file of scores."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from steps.backend.interface import Scorer
from utils.errors import InputError, first_five
from utils.files import write_aside
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
CHUNK = 4096  # dot products at a time
MANY = 10000  # ids without an embedding; beyond this number the search stops


@dataclass(frozen=True)
class Sides:
    """Scores by dot products: score(i, j) = rows[i] . columns[j]; float32, N x K and M x K."""

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
    """Return the rows, of `size`, that occur, and the index of each of `rows` among them."""
    if size > 16 * len(rows):
        return np.unique(rows, return_inverse=True)
    occurs = np.zeros(size, bool)
    occurs[rows] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[rows]


def score_trials(trials: str | os.PathLike, output: str | os.PathLike, scorer: Scorer, enrolment_ids: list[str],
                 test_ids: list[str], check: Callable[[np.ndarray, np.ndarray], None] | None = None,
                 models: list[np.ndarray] | None = None) -> None:
    """Write `id1 id2 score` for each trial, in the list's order.

    trials: with or without labels. check: called with the rows of the enrolment ids and of the test ids that the list
    names; may raise InputError. models: the rows of the test utterances that each enrolment id stands for (None: of
    one, with the same id). Raises InputError, and writes nothing, for ids without an embedding (the first five are
    named), for NaN or infinite scores, and for a labelled trial of an utterance with itself.
    """
    columns = count_columns(trials)
    enrolment = IdTable(enrolment_ids)
    tables = enrolment, enrolment if test_ids is enrolment_ids else IdTable(test_ids)
    missing: set[str] = set()
    named = np.zeros(len(enrolment_ids), bool), np.zeros(len(test_ids), bool)
    counts = columns == 3 and test_ids is enrolment_ids  # for error rates, with utterances on both sides
    own = np.concatenate([row * len(test_ids) + members for row, members in enumerate(models)]) if models else None

    def score_block(block: Block) -> tuple[list[str], np.ndarray]:
        lines = locate(block, columns)
        if counts:
            refuse_self_trials(lines)
        i, j = (table.find(lines.text, lines.starts[:, column], lines.ends[:, column])
                for column, table in enumerate(tables))
        if own is not None and columns == 3 and (inside := np.flatnonzero(np.isin(i * len(test_ids) + j, own))).size:
            model, utterance = (lines.field(inside[0], column) for column in range(2))
            raise InputError(f"{block.place(inside[0])}: {model} is enrolled from {utterance}; remove the line")
        unknown = [lines.field(row, column) for column, rows in enumerate((i, j))
                   for row in np.flatnonzero(rows < 0).tolist()]
        named[0][i] = named[1][j] = True
        return unknown, np.empty(0, np.uint8) if unknown else score_lines(lines, scorer.scores(i, j))

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
    return (f"{trials}: {number}; the list belongs to another set or release than the embeddings, or their features "
            "or extraction failed (see the logs of these stages)")


def count_columns(trials: str | os.PathLike) -> int:
    """Return 3 for a list with labels, 2 for one without."""
    with open(trials, "rb") as stream:
        columns = len(stream.readline().split())
    if columns not in (2, 3):
        raise InputError(f"{trials}:1: {columns} fields; wanted `id1 id2` or `id1 id2 target|nontarget`")
    return columns


def score_lines(lines: Lines, scores: np.ndarray) -> np.ndarray:
    """Return the text `id1 id2 score` of each line (uint8); raises InputError for NaN, infinite or huge scores."""
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
