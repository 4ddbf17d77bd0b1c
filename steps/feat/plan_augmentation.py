"""Make a raw data directory of augmented copies of another, with the same speakers, in Kaldi's style.

The copies are lines in tables: utt2augment describes the augmentation of each (see utils/features/augment.py), and
steps/make_feats.sh applies it when it reads the audio:

    wav.scp       id10270-x6uYqmx31kE-00001-babble /corpora/VoxCeleb1/wav/id10270/x6uYqmx31kE/00001.wav
    utt2spk       id10270-x6uYqmx31kE-00001-babble id10270
    utt2augment   id10270-x6uYqmx31kE-00001-babble {"kind": "babble", "files": [...], "seed": 95, "snr_db": 17}

With --copies N, each utterance gets N kinds, drawn at random, instead of all.
"""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np

from utils.arguments import seed
from utils.errors import InputError, run_main
from utils.features.augment import KINDS, Sources, make_plan
from utils.kaldi.data_dir import AUDIO_TABLES, DataDir, read_data_dir, separate, write_data_dir
from utils.kaldi.segments import SEGMENTS


def augmented(data: DataDir, kinds: list[str], sources: Sources, copies: int, seed: int) -> DataDir:
    """Return the copies, in order; an utterance's plans depend only on the seed, its id and the sources."""
    ids: list[str] = []
    kept = [name for name in ("utt2spk", "utt2speed", "utt2formants", *AUDIO_TABLES) if name in data.columns]
    columns: dict[str, list[str]] = {name: [] for name in [*kept, "utt2augment"]}
    for row, name in enumerate(data.ids):
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        chosen = sorted(rng.choice(len(kinds), copies, replace=False)) if copies else range(len(kinds))
        for kind in (kinds[index] for index in chosen):
            ids.append(f"{name}-{kind}")
            columns["utt2augment"].append(json.dumps(make_plan(kind, sources, data.speakers[row], rng)))
            for column in kept:
                columns[column].append(data.columns[column][row])
    return DataDir(ids, columns).in_order()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kinds", nargs="+", required=True, choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--copies", type=int, default=0, help="copies per utterance; 0: one of each kind")
    parser.add_argument("--musan-root", type=Path, help="MUSAN, for noise and music; without it, noise is synthetic")
    parser.add_argument("--rirs-root", type=Path, help="RIRS_NOISES, for reverb; without it, rooms are simulated")
    parser.add_argument("--seed", type=seed, default=1)
    parser.add_argument("source", type=Path, help="raw data directory; also gives the voices of babble")
    parser.add_argument("output", type=Path, help="data directory to write")
    arguments = parser.parse_args()
    source, kinds = arguments.source, list(dict.fromkeys(arguments.kinds))
    separate(arguments.output, [source])
    data = read_data_dir(source)
    if "wav.scp" not in data.columns or "utt2augment" in data.columns:
        fault = "has utt2augment already" if "utt2augment" in data.columns else "has no wav.scp"
        raise InputError(f"{source} {fault}; name the raw data directory of the original recordings")
    if SEGMENTS in data.columns and "babble" in kinds:
        raise InputError(f"{source} has segments: babble adds whole recordings, in which the same speaker may talk; "
                         "leave it out: --kinds \"noise reverb\"")
    if not 0 <= arguments.copies <= len(kinds):
        raise InputError(f"--copies {arguments.copies}: wanted 0 to {len(kinds)}, for the kinds {', '.join(kinds)}")
    sources = Sources.find(arguments.musan_root, arguments.rirs_root, data.columns["wav.scp"], data.speakers)
    copies = augmented(data, kinds, sources, arguments.copies, arguments.seed)
    write_data_dir(arguments.output, copies)
    print(f"{arguments.output}: {len(copies.ids)} copies of {len(data.ids)} utterances: {', '.join(kinds)}")


if __name__ == "__main__":
    run_main(main)
