"""Normalise a file of scores with a cohort that is given as embeddings: see steps/backend/score_norm.py.

A chain that ends in `asnorm300` or the like does the same with the speakers that it was trained on.
"""

import argparse
from pathlib import Path

import numpy as np

from steps.backend import NORMS, parse_word
from steps.backend.chain import Chain
from steps.backend.embeddings import read_embeddings
from steps.backend.interface import Enrolment
from steps.backend.score import read_models
from steps.backend.score_norm import Normalised, cohort_threads, normals
from steps.backend.scoring import score_lines
from steps.backend.speaker_stats import speaker_means
from utils.arguments import share
from utils.errors import InputError, first_five, run_main
from utils.files import write_aside
from utils.kaldi.data_dir import read_column
from utils.kaldi.shared_speakers import refuse_shared
from utils.text_lines import Block, IdTable, in_threads, locate, read_blocks
from utils.text_numbers import parse_numbers


def normalise_file(scores: Path, output: Path, names: list[str], ids: list[str], scorer: Normalised) -> None:
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
        rows = []
        for side, table in enumerate(tables):
            found = table.find(lines.text, lines.starts[:, side], lines.ends[:, side])
            if (found < 0).any():
                one = int(np.argmin(found))
                raise InputError(f"{block.place(one)}: {lines.field(one, side)} has no embedding; name the embeddings "
                                 "that the scores were computed from")
            rows.append(found)
        return score_lines(lines, scorer.of(values, *rows))

    with write_aside(output, "wb") as stream:
        for text in in_threads(of_block, read_blocks(scores)):
            stream.write(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kind", default="asnorm300", help=f"{', '.join(NORMS)}<N>")
    parser.add_argument("--chain", default="", help="words of the chain, for a folder without the file `chain`")
    parser.add_argument("--enrolment", type=Path)
    parser.add_argument("--max-shared-speakers", type=share("--max-shared-speakers"), default=0.0)
    for name in ("folder", "cohort_data", "cohort", "data", "embeddings", "scores", "out"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    norm = parse_word(arguments.kind, "--kind", False)
    if norm.name not in NORMS:
        raise InputError(f"--kind {arguments.kind}: wanted one of {', '.join(NORMS)}<N>, such as asnorm300")
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
    chain = Chain.load(arguments.folder, arguments.chain)
    if chain.words.norm:
        raise InputError(f"{arguments.folder}: its chain {chain.words} normalises scores; name one that does not")
    enrolment = Enrolment(x, models)
    scorer = Normalised(chain.plain_scorer(enrolment, x), *normals(
        chain.plain_scorer, norm, means.astype(np.float32), enrolment, x, cohort_threads()))
    normalise_file(arguments.scores, arguments.out, names, ids, scorer)


if __name__ == "__main__":
    run_main(main)
