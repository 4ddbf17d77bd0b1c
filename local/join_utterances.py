"""Join utterances of the same speaker into long recordings: where a speaker talks, pauses, and goes on elsewhere.

    flac/<speaker>/<speaker>-joined-00001.flac    the recordings, in a data directory with wav.scp, utt2spk, spk2utt
    joined_from                                   id10270-joined-00001 id10270-x6uYqmx31kE-00001 ... (its utterances)
    trials/joined3                                all target pairs without a common utterance, as many non-targets

A recording takes its utterances from as many sessions as possible; an id shows its session as in
<speaker>-<session>-<utterance>. In a set, each utterance is in one recording at most; fewer than --utterances of each
speaker are left over. A speaker whose utterances do not make --recordings of them gets further sets, with other
neighbours. Each utterance is brought to the mean power of its recording's utterances. Synthetic noise
(utils/features/augment.py) lies under all of it, --snr dB below that power.
e.g.: python3 -m local.join_utterances --utterances 3 data/test data/test_joined
"""

import argparse
import math
import os
import random
import shutil
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from local.speaker_tables import PATTERNS, write_speakers
from utils.ahead import in_order
from utils.arguments import seed
from utils.audio import SAMPLE_RATE, read_audio
from utils.errors import InputError, run_main
from utils.features.augment import made_up_noise
from utils.files import write_aside
from utils.kaldi.data_dir import DataDir, read_column, read_data_dir, separate, write_data_dir
from utils.progress import progress

LOUDEST = 32000  # of 32767: a recording with higher peaks is turned down


class Joined(NamedTuple):
    """A recording to make: of these utterances, in this order."""

    id: str
    speaker: str
    utterances: tuple[str, ...]


def session_of(utterance: str, speaker: str) -> str:
    """Return the session that an id shows: `x6uYqmx31kE` of id10270-x6uYqmx31kE-00001; empty if it shows none."""
    return utterance.removeprefix(f"{speaker}-").rpartition("-")[0]


