"""Refuse to validate or test on training speakers: error rates would be too low, and nobody would notice.

e.g.: python3 -m utils.kaldi.shared_speakers --max-shared-speakers 0.1 data/train_net data/valid

Copies at another speed (sp0.9-id10270) or with moved formants (sp1x0.9-id10270) count as the original speaker. The
speakers of a trial list in <data>/trials are looked up in <data>/utt2spk. For an utterance missing there, the training
speaker is taken whose id, followed by `-`, starts the utterance's id.
"""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from utils.arguments import share
from utils.errors import InputError, first_five, run_main
from utils.files import write_aside
from utils.kaldi.data_dir import read_column

COPY = re.compile(r"sp(\d+\.\d+|\d+(\.\d+)?x\d+(\.\d+)?)-(?=.)")  # not the speaker sp1-f


def original(speaker: str) -> str:
    """Return the original speaker: id10270 for sp0.9-id10270 or sp1x0.9-id10270."""
    return COPY.sub("", speaker, count=1) if COPY.match(speaker) else speaker


def refuse_shared(trained: Iterable[str], others: Iterable[str], what: str, limit: float) -> None:
    """Raise InputError if more than the share `limit` of the speakers `others` are also in `trained`.

    what: the name of the others' data, for the message.
    """
    others = {original(speaker) for speaker in others}
    shared = sorted(others.intersection(map(original, trained)))
    if len(shared) > limit * len(others):
        least = min(1, -(-len(shared) * 1000 // len(others)) / 1000)
        raise InputError(f"{what}: {len(shared)} of its {len(others)} speakers are also in the training data: "
                         f"{first_five(shared)}; remove them from the training data, or allow it with "
                         f"--max-shared-speakers {least:g}")


def trained_speakers(*folders: Path) -> set[str]:
    """Return the speakers that models were trained on, from the files `speakers` in their folders, if present."""
    return {name for folder in folders if (folder / "speakers").is_file()
            for name in (folder / "speakers").read_text(encoding="utf-8").splitlines()}


def write_speakers(folder: Path, speakers: Iterable[str]) -> None:
    """Write the file `speakers` of a model's folder, for `trained_speakers`."""
    with write_aside(folder / "speakers") as stream:
        stream.writelines(f"{name}\n" for name in sorted(set(speakers)))


def check_trials(trials: Path, utterances: Iterable[str], trained: set[str], limit: float) -> None:
    """Raise InputError if more than the share `limit` of the speakers in a trial list are also in `trained`."""
    table = trials.absolute().parent.parent / "utt2spk"
    known = dict(zip(*read_column(table), strict=True)) if trials.parent.name == "trials" and table.is_file() else {}
    trained = {original(speaker) for speaker in trained}
    refuse_shared(trained, (known.get(name) or _guessed(name, trained) for name in utterances), str(trials), limit)


def _guessed(utterance: str, trained: set[str]) -> str:
    """Return the longest `trained` speaker id that starts an utterance's id, or else the part before the first `-`."""
    name = original(utterance)
    ends = [match.start() for match in re.finditer("-", name)]
    return next((name[:end] for end in reversed(ends) if name[:end] in trained), name.partition("-")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--max-shared-speakers", type=share("--max-shared-speakers"), default=0.0,
                        help="allowed share of shared speakers (default: 0)")
    parser.add_argument("train", type=Path, help="data directory for training")
    parser.add_argument("other", type=Path, help="data directory that must have other speakers")
    arguments = parser.parse_args()
    train, other = (read_column(folder / "utt2spk")[1] for folder in (arguments.train, arguments.other))
    refuse_shared(train, other, str(arguments.other), arguments.max_shared_speakers)


if __name__ == "__main__":
    run_main(main)
