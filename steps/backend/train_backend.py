"""Train the chains of a system's configuration (`backend:`) on its training embeddings, each into <out>/<name>.

Each folder gets `speakers`, the names of those trained on; trials must not contain them
(utils/kaldi/shared_speakers.py). Folders of chains that the configuration no longer has are deleted.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steps.backend import chains_of
from steps.backend.chain import WORDS, Chain
from steps.backend.embeddings import read_embeddings
from utils.errors import InputError, first_five, run_main
from utils.kaldi.data_dir import read_column
from utils.kaldi.shared_speakers import original
from utils.strict_yaml import read_yaml


class Labelled(NamedTuple):
    """N x D embeddings with the speaker of each."""

    x: np.ndarray
    speakers: list[str]


def read_labelled(utt2spk: Path, embeddings: Path, left_out: set[str]) -> Labelled:
    """Read embeddings and their speakers, but for those of some speakers and their copies."""
    ids, x = read_embeddings(embeddings)
    speaker_of = dict(zip(*read_column(utt2spk), strict=True))
    unknown = [name for name in ids if name not in speaker_of]
    if unknown:
        raise InputError(f"{embeddings}: no speaker in {utt2spk} for {len(unknown)} ids: {first_five(unknown)}; name "
                         "the data that the embeddings were made from")
    speakers = [speaker_of[name] for name in ids]
    kept = [row for row, speaker in enumerate(speakers) if original(speaker) not in left_out]
    if not kept:
        raise InputError(f"{embeddings}: all of its speakers are held out; hold fewer out")
    print(f"{len(kept)} of {len(ids)} embeddings of {embeddings}, dimension {x.shape[1]}", file=sys.stderr)
    return Labelled(x[kept] if len(kept) < len(ids) else x, [speakers[row] for row in kept])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--held-out", type=Path, help="data directory whose speakers are left out")
    parser.add_argument("--copies", nargs=2, type=Path, metavar=("UTT2SPK", "EMBEDDINGS"),
                        help="of copies at other speeds, for chains that begin with `copies`")
    parser.add_argument("config", type=Path)
    parser.add_argument("utt2spk", type=Path)
    parser.add_argument("embeddings", type=Path, help="script or archive of vectors, or the folder with its script")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    chains = {name: words for name, words in chains_of(read_yaml(arguments.config), str(arguments.config)).items()
              if words is not None}
    left_out = set(map(original, read_column(arguments.held_out / "utt2spk")[1])) if arguments.held_out else set()
    plain = read_labelled(arguments.utt2spk, arguments.embeddings, left_out)
    both = plain
    wanting = [name for name, words in chains.items() if words.copies]
    if wanting and not arguments.copies:
        raise InputError(f"{arguments.config}: the chain {wanting[0]} is trained on copies, but there are none; give "
                         "--copies-data and --copies-embeddings")
    if wanting:
        copies = read_labelled(*arguments.copies, left_out)
        if copies.x.shape[1] != plain.x.shape[1]:
            raise InputError(f"{arguments.copies[1]}: embeddings of dimension {copies.x.shape[1]}, of dimension "
                             f"{plain.x.shape[1]} in {arguments.embeddings}; extract both with one model")
        both = Labelled(np.concatenate([plain.x, copies.x]), plain.speakers + copies.speakers)
    trained = {name: Chain.fit(words, *(both if words.copies else plain)) for name, words in chains.items()}
    for folder in sorted(arguments.out.glob(f"*/{WORDS}")):
        # One with a record of its own has been adapted: steps/adapt_backend.sh.
        if folder.parent.name not in trained and not (folder.parent / ".done").exists():
            shutil.rmtree(folder.parent)
    for name, chain in trained.items():
        chain.save(arguments.out / name)


if __name__ == "__main__":
    run_main(main)
