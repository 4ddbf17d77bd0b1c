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

import argparse
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steps.backend import BACKENDS, NORM
from steps.backend.embeddings import read_embeddings
from steps.backend.interface import Backend, Enrolment, Scorer
from steps.backend.score import load_backend, read_models
from steps.backend.scoring import Sides, score_lines
from steps.backend.speaker_stats import speaker_means
from utils.ahead import in_order
from utils.arguments import share
from utils.errors import InputError, first_five, run_main
from utils.files import write_aside
from utils.kaldi.data_dir import read_column
from utils.kaldi.shared_speakers import refuse_shared
from utils.text_lines import Block, IdTable, in_threads, locate, read_blocks
from utils.text_numbers import parse_numbers

CELLS = 1 << 22  # scores with the cohort that are computed at a time


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


def normals(backend: Backend, kind: str, cohort: np.ndarray, enrolment: Enrolment, test: np.ndarray, top: int,
            threads: int) -> tuple[Normal | None, Normal | None]:
    """Return the statistics of both sides, None for the side that the kind does not need. top: see cohort_normal."""
    sides: list[Normal | None] = [None, None]
    if kind != "tnorm":
        count = len(enrolment.x) if enrolment.models is None else len(enrolment.models)
        sides[0] = cohort_normal(backend.scorer(enrolment, cohort), count, len(cohort), top, threads)
    if kind != "znorm":
        # The test vectors take the place of the enrolment: all our scores of one utterance with another are symmetric.
        sides[1] = (sides[0] if sides[0] and enrolment.x is test and enrolment.models is None else
                    cohort_normal(backend.scorer(Enrolment(test), cohort), len(test), len(cohort), top, threads))
    return sides[0], sides[1]


def normalise_file(scores: Path, output: Path, names: list[str], ids: list[str], sides: tuple[Normal | None, ...],
                   ) -> None:
    """Write the lines of a score file with normalised scores. names, ids: of the enrolment's and the test's rows.

    Raises InputError, and writes nothing, for a score that is not a number and for ids without an embedding.
    """
    tables = IdTable(names), IdTable(ids)

    def of_block(block: Block) -> np.ndarray:
        lines = locate(block, 3)
        values = parse_numbers(lines.text, lines.starts[:, 2], lines.ends[:, 2])
        wrong = np.flatnonzero(np.isnan(values))
        if len(wrong):
            raise InputError(f"{block.place(wrong[0])}: score {lines.field(wrong[0], 2)!r} is not a finite number; "
                             "score again")
        parts = []
        for side, (table, normal) in enumerate(zip(tables, sides, strict=True)):
            rows = table.find(lines.text, lines.starts[:, side], lines.ends[:, side])
            if (rows < 0).any():
                one = int(np.argmin(rows))
                raise InputError(f"{block.place(one)}: {lines.field(one, side)} has no embedding; name the embeddings "
                                 "that the scores were computed from")
            if normal is not None:
                parts.append(normal.of(rows, values))
        return score_lines(lines, (sum(parts) / len(parts)).astype(np.float32))

    with write_aside(output, "wb") as stream:
        for text in in_threads(of_block, read_blocks(scores)):
            stream.write(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kind", default="asnorm300", help="znorm, tnorm, snorm, asnorm<N>")
    parser.add_argument("--backend", choices=BACKENDS, default="cosine", help="that the scores are of")
    parser.add_argument("--enrolment", type=Path)
    parser.add_argument("--max-shared-speakers", type=share("--max-shared-speakers"), default=0.0)
    for name in ("folder", "cohort_data", "cohort", "data", "embeddings", "scores", "out"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    found = re.fullmatch(NORM, arguments.kind)
    if not found:
        raise InputError(f"--kind {arguments.kind}: wanted znorm, tnorm, snorm or asnorm<N>, such as asnorm300")
    top = int(found[1] or 0)
    if found[1] and top < 2:
        raise InputError(f"--kind {arguments.kind}: a mean and a deviation need two scores or more")
    speaker_of, trained_on = (dict(zip(*read_column(folder / "utt2spk"), strict=True))
                              for folder in (arguments.data, arguments.cohort_data))
    ids, x = read_embeddings(arguments.embeddings)
    cohort_ids, cohort = read_embeddings(arguments.cohort)
    for names, known, where in ((ids, speaker_of, arguments.data), (cohort_ids, trained_on, arguments.cohort_data)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(f"{where}/utt2spk: no speaker for {len(unknown)} embeddings: {first_five(unknown)}; name "
                             "the data that the embeddings were made from")
    refuse_shared((trained_on[name] for name in cohort_ids), (speaker_of[name] for name in ids),
                  f"the cohort {arguments.cohort}: {arguments.data}", arguments.max_shared_speakers)
    _, means, _ = speaker_means(cohort, [trained_on[name] for name in cohort_ids])
    if len(means) < 2:
        raise InputError(f"{arguments.cohort}: a cohort of one speaker; name the training embeddings")
    names, models = read_models(arguments.enrolment, ids) if arguments.enrolment else (ids, None)
    backend = load_backend(arguments.folder, arguments.backend)
    threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    sides = normals(backend, arguments.kind, means.astype(np.float32), Enrolment(x, models), x, top, threads)
    normalise_file(arguments.scores, arguments.out, names, ids, sides)


if __name__ == "__main__":
    run_main(main)
