"""Make a folder in VoxCeleb1's layout with as many files as VoxCeleb: hard links to a few recordings.

    dev/wav/id10001/v0001/00001.wav    training speakers
    test/wav/...                       40 test speakers
    veri_test.txt                      random trials of these, as many targets as non-targets

Durations are drawn as 4 s plus an exponential of mean 4.53 s, cut at 145 s: the mean of VoxCeleb1 (352 hours in 148,642
utterances, none shorter than 4 s). The recordings are filtered noise, `--distinct` of them; every speaker has a random
choice, so that error rates mean nothing.
e.g.: python3 -m tests.bench.large_corpus --speakers 1251 --utterances 148642 work/corpus
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile
from scipy.signal import lfilter

from utils.errors import InputError, run_main
from utils.files import write_aside

RATE, TEST, VIDEO = 16000, 40, 6  # sampling rate in Hz; test speakers; utterances per video


def make_pool(folder: Path, number: int, form: str, rng: np.random.Generator) -> list[Path]:
    """Write `number` recordings as wav or m4a; return their paths."""
    folder.mkdir(parents=True)
    paths = []
    for index in range(number):
        samples = int(RATE * min(145.0, 4.0 + rng.exponential(4.53)))
        noise = rng.normal(size=samples).astype(np.float32)
        pole = rng.uniform(0.5, 0.95, 2)
        voiced = np.repeat(rng.random(samples // 1600 + 1) < 0.8, 1600)[:samples]  # tenths of a second
        signal = lfilter([1], np.convolve([1, -pole[0]], [1, pole[1]]), noise) * (0.02 + 0.98 * voiced)
        paths.append(folder / f"{index:05}.{form}")
        values = np.round(32767 * (0.05 * signal).clip(-1, 1)).astype(np.int16)
        (soundfile.write if form == "wav" else write_aac)(paths[-1], values, RATE)
    return paths


def write_aac(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write samples (int16) as AAC at 64 kbit/s in an MPEG-4 file, as VoxCeleb2 is given out."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        stream.bit_rate = 64000
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start:start + 1024], format="s16", layout="mono")
            frame.rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def link_all(root: Path, pool: list[Path], speakers: int, utterances: int, rng: np.random.Generator) -> list[list[str]]:
    """Link `utterances` files of all speakers to the pool; return the test speakers' paths, speaker by speaker."""
    of_test = []
    aac = pool[0].suffix != ".wav"
    for number in range(speakers):
        part = "test" if number < TEST else "dev"
        speaker, names = f"id{10001 + number}", []
        for one in range((number + 1) * utterances // speakers - number * utterances // speakers):
            name = f"{speaker}/v{one // VIDEO:04}/{one % VIDEO + 1:05}{pool[0].suffix}"
            path = root / part / ("aac" if aac else "wav") / name
            if one % VIDEO == 0:
                path.parent.mkdir(parents=True)
            os.link(pool[rng.integers(len(pool))], path)
            names.append(name)
        if part == "test":
            of_test.append(names)
    return of_test


def write_trials(path: Path, of_test: list[list[str]], number: int, rng: np.random.Generator) -> None:
    """Write `number` random trials, every second one a target."""
    with write_aside(path) as stream:
        for trial in range(number):
            one, other = rng.choice(len(of_test), 2, replace=False)
            first, second = (rng.choice(of_test[one], 2, replace=False) if trial % 2 == 0 else
                             (rng.choice(of_test[one]), rng.choice(of_test[other])))
            stream.write(f"{1 - trial % 2} {first} {second}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--speakers", type=int, default=1251, metavar="N", help="default: %(default)s")
    parser.add_argument("--utterances", type=int, default=148642, metavar="N", help="in all (default: %(default)s)")
    parser.add_argument("--distinct", type=int, default=2000, metavar="N", help="recordings (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=37720, metavar="N", help="default: %(default)s, as VoxCeleb1-O")
    parser.add_argument("--format", choices=("wav", "m4a"), default="wav", help="default: %(default)s")
    parser.add_argument("root", type=Path, help="folder to create")
    arguments = parser.parse_args()
    root, speakers = arguments.root, arguments.speakers
    if root.exists():
        raise InputError(f"{root} exists; name a new folder")
    if speakers <= TEST or arguments.utterances < 2 * speakers:
        raise InputError(f"--speakers {speakers} --utterances {arguments.utterances}: wanted more than {TEST} "
                         "speakers, and two utterances of each")
    rng = np.random.default_rng(0)
    root.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))  # a corpus that is there is whole
    try:
        pool = make_pool(aside / ".pool", arguments.distinct, arguments.format, rng)
        of_test = link_all(aside, pool, speakers, arguments.utterances, rng)
        shutil.rmtree(aside / ".pool")  # the links keep the recordings
        write_trials(aside / "veri_test.txt", of_test, arguments.trials, rng)
        aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    run_main(main)
