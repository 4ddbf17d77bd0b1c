"""Turn spk2utt into utt2spk: one line per utterance with its speaker, in the order of the input.

e.g.: python3 -m utils.kaldi.spk2utt_to_utt2spk data/train/spk2utt > data/train/utt2spk
"""

import argparse
import sys

from utils.errors import InputError, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("spk2utt", nargs="?", type=argparse.FileType(encoding="utf-8"), default=sys.stdin,
                        help="file to read (default: standard input)")
    source = parser.parse_args().spk2utt
    for number, line in enumerate(source, start=1):
        speaker, *utterances = line.split() or [""]
        if not utterances:
            raise InputError(f"{source.name}:{number}: no utterance after the speaker; correct the line")
        sys.stdout.writelines(f"{utterance} {speaker}\n" for utterance in utterances)


if __name__ == "__main__":
    run_main(main)
