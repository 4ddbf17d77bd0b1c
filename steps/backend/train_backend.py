"""Train the back-ends that a system is scored with on its training embeddings, e.g. mean.vec for cosine; mean.vec,
transform.mat (LDA) and plda for PLDA.

Also writes `speakers`, the names of the training speakers; trials must not contain them
(utils/kaldi/shared_speakers.py). Reads `scoring:` and the block `backend:` of the system's configuration. Deletes the
files of other back-ends: they would belong to other embeddings.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from steps.backend import BACKENDS, options_of
from steps.backend.embeddings import read_embeddings
from steps.backend.interface import Backend
from utils.errors import InputError, first_five, run_main
from utils.kaldi.ark import read_table
from utils.kaldi.shared_speakers import write_speakers
from utils.strict_yaml import read_yaml


def fit_all(x: np.ndarray, speakers: list[str], options: dict[str, Any]) -> list[Backend]:
    """Return the back-ends that `options` names, with the options of each, trained on N x D embeddings."""
    return [BACKENDS[name][0].fit(x, speakers, chosen) for name, chosen in options.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("utt2spk", type=Path)
    parser.add_argument("embeddings", type=Path, help="script or archive of vectors, or the folder with its script")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    options = options_of(read_yaml(arguments.config), str(arguments.config))
    ids, x = read_embeddings(arguments.embeddings)
    speaker_of = dict(zip(*read_table(arguments.utt2spk), strict=True))
    unknown = [name for name in ids if name not in speaker_of]
    if unknown:
        raise InputError(f"{arguments.embeddings}: no speaker in {arguments.utt2spk} for {len(unknown)} ids: "
                         f"{first_five(unknown)}; name the data that the embeddings were made from")
    print(f"{len(ids)} embeddings of {len(speaker_of)} utterances, dimension {x.shape[1]}", file=sys.stderr)
    fitted = fit_all(x, [speaker_of[name] for name in ids], options)
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = {name for kind, _ in BACKENDS.values() for name in kind.files}
    for name in files.difference(*(backend.files for backend in fitted)):
        (arguments.out / name).unlink(missing_ok=True)
    for backend in fitted:
        backend.save(arguments.out)
    write_speakers(arguments.out, (speaker_of[name] for name in ids))


if __name__ == "__main__":
    run_main(main)
