"""Score a trial list with a trained back-end: one line `id1 id2 score` per trial.

With --enrolment (lines `model utt1 utt2 ...`, as spk2utt), the first id of a trial is a model: the mean of its
utterances' vectors, whose number PLDA takes into account.
"""

import argparse
from pathlib import Path

import numpy as np

from steps.backend import BACKENDS, describe
from steps.backend.embeddings import read_embeddings
from steps.backend.interface import Backend, Enrolment
from steps.backend.scoring import score_trials
from utils.arguments import share
from utils.errors import InputError, first_five, run_main
from utils.kaldi.ark import read_table
from utils.kaldi.shared_speakers import check_trials, trained_speakers


def read_models(path: Path, ids: list[str]) -> tuple[list[str], list[np.ndarray]]:
    """Return the names of the enrolment models and the rows of their utterances among `ids`."""
    row_of = {name: row for row, name in enumerate(ids)}
    names, lists = read_table(path)
    utterances = [line.split() for line in lists]
    missing = dict.fromkeys(utt for words in utterances for utt in words if utt not in row_of)
    if missing:
        raise InputError(f"{path}: {len(missing)} utterances have no embedding: {first_five(missing)}; extract the "
                         "embeddings of the enrolment data together with those of the test data")
    return names, [np.array([row_of[utt] for utt in words]) for words in utterances]


def load_backend(folder: Path, name: str) -> Backend:
    """Return a trained back-end; raises InputError, naming the file, if the folder lacks one of its files."""
    kind, _ = BACKENDS[name]
    for file in (folder / one for one in kind.files):
        if not file.is_file() or not file.stat().st_size:
            raise InputError(f"{file} is missing or empty; run the stage that makes it first, with a configuration "
                             f"whose `scoring:` has {name}")
    return kind.load(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="plda",
                        help="\n".join(f"{name}: {describe(name)}" for name in BACKENDS))
    parser.add_argument("--enrolment", type=Path)
    parser.add_argument("--max-shared-speakers", type=share("--max-shared-speakers"), default=0.0,
                        help="share of the list's speakers that may also be trained on (default: 0)")
    parser.add_argument("folder", type=Path, help="of train_backend; mean.vec, transform.mat and plda may be Kaldi's")
    parser.add_argument("embeddings", type=Path, help="script or archive of vectors, or the folder with its script")
    parser.add_argument("trials", type=Path)
    parser.add_argument("scores", type=Path)
    arguments = parser.parse_args()
    ids, x = read_embeddings(arguments.embeddings)
    names, models = read_models(arguments.enrolment, ids) if arguments.enrolment else (ids, None)
    scorer = load_backend(arguments.folder, arguments.backend).scorer(Enrolment(x, models), x)
    trained = trained_speakers(arguments.folder, arguments.folder.absolute().parent)

    def check(enrolment: np.ndarray, test: np.ndarray) -> None:
        rows = set(enrolment.tolist() if models is None else np.concatenate([models[i] for i in enrolment]).tolist())
        check_trials(arguments.trials, (ids[row] for row in rows | set(test.tolist())), trained,
                     arguments.max_shared_speakers)

    score_trials(arguments.trials, arguments.scores, scorer, names, ids, check)


if __name__ == "__main__":
    run_main(main)
