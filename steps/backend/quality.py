"""Quality measures of trials for calibration, from tables `utterance value`: the smaller and the larger of two values.

A measure such as the length of an utterance or the mean of its scores with a cohort says how far its scores can be
trusted (Mandasari, Saeidi, McLaren, van Leeuwen 2013). A name `log:FILE` takes logarithms, as one does of lengths.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.arguments import decimal
from utils.errors import InputError
from utils.kaldi.ark import read_table
from utils.labelled_scores import read_scores_with_rows
from utils.text_lines import IdTable, locate, read_blocks

LOG = "log:"


def read_values(name: str) -> tuple[list[str], np.ndarray]:
    """Read `FILE` or `log:FILE`; return its ids and values (float64), or their logarithms.

    Raises InputError if a value is not a number.
    """
    path = Path(name.removeprefix(LOG))
    ids, texts = read_table(path)
    values = np.empty(len(ids))
    for row, (one, text) in enumerate(zip(ids, texts, strict=True)):
        try:
            values[row] = decimal(text)
        except ValueError:
            values[row] = np.nan
        if not np.isfinite(values[row]) or (name.startswith(LOG) and values[row] <= 0):
            raise InputError(f"{path}: the value of {one} is {text!r}; wanted a number"
                             f"{' above 0' if name.startswith(LOG) else ''}")
    return ids, np.log(values) if name.startswith(LOG) else values


def of_rows(rows: np.ndarray, values: np.ndarray, name: str, scores: Path) -> np.ndarray:
    """Return the smaller and the larger value of each trial's utterances, N x 2; rows: N x 2, -1 for one without."""
    missing = np.count_nonzero((rows < 0).any(axis=1))
    if missing:
        raise InputError(f"{name.removeprefix(LOG)}: no value for an utterance of {missing} trials of {scores}; name a "
                         "table of all utterances of the list")
    return np.sort(values[rows], axis=1)


def of_labelled(trials: Path, scores: Path, names: Sequence[str]) -> np.ndarray:
    """Return N x 2Q measures of a list's trials: those of targets first, as `read_labelled_scores` has them."""
    columns = []
    for name in names:
        ids, values = read_values(name)
        _, is_target, rows = read_scores_with_rows(trials, scores, ids)
        columns.append(of_rows(np.concatenate([rows[is_target], rows[~is_target]]), values, name, scores))
    return np.hstack(columns) if columns else np.empty((0, 0))


def of_scores(scores: Path, names: Sequence[str]) -> np.ndarray:
    """Return N x 2Q measures of the lines of a score file."""
    columns = []
    for name in names:
        ids, values = read_values(name)
        table, rows = IdTable(ids), []
        for block in read_blocks(scores):
            lines = locate(block, 3)
            rows.append(np.stack([table.find(lines.text, lines.starts[:, side], lines.ends[:, side])
                                  for side in (0, 1)], axis=1))
        columns.append(of_rows(np.concatenate(rows), values, name, scores))
    return np.hstack(columns) if columns else np.empty((0, 0))
