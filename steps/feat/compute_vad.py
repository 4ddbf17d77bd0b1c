"""Voice activity of one part of a data directory with MFCC: the job that steps/compute_vad.sh runs nj times.

Job 3 writes vad.3.ark and vad.3.scp into the data directory: vectors of 0 and 1, one value per frame. An
utterance without any voiced frame gets zeros, as in Kaldi, and is counted and named: code that selects
voiced frames uses all of its frames instead.
"""

import argparse
import sys
from pathlib import Path

from utils.errors import InputError, first_five, run_main
from utils.features.options import read_feature_options
from utils.features.vad import VadOptions, energy_vad, read_vad_options
from utils.files import count_lines
from utils.jobs.part import part_of
from utils.kaldi.ark import ArkWriter, iterate
from utils.progress import progress


def check_energy(data: Path) -> None:
    """Raise InputError if feats.conf says that the features lack the energy; Kaldi's directories have no feats.conf."""
    conf = data / "feats.conf"
    if conf.exists() and read_feature_options(conf).kind != "mfcc":
        raise InputError(f"{data} holds log mel energies; voice activity needs MFCC, such as mfcc24")


def compute_part(options: VadOptions, data: Path, job: int, jobs: int) -> list[str]:
    """Write the decisions of part `job` of `jobs`; return the utterances without a voiced frame."""
    check_energy(data)
    part = part_of(count_lines(data / "feats.scp"), job, jobs)
    unvoiced, voiced, frames = [], 0, 0
    with ArkWriter(data / f"vad.{job}") as writer:
        items = iterate(data / "feats.scp", part=part)
        for name, features in progress(items, part.stop - part.start, "voice activity"):
            vad = energy_vad(features, options)
            writer.write(name, vad)
            voiced, frames = voiced + int(vad.sum()), frames + len(vad)
            if not vad.any():
                unvoiced.append(name)
    print(f"{data}: {100 * voiced / max(frames, 1):.1f} % of {frames} frames are voiced", file=sys.stderr)
    return unvoiced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--job", type=int, default=1, help="number of the part, from 1")
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("conf", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    unvoiced = compute_part(read_vad_options(arguments.conf), arguments.data, arguments.job, arguments.nj)
    if unvoiced:
        print(f"warning: {len(unvoiced)} utterances have no voiced frame: {first_five(unvoiced)}; "
              "all their frames will be used", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
