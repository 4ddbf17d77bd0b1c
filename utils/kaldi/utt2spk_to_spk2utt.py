"""Turn utt2spk into spk2utt: one line per speaker with all its utterances, in the order of the input.

e.g.: python3 -m utils.kaldi.utt2spk_to_spk2utt data/train/utt2spk > data/train/spk2utt
"""

import argparse
import sys
from collections.abc import Iterable

from utils.errors import InputError, run_main


def invert(lines: Iterable[str], name: str) -> dict[str, list[str]]:
    """Return speaker -> utterances from lines `utterance speaker`; raises InputError naming a bad line."""
    speakers: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) != 2:
            raise InputError(f"{name}:{number}: {len(fields)} fields, expected `utterance speaker`; "
                             "correct the line")
        speakers.setdefault(fields[1], []).append(fields[0])
    return speakers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("utt2spk", nargs="?", type=argparse.FileType(encoding="utf-8"), default=sys.stdin,
                        help="file to read (default: standard input)")
    source = parser.parse_args().utt2spk
    for speaker, utterances in invert(source, source.name).items():
        print(speaker, *utterances)


if __name__ == "__main__":
    run_main(main)
