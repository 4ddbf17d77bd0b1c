"""Scores of labelled trials: joins score files with trial lists by both ids, and reads the speakers of the trials.

Each trial has one score and each score one trial; the orders of the files may differ. Memory about 60 bytes per trial,
i.e. 3.5 GB for 58 million; 16 more with speakers.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import InputError, first_five
from utils.kaldi.ark import read_table
from utils.kaldi.trials import labels, read_trials
from utils.text_lines import Block, IdTable, Lines, hash_words, in_threads, locate, read_blocks
from utils.text_numbers import parse_numbers


class Scored(NamedTuple):
    """N trials of a list, with their scores."""

    values: np.ndarray     # N, float64
    is_target: np.ndarray  # N, bool
    speakers: np.ndarray   # N x 2, whole numbers from 0: the speakers of both sides

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the target and the non-target scores."""
        return self.values[self.is_target], self.values[~self.is_target]


def _read_trials(block: Block, table: IdTable | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read lines `id id label`: return hashes of the id pairs (uint64), whether each is a target (bool), and the ids'
    rows in the table (N x 2), if there is one.
    """
    lines, is_target = read_trials(block)
    rows = np.empty((0, 2), np.int64)
    if table is not None:
        rows = np.stack([table.find(lines.text, lines.starts[:, side], lines.ends[:, side]) for side in (0, 1)], axis=1)
    return hash_words(lines.text, lines.starts[:, 0], lines.ends[:, 1]), is_target, rows


def _read_scores(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Read lines `id id score`: return hashes of the id pairs (uint64), and the scores (float64)."""
    lines = locate(block, 3)
    return hash_words(lines.text, lines.starts[:, 0], lines.ends[:, 1]), _numbers(lines, 2)


def _numbers(lines: Lines, column: int) -> np.ndarray:
    numbers = parse_numbers(lines.text, lines.starts[:, column], lines.ends[:, column])
    wrong = np.flatnonzero(np.isnan(numbers))
    if len(wrong):
        raise InputError(f"{lines.block.place(wrong[0])}: score {lines.field(wrong[0], column)!r} is not a finite "
                         "number; score again")
    return numbers


def _read_kaldi(block: Block) -> tuple[np.ndarray, np.ndarray]:
    lines = locate(block, 2)
    return _numbers(lines, 0), labels(lines)


def read_kaldi_scores(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Return target and non-target scores of a file for Kaldi's compute-eer: lines `score target|nontarget`."""
    values, is_target = map(np.concatenate, zip(*in_threads(_read_kaldi, read_blocks(path)), strict=True))
    _refuse_all_alike(path, values)
    return values[is_target], values[~is_target]


def read_labelled_scores(trials: str | os.PathLike, scores: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Return target and non-target scores (float64) of a trial list and a score file; their orders may differ.

    A list may hold a pair twice if the score file does. Raises InputError naming pairs without a score,
    scores without a trial, a trial of an id with itself, or a pair that is both target and nontarget, and if all scores
    are alike.
    """
    (is_target, _), values = _joined(trials, scores, None)
    return values[is_target], values[~is_target]


def read_scores_with_speakers(trials: str | os.PathLike, scores: str | os.PathLike, utt2spk: Path) -> Scored:
    """Return the trials of a list with their scores and speakers.

    Raises InputError like `read_labelled_scores`, for an id that is not in utt2spk, and for a label that contradicts
    it.
    """
    ids, names = read_table(utt2spk)
    (is_target, rows), values = _joined(trials, scores, IdTable(ids))
    _, speaker_of = np.unique(names, return_inverse=True)
    if rows.min(initial=0) < 0:
        raise InputError(f"{trials}: {np.count_nonzero((rows < 0).any(axis=1))} trials name ids that are not in "
                         f"{utt2spk}; name the data directory of the list")
    speakers = speaker_of[rows]
    wrong = np.flatnonzero((speakers[:, 0] == speakers[:, 1]) != is_target)
    if len(wrong):
        one, other = (ids[row] for row in rows[wrong[0]])
        raise InputError(f"{trials}: {one} {other} is {'a target' if is_target[wrong[0]] else 'a nontarget'}, but "
                         f"{utt2spk} has {names[rows[wrong[0]][0]]} and {names[rows[wrong[0]][1]]}; correct either "
                         f"({len(wrong)} such trials)")
    return Scored(values, is_target, speakers)


def read_scores_with_rows(trials: str | os.PathLike, scores: str | os.PathLike,
                          ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scores of a list (N, float64), whether each trial is a target (N, bool), and the places of its two
    utterances in `ids` (N x 2, -1: not there). Raises InputError like `read_labelled_scores`.
    """
    (is_target, rows), values = _joined(trials, scores, IdTable(ids))
    return values, is_target, rows


def _joined(trials: str | os.PathLike, scores: str | os.PathLike, table: IdTable | None,
            ) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return, in the list's order, whether each trial is a target, its ids' rows in `table` (N x 2; -1: unknown), its
    score."""
    readers, parts = (lambda block: _read_trials(block, table), _read_scores), ([], [])

    def jobs() -> Iterator[tuple[int, Block]]:
        for pair in zip_longest(read_blocks(trials), read_blocks(scores)):
            yield from ((kind, block) for kind, block in enumerate(pair) if block is not None)

    for kind, result in in_threads(lambda job: (job[0], readers[job[0]](job[1])), jobs()):
        parts[kind].append(result)
    (pairs, is_target, rows), (scored_pairs, values) = (map(np.concatenate, zip(*part, strict=True)) for part in parts)
    _refuse_both_labels(trials, pairs, is_target)
    _refuse_all_alike(scores, values)
    if not np.array_equal(pairs, scored_pairs):
        order, scored_order = np.argsort(pairs, kind="stable"), np.argsort(scored_pairs, kind="stable")
        if not np.array_equal(pairs[order], scored_pairs[scored_order]):
            raise InputError(_mismatch(trials, pairs, scores, scored_pairs))
        values = _placed(values[scored_order], order)
    return (is_target, rows), values


def _placed(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return an array with the values at these places."""
    placed = np.empty_like(values)
    placed[places] = values
    return placed


def read_aligned_scores(paths: Sequence[str | os.PathLike]) -> np.ndarray:
    """Return the scores of files with the same pairs, in the order of the first: N x S, float64.

    Raises InputError naming pairs that a file lacks or has in excess.
    """
    columns, first = [], np.empty(0, np.uint64)
    for number, path in enumerate(paths):
        pairs, values = map(np.concatenate, zip(*in_threads(_read_scores, read_blocks(path)), strict=True))
        if number == 0:
            first = pairs
        elif not np.array_equal(pairs, first):
            order, ours = np.argsort(first, kind="stable"), np.argsort(pairs, kind="stable")
            if not np.array_equal(first[order], pairs[ours]):
                raise InputError(_mismatch(paths[0], first, path, pairs))
            values = _placed(values[ours], order)
        columns.append(values)
    return np.stack(columns, axis=1)


def _refuse_all_alike(path: str | os.PathLike, values: np.ndarray) -> None:
    """Raise InputError if several trials have one score: an EER of 50 % would look like a result."""
    if len(values) > 1 and values.min() == values.max():
        raise InputError(f"{path}: all {len(values)} scores are {values[0]:g}: they tell nothing; look at the "
                         "embeddings and the back-end")


def _refuse_both_labels(path: str | os.PathLike, pairs: np.ndarray, is_target: np.ndarray) -> None:
    """Raise InputError naming a pair that has both labels, and its lines. pairs: hashes."""
    targets, others = pairs[is_target], pairs[~is_target]
    # Most lists have far more non-targets than targets, and no pair twice: after a look-up in a table of the targets'
    # leading bits, few non-targets remain to be compared.
    shift = np.uint64(64 - min(len(targets).bit_length() + 6, 26))
    marked = np.zeros(1 << (64 - int(shift)), bool)
    marked[targets >> shift] = True
    suspects = np.intersect1d(others[marked[others >> shift]], targets)
    if not len(suspects):
        return
    seen: dict[str, tuple[str, str]] = {}
    for block in read_blocks(path):
        lines = locate(block, 3)
        hashes = hash_words(lines.text, lines.starts[:, 0], lines.ends[:, 1])
        for row in np.flatnonzero(np.isin(hashes, suspects)).tolist():
            pair, label = lines.field(row, 0, 1), lines.field(row, 2)
            place, before = seen.setdefault(pair, (block.place(row), label))
            if before != label:
                raise InputError(f"{block.place(row)}: {pair} is {label} here and {before} in {place}; remove one "
                                 "of the lines")


def _mismatch(trials: str | os.PathLike, pairs: np.ndarray, scores: str | os.PathLike,
              scored_pairs: np.ndarray) -> str:
    unscored, strange = np.setdiff1d(pairs, scored_pairs), np.setdiff1d(scored_pairs, pairs)
    if len(unscored):
        return (f"{scores}: {len(unscored)} trials of {trials} have no score: {_name(trials, unscored)}; "
                "score the list again")
    if len(strange):
        return (f"{scores}: {len(strange)} scores belong to no trial of {trials}: {_name(scores, strange)}; "
                "name the list that was scored")
    (known, times), (scored, scored_times) = (np.unique(p, return_counts=True) for p in (pairs, scored_pairs))
    odd = known[times != scored_times]
    return (f"{scores}: {len(odd)} pairs have more or fewer scores than trials in {trials}: "
            f"{_name(trials, odd)}; remove the duplicates")


def _name(path: str | os.PathLike, wanted: np.ndarray) -> str:
    """Return the names of the first five pairs whose hashes are among `wanted`."""
    names: dict[str, None] = {}
    for block in read_blocks(path):
        lines = locate(block, 3)
        found = np.isin(hash_words(lines.text, lines.starts[:, 0], lines.ends[:, 1]), wanted)
        names.update((lines.field(row, 0, 1), None) for row in np.flatnonzero(found)[:6])
        if len(names) > 5:
            break
    return first_five([*names][:5]) + (f" and {len(wanted) - 5} more" if len(wanted) > 5 else "")
