"""Enrol a speaker for utils/identify, with one recording or more.

The speakers of a bundle are kept in a folder beside it, <bundle>.speakers, one file each (steps/use/store.py): delete
<name>.json there to forget a speaker.
e.g.: utils/enrol xvector_bundle "Ada Lovelace" monday.wav tuesday.flac
"""

import argparse
import os
import sys
from pathlib import Path

from nnet.embed import load
from steps.use.listen import add_common, listen
from steps.use.store import Speaker, Store, check_name, model_of, store_beside
from utils.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(prog="utils/enrol", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, help="folder of the speakers (default: <bundle>.speakers)")
    parser.add_argument("--replace", action="store_true", help="replace the speaker of this name, if there is one")
    add_common(parser)
    parser.add_argument("name", help="of the speaker")
    parser.add_argument("recordings", nargs="+", help="files with this speaker alone")
    arguments = parser.parse_args()
    check_name(arguments.name)
    model = load(arguments.bundle, arguments.device)
    store = Store(arguments.store or store_beside(arguments.bundle), model_of(arguments.bundle))
    vectors, seconds = listen(model, arguments.recordings)
    names = tuple(os.path.basename(path) for path in arguments.recordings)
    store.write(Speaker(arguments.name, store.model, names, tuple(seconds), vectors), arguments.replace)
    print(f"{store.path_of(arguments.name)}: {len(vectors)} recordings, {sum(seconds):.1f} s of sound", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
