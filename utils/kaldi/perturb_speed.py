"""Make a raw data directory with copies of another, played slower or faster, as new speakers.

The copies consist of table lines only: utt2speed names the factor, and steps/make_feats.sh resamples the audio. A voice
at another speed has another pitch and other formants, so each speaker becomes a new one per factor. `1x0.9` keeps the
speed and moves the formants to 0.9 times their frequency (utt2formants); `1.1x0.9` does both:

    wav.scp     sp0.9-id10270-x6uYqmx31kE-00001 /corpora/VoxCeleb1/wav/id10270/x6uYqmx31kE/00001.wav
    utt2spk     sp0.9-id10270-x6uYqmx31kE-00001 sp0.9-id10270
    utt2speed   sp0.9-id10270-x6uYqmx31kE-00001 0.9

With segments, the copies name the same parts of the same recordings, in the recordings' time.
e.g.: python3 -m utils.kaldi.perturb_speed --speeds 0.9,1.1 data/train data/train_sp
"""

import argparse
from pathlib import Path

from utils.errors import InputError, run_main
from utils.kaldi.data_dir import AUDIO_TABLES, CHANGES, DataDir, read_data_dir, separate, write_data_dir
from utils.kaldi.shared_speakers import COPY
from utils.kaldi.table_values import plausible_formants, plausible_speed


def perturbed(data: DataDir, speeds: list[str]) -> DataDir:
    """Return the copies of `data` at each speed, in order, with wav.scp, utt2spk, utt2speed and, if formants move,
    utt2formants."""
    ids: list[str] = []
    moved = ["utt2formants"] * any("x" in speed for speed in speeds)
    kept = [name for name in AUDIO_TABLES if name in data.columns]
    columns: dict[str, list[str]] = {name: [] for name in ("utt2spk", "utt2speed", *moved, *kept)}
    for speed in speeds:
        factor, _, formants = speed.partition("x")
        ids += [f"sp{speed}-{name}" for name in data.ids]
        columns["utt2spk"] += [f"sp{speed}-{speaker}" for speaker in data.speakers]
        columns["utt2speed"] += [factor] * len(data.ids)
        for name in moved:
            columns[name] += [formants or "1"] * len(data.ids)
        for name in kept:
            columns[name] += data.columns[name]
    return DataDir(ids, columns).in_order()


def read_speeds(text: str) -> list[str]:
    """Split `0.9,1.1,1x0.9`; raises InputError for factors that are invalid, change nothing, or are given twice."""
    speeds, seen = text.split(","), set()
    for speed in speeds:
        factor, cross, formants = speed.partition("x")
        if not plausible_speed(factor) or (cross and not plausible_formants(formants)):
            raise InputError(f"--speeds {text}: {speed!r} is not a factor from 0.1 to 10, nor one with a factor of the "
                             "formants from 0.5 to 2, such as 1x0.9")
        both = float(factor), float(formants or 1)
        if both == (1, 1):
            raise InputError(f"--speeds {text}: {speed!r} is not a factor other than 1: the copy would be the original")
        if not COPY.match(f"sp{speed}-x"):  # the copies would pass for other people
            raise InputError(f"--speeds {text}: write {speed!r} with a decimal point, such as 2.0 or 1.1x0.9")
        if both in seen:
            raise InputError(f"--speeds {text}: a factor is given twice")
        seen.add(both)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--speeds", default="0.9,1.1", help="factors of speed, or speedxformants, separated by commas")
    parser.add_argument("source", type=Path, help="raw data directory")
    parser.add_argument("output", type=Path, help="data directory to write")
    arguments = parser.parse_args()
    source, output = arguments.source, arguments.output
    separate(output, [source])
    data = read_data_dir(source)
    changed = [name for name in CHANGES if name in data.columns]
    if "wav.scp" not in data.columns or changed:
        fault = f"has {changed[0]} already" if changed else "has no wav.scp"
        raise InputError(f"{source} {fault}; name the raw data directory of the original recordings")
    copies = perturbed(data, read_speeds(arguments.speeds))
    write_data_dir(output, copies)
    print(f"{output}: {len(copies.ids)} copies of {len(data.ids)} utterances at speeds {arguments.speeds}")


if __name__ == "__main__":
    run_main(main)
