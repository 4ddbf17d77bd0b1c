"""Score a trial list with a trained chain: one line `id1 id2 score` per trial.

With --enrolment (lines `model utt1 utt2 ...`, as spk2utt), the first id of a trial is a model: the mean of its
utterances' vectors, whose number PLDA takes into account.
"""

import argparse
from pathlib import Path

import numpy as np

from steps.backend.chain import Chain
from steps.backend.embeddings import read_embeddings
from steps.backend.interface import Enrolment
from steps.backend.score_norm import cohort_threads
from steps.backend.scoring import score_trials
from utils.arguments import share
from utils.errors import InputError, first_five, run_main
from utils.files import count_lines
from utils.kaldi.ark import read_table, repeated
from utils.kaldi.shared_speakers import check_trials, trained_speakers


def read_models(path: Path, ids: list[str]) -> tuple[list[str], list[np.ndarray]]:
    """Return the names of the enrolment models and the rows of their utterances among `ids`.

    Raises InputError for an utterance without an embedding, and for one that is named twice for a model.
    """
    row_of = {name: row for row, name in enumerate(ids)}
    names, lists = read_table(path)
    utterances = [line.split() for line in lists]
    missing = dict.fromkeys(utt for words in utterances for utt in words if utt not in row_of)
    if missing:
        raise InputError(f"{path}: {len(missing)} utterances have no embedding: {first_five(missing)}; extract the "
                         "embeddings of the enrolment data together with those of the test data")
    for name, words in zip(names, utterances, strict=True):
        if len(set(words)) < len(words):
            raise InputError(f"{path}: {name} has {repeated(words)} twice; each utterance counts once")
    return names, [np.array([row_of[utt] for utt in words]) for words in utterances]


def named_in(trials: Path, ids: list[str], x: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the embeddings that a list names, if it is so short that it can name but a part of them: the others, of
    all training utterances when the held-out speakers are scored, would only take time and memory."""
    if 2 * count_lines(trials, most=len(ids)) >= len(ids):
        return ids, x
    with open(trials, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        named = {word for line in lines for word in line.split()[:2]}
    rows = [row for row, name in enumerate(ids) if name in named]
    return ([ids[row] for row in rows], x[rows]) if rows else (ids, x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chain", default="", help="words of the chain, for a folder without the file `chain`")
    parser.add_argument("--enrolment", type=Path)
    parser.add_argument("--max-shared-speakers", type=share("--max-shared-speakers"), default=0.0,
                        help="share of the list's speakers that may also be trained on (default: 0)")
    parser.add_argument("folder", type=Path, help="of one chain; mean.vec, transform.mat and plda may be Kaldi's")
    parser.add_argument("embeddings", type=Path, help="script or archive of vectors, or the folder with its script")
    parser.add_argument("trials", type=Path)
    parser.add_argument("scores", type=Path)
    arguments = parser.parse_args()
    ids, x = read_embeddings(arguments.embeddings)
    if not arguments.enrolment:
        ids, x = named_in(arguments.trials, ids, x)
    names, models = read_models(arguments.enrolment, ids) if arguments.enrolment else (ids, None)
    scorer = Chain.load(arguments.folder, arguments.chain).scorer(
        Enrolment(x, models), x, cohort_threads())
    above = arguments.folder.absolute().parents  # the model's speakers, too: in exp/<system>, above held_out/backend
    trained = trained_speakers(arguments.folder, *above[:3 if "held_out" in {place.name for place in above[:2]} else 2])

    def check(enrolment: np.ndarray, test: np.ndarray) -> None:
        rows = set(enrolment.tolist() if models is None else np.concatenate([models[i] for i in enrolment]).tolist())
        check_trials(arguments.trials, (ids[row] for row in rows | set(test.tolist())), trained,
                     arguments.max_shared_speakers)

    score_trials(arguments.trials, arguments.scores, scorer, names, ids, check, models)


if __name__ == "__main__":
    run_main(main)