def groups_of(utterances: Sequence[str], speaker: str, size: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Return disjoint groups of `size` utterances of a speaker, as many as there can be.

    Each utterance comes from a session that its group has not, while there is one: from that with the most left, so
    that the sessions last as long as possible.
    """
    left: dict[str, list[str]] = defaultdict(list)
    for name in rng.permutation(np.array(utterances, object)):
        left[session_of(name, speaker)].append(name)
    groups = []
    for _ in range(len(utterances) // size):
        group, taken = [], Counter()
        for _ in range(size):
            session = min((one for one in left if left[one]), key=lambda one: (taken[one], -len(left[one])))
            taken[session] += 1
            group.append(left[session].pop())
        groups.append(tuple(rng.permutation(np.array(group, object))))
    return groups


def choose(data: DataDir, size: int, wanted: int, seed: int) -> list[Joined]:
    """Return the recordings to make, sorted by id; a speaker's depend only on the options and the speaker's utterances.

    size: utterances in a recording; wanted: recordings of a speaker, as few sets as make them.
    """
    chosen = []
    for speaker, rows in data.by_speaker():
        rng = np.random.default_rng((seed, zlib.crc32(speaker.encode())))
        utterances = data.ids[rows.start:rows.stop]
        of_set = len(utterances) // size
        sets = math.ceil(wanted / of_set) if of_set > 1 else of_set  # any two of fewer utterances would share some
        groups = [group for _ in range(sets) for group in groups_of(utterances, speaker, size, rng)]
        different = {frozenset(group): group for group in groups}.values()  # few utterances have few groups
        chosen += [Joined(f"{speaker}-joined-{number:05}", speaker, group) for number, group in enumerate(different, 1)]
    return sorted(chosen)


def draw_trials(recordings: Sequence[Joined], seed: int) -> list[str]:
    """Return the sorted lines of a list: all target pairs without a common utterance, and as many non-targets.

    If fewer non-target pairs exist, all of them are taken. Raises InputError if either kind is missing.
    """
    of_speaker: dict[str, list[Joined]] = defaultdict(list)
    for one in recordings:
        of_speaker[one.speaker].append(one)
    pairs = (pair for own in of_speaker.values() for pair in combinations(own, 2))
    targets = [(one.id, other.id) for one, other in pairs if not {*one.utterances} & {*other.utterances}]
    total, alike = math.comb(len(recordings), 2), sum(math.comb(len(own), 2) for own in of_speaker.values())
    if not targets or total == alike:
        raise InputError(f"{len(recordings)} joined recordings of {len(of_speaker)} speakers give {len(targets)} "
                         f"target and {total - alike} non-target trials; join fewer utterances, or add speakers")
    # Among as many pairs of all as these, there are enough of different speakers.
    drawn = random.Random(seed).sample(range(total), min(total, len(targets) + alike))
    nontargets = [(one.id, other.id) for one, other in (pair_of(rank, recordings) for rank in drawn)
                  if one.speaker != other.speaker]
    lines = [f"{one} {other} target\n" for one, other in targets]
    return sorted(lines + [f"{one} {other} nontarget\n" for one, other in nontargets[:len(targets)]])


def pair_of(rank: int, recordings: Sequence[Joined]) -> tuple[Joined, Joined]:
    """Return pair number `rank` of (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    second = (1 + math.isqrt(1 + 8 * rank)) // 2
    return recordings[rank - math.comb(second, 2)], recordings[second]


def power(samples: np.ndarray) -> float:
    """Return the mean square of samples."""
    return float(np.mean(np.square(samples, dtype=np.float64)))


def join(parts: Sequence[np.ndarray], pauses: tuple[float, float], snr_db: float,
         rng: np.random.Generator) -> np.ndarray:
    """Return a recording of `parts` at SAMPLE_RATE (16-bit scale), each brought to their mean power, with pauses of
    `pauses` seconds between them and noise `snr_db` dB below that power under all of it."""
    level = power(np.concatenate(parts))
    pieces: list[np.ndarray] = []
    for part in parts:
        if pieces:
            pieces.append(np.zeros(round(rng.uniform(*pauses) * SAMPLE_RATE), np.float32))
        own = power(part)
        pieces.append(part * np.float32(math.sqrt(level / own)) if own else part)  # digital silence stays
    speech = np.concatenate(pieces)
    noise = made_up_noise(len(speech), SAMPLE_RATE, rng)
    mixed = speech + np.float32(math.sqrt(level / 10 ** (snr_db / 10) / power(noise))) * noise
    return mixed * np.float32(min(1.0, LOUDEST / max(1.0, float(np.abs(mixed).max()))))


def write_audio(recordings: Sequence[Joined], paths: dict[str, str], folder: Path, pauses: tuple[float, float],
                snr_db: float, seed: int) -> None:
    """Write <speaker>/<id>.flac of each recording to `folder`, which appears complete or not at all.

    paths: of the utterances. Pauses and noise depend only on the seed and the recording's id.
    """
    aside = folder.parent / f".{folder.name}.unfinished"
    shutil.rmtree(aside, ignore_errors=True)

    def write(one: Joined) -> None:
        rng = np.random.default_rng((seed, zlib.crc32(one.id.encode())))
        samples = join([read_audio(paths[name]).samples for name in one.utterances], pauses, snr_db, rng)
        (aside / one.speaker).mkdir(parents=True, exist_ok=True)
        soundfile.write(aside / one.speaker / f"{one.id}.flac", samples.round().astype(np.int16), SAMPLE_RATE)

    try:
        done = in_order(write, recordings, os.cpu_count() or 1)
        for _ in progress(done, len(recordings), "join", "recordings"):
            pass
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def seconds_of(text: str) -> tuple[float, float]:
    """Read the value of --pauses, `0.5,2`; raises InputError unless it is two numbers that do not descend."""
    try:
        shortest, longest = map(float, text.split(","))
    except ValueError:
        shortest, longest = -1.0, -1.0
    if not 0 <= shortest <= longest < math.inf:
        raise InputError(f"--pauses is {text!r}, wanted the shortest and the longest in seconds: 0.5,2")
    return shortest, longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--utterances", type=int, default=3, help="in a recording (default: %(default)s)")
    parser.add_argument("--recordings", type=int, default=18, help="wanted per speaker (default: %(default)s)")
    parser.add_argument("--pauses", type=seconds_of, default=(0.5, 2.0), help="seconds between utterances: 0.5,2")
    parser.add_argument("--snr", type=float, default=20.0, help="dB from noise to speech (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=1, help="(default: %(default)s)")
    parser.add_argument("source", type=Path, help="raw data directory of single utterances")
    parser.add_argument("output", type=Path, help="data directory to write, with the audio")
    arguments = parser.parse_args()
    source, output, size = arguments.source, arguments.output, arguments.utterances
    if size < 2 or arguments.recordings < 2:
        raise InputError(f"{size} utterances per recording, {arguments.recordings} recordings per speaker: wanted 2 or "
                         "more of each")
    separate(output, [source])
    data = read_data_dir(source)
    if other := sorted(data.columns.keys() - {"utt2spk", "wav.scp"}):
        raise InputError(f"{source} has {', '.join(other)}; name the raw data directory of the original recordings")
    recordings = choose(data, size, arguments.recordings, arguments.seed)
    trials = draw_trials(recordings, arguments.seed)
    audio = Path(os.path.abspath(output)) / "flac"
    write_audio(recordings, dict(zip(data.ids, data.columns["wav.scp"], strict=True)), audio, arguments.pauses,
                arguments.snr, arguments.seed)
    speakers = [one.speaker for one in recordings]
    write_data_dir(output, DataDir([one.id for one in recordings], {
        "utt2spk": speakers, "wav.scp": [f"{audio}/{one.speaker}/{one.id}.flac" for one in recordings]}),
        {f"joined{size}": trials})
    with write_aside(output / "joined_from") as stream:
        stream.writelines(f"{one.id} {' '.join(one.utterances)}\n" for one in recordings)
    tables = {name: source / f"spk2{name}" for name in PATTERNS}
    write_speakers(output, speakers, {name: dict(zip(*read_column(path), strict=True))
                                      for name, path in tables.items() if path.is_file()})
    print(f"{output}: {len(recordings)} recordings of {len(set(speakers))} speakers, {len(trials)} trials")


if __name__ == "__main__":
    run_main(main)
