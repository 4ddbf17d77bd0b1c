"""Reading embeddings for the back-end."""

from pathlib import Path

import numpy as np

from utils.errors import InputError, first_five
from utils.kaldi.ark import read_vectors

SCRIPTS = ("xvector.scp", "ivector.scp")


def read_embeddings(path: Path) -> tuple[list[str], np.ndarray]:
    """Read all vectors of a script, of an archive, or of the script in a folder: ids and float32 N x D.

    Raises InputError for a folder without exactly one of SCRIPTS, and for vectors with NaN or infinite values.
    """
    if path.is_dir():
        found = [path / name for name in SCRIPTS if (path / name).is_file()]
        if len(found) != 1:
            raise InputError(f"{path}: wanted either {' or '.join(SCRIPTS)}, found {len(found)} of them; extract the "
                             "embeddings first")
        path = found[0]
    ids, vectors = read_vectors(path)
    # A NaN or infinite value makes its row's sum NaN or infinite: N sums are checked, not N x D values.
    wrong = np.flatnonzero(~np.isfinite(vectors.sum(axis=1, dtype=np.float64)))
    if len(wrong):
        raise InputError(f"{path}: {len(wrong)} embeddings have NaN or infinite values: "
                         f"{first_five(ids[row] for row in wrong)}; extract them again")
    return ids, vectors
