"""Join what the jobs of steps/compute_vad.sh wrote to vad.scp of the data directory."""

import argparse
from pathlib import Path

from steps.feat.collect_feats import join
from utils.ark import read_table
from utils.errors import InputError, run_main
from utils.files import write_aside


def collect(data: Path, jobs: int) -> None:
    """Publish vad.scp; raises InputError when it does not list the utterances of feats.scp."""
    ids, places = join(data, jobs, "vad.{}.scp")
    if ids != read_table(data / "feats.scp")[0]:
        raise InputError(f"{data}: voice activity is not of the utterances in feats.scp; run again")
    with write_aside(data / "vad.scp") as stream:
        stream.writelines(f"{name} {place}\n" for name, place in zip(ids, places, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    collect(arguments.data, arguments.nj)


if __name__ == "__main__":
    run_main(main)
