"""Write a trained chain as the files that VBx reads (github.com/BUTSpeechFIT/VBx): `plda`, in Kaldi's format, and
`transform.h5` with mean1, mean2 and lda.

VBx (Landini et al. 2022) compares, with u(x) the vector x at unit length,

    z = u(lda^T u(x - mean1) - mean2)    by a PLDA of z

That is the chain `center length lda<N> length plda`, but for the lengths, which are sqrt(D) and sqrt(N) here: lda and
the PLDA take over these factors.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steps.backend.chain import Chain
from steps.backend.plda import Plda, write_plda
from steps.backend.plda_scoring import Gaussian, TwoCovariance
from steps.backend.transforms import Center, Lda, Length
from utils.errors import InputError, run_main
from utils.files import write_aside

WANTED = "center length lda200 length plda"
LEAST_PSI = 1e-6  # of the largest: VBx divides by psi


class VbxModel(NamedTuple):
    """mean1: D; lda: D x N; mean2: N; plda: of vectors of unit length, N."""

    mean1: np.ndarray
    lda: np.ndarray
    mean2: np.ndarray
    plda: Plda


def vbx_model(chain: Chain, where: str) -> VbxModel:
    """Return the model of VBx with the vectors and the PLDA of a chain; raises InputError, naming it, for others."""
    kinds = tuple(type(part) for part in chain.transforms)
    plain = type(chain.comparison) in (TwoCovariance, Gaussian) and not chain.words.norm and chain.words.parts == 1
    if kinds != (Center, Length, Lda, Length) or not plain:
        raise InputError(f"{where}: the chain is {chain.words}, VBx takes {WANTED} alone; train such a chain: "
                         f"backend: {{vbx: [{WANTED.replace(' ', ', ')}]}}")
    center, _, lda, _ = chain.transforms
    plda, matrix = chain.comparison.plda, lda.matrix.astype(np.float64)
    dim, size = len(center.mean), len(matrix)
    offset = matrix[:, dim] if matrix.shape[1] > dim else np.zeros(size)
    psi = np.maximum(plda.psi, LEAST_PSI * plda.psi.max())
    if raised := int((psi > plda.psi).sum()):
        print(f"{where}: {raised} of {size} between-speaker variances raised to {LEAST_PSI:g} of the largest",
              file=sys.stderr)
    scaled = Plda(plda.mean / size ** 0.5, plda.transform * size ** 0.5, psi)
    return VbxModel(center.mean.astype(np.float64), dim ** 0.5 * matrix[:, :dim].T, -offset, scaled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("chain", type=Path, help="folder of the chain")
    parser.add_argument("out", type=Path, help="folder for plda and transform.h5")
    arguments = parser.parse_args()
    model = vbx_model(Chain.load(arguments.chain), str(arguments.chain))
    try:
        import h5py  # only VBx needs its format
    except ImportError as error:
        raise InputError("transform.h5 needs the package h5py; python3 -m pip install h5py") from error
    with write_aside(arguments.out / "transform.h5", "wb") as stream, h5py.File(stream, "w") as file:
        for name in ("mean1", "lda", "mean2"):
            file[name] = getattr(model, name)
    write_plda(arguments.out / "plda", model.plda)


if __name__ == "__main__":
    run_main(main)
