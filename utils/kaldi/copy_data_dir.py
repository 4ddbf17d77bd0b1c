"""Copy a data directory, adding prefixes to the ids of utterances and speakers.

Trial lists are copied with the new ids; files named in the tables (audio, ark) are not copied.
e.g.: python3 -m utils.kaldi.copy_data_dir --spk-prefix reverb- --utt-prefix reverb- data/train data/train_reverb
"""

import argparse
from pathlib import Path

from utils.errors import run_main
from utils.kaldi.data_dir import (
    DataDir,
    read_data_dir,
    separate,
    write_data_dir,
)
from utils.kaldi.option_files import common_options, write_options
from utils.kaldi.trials import list_files, trial_lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--utt-prefix", default="", help="prefix of each utterance id")
    parser.add_argument("--spk-prefix", default="",
                        help="prefix of each speaker id; utterance ids must start with it too")
    parser.add_argument("source", type=Path, help="data directory to copy")
    parser.add_argument("output", type=Path, help="data directory to write")
    arguments = parser.parse_args()
    source, output, prefix = arguments.source, arguments.output, arguments.utt_prefix
    separate(output, [source])
    data = read_data_dir(source)
    columns = data.columns | {"utt2spk": [arguments.spk_prefix + speaker for speaker in data.speakers]}
    trials = {path.name: trial_lines(path, prefix) for path in list_files(source)}
    write_data_dir(output, DataDir([prefix + utterance for utterance in data.ids], columns), trials)
    write_options(output, common_options([source]))
    print(f"{output}: {len(data.ids)} utterances of {source}")


if __name__ == "__main__":
    run_main(main)
