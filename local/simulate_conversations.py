"""Make conversations out of the recordings of single speakers: wav/<conversation>.wav and reference.rttm.

Each conversation has 2 to --speakers speakers of a folder <speaker>/<session>/<file>. Each speaker keeps one session,
so that the microphone does not change between turns. A turn is one recording; between turns are pauses of 0.2 to 1 s,
or the new turn begins up to 0.5 s before the end of the last. The reference says where each turn alone is loud
(utils/speech.py); nobody has listened. Nobody answers anybody, either: real conversations have shorter turns, laughter,
and more speech at once.
e.g.: python3 -m local.simulate_conversations --conversations 20 corpus/test/wav work/conversations
"""

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from utils.arguments import seed, share
from utils.audio import SAMPLE_RATE, read_audio
from utils.errors import InputError, first_five, run_main
from utils.files import write_aside
from utils.progress import progress
from utils.rttm import Turn, rttm_lines
from utils.speech import loud_frames, regions_of

PAUSE, AHEAD = (0.2, 1.0), (0.1, 0.5)  # seconds between turns, and by which a turn begins before the end of the last
LEVEL_DB = (-6.0, 6.0)  # of a speaker, relative to the recordings'
FORMATS = (".wav", ".flac")
OURS = re.compile(r"conversation\d+\.wav")


def sessions_of(folder: Path) -> dict[str, list[list[Path]]]:
    """Return the files of each session of each speaker; raises InputError if fewer than two speakers have any."""
    found: dict[str, list[list[Path]]] = {}
    for speaker in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        sessions = [sorted(path for path in session.iterdir() if path.suffix in FORMATS)
                    for session in sorted(speaker.iterdir()) if session.is_dir()]
        if sessions := [files for files in sessions if files]:
            found[speaker.name] = sessions
    if len(found) < 2:
        raise InputError(f"{folder}: {len(found)} speakers with <speaker>/<session>/<file>.wav or .flac; wanted 2 or "
                         "more")
    return found


def order_of(count: int, turns: int, rng: np.random.Generator) -> list[int]:
    """Return who has each turn: all of `count` speakers, nobody twice in a row."""
    order = list(rng.permutation(count))
    while len(order) < turns:
        order.append(int(rng.choice([one for one in range(count) if one != order[-1]])))
    return order[:max(turns, count)]


def conversation(name: str, speakers: dict[str, Sequence[Path]], turns: int, overlap: float,
                 rng: np.random.Generator) -> tuple[np.ndarray, list[Turn]]:
    """Return the samples (16-bit scale) and the reference of a conversation."""
    names, end, parts = list(speakers), 0, []
    gains = 10 ** (rng.uniform(*LEVEL_DB, len(names)) / 20)
    left = {one: list(rng.permutation(len(files))) for one, files in speakers.items()}
    reference: list[Turn] = []
    for number in order_of(len(names), turns, rng):
        one = names[number]
        if not left[one]:  # all recordings have been heard: once more
            left[one] = list(rng.permutation(len(speakers[one])))
        samples = read_audio(speakers[one][left[one].pop()]).samples * np.float32(gains[number])
        gap = -rng.uniform(*AHEAD) if parts and rng.random() < overlap else rng.uniform(*PAUSE)
        start = max(0, end + round(gap * SAMPLE_RATE))
        parts.append((start, samples))
        for first, last in regions_of(loud_frames(samples, SAMPLE_RATE)).tolist():
            reference.append(Turn(name, start / SAMPLE_RATE + first, start / SAMPLE_RATE + last, one))
        end = max(end, start + len(samples))
    mixed = np.zeros(end, np.float32)
    for start, samples in parts:
        mixed[start:start + len(samples)] += samples
    quieter = min(1.0, 32000 / max(1.0, float(np.abs(mixed).max())))
    return mixed * quieter, sorted(reference, key=lambda turn: turn.start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--conversations", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--speakers", type=int, default=3, help="most speakers in one (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=16, help="in each (default: %(default)s)")
    parser.add_argument("--overlap", type=share("--overlap"), default=0.1, help="share of the turns that begin before "
                        "the last one ends (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=1, help="(default: %(default)s)")
    parser.add_argument("speakers_folder", type=Path, help="<speaker>/<session>/<file>")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    sessions = sessions_of(arguments.speakers_folder)
    if not 2 <= arguments.speakers <= len(sessions) or arguments.turns < 2 or arguments.conversations < 1:
        raise InputError(f"--speakers {arguments.speakers}, --turns {arguments.turns}, --conversations "
                         f"{arguments.conversations}: wanted 2 to {len(sessions)} speakers, 2 or more turns, 1 or more "
                         "conversations")
    wav = arguments.out / "wav"
    if others := [path.name for path in sorted(wav.iterdir()) if not OURS.fullmatch(path.name)] if wav.exists() else []:
        raise InputError(f"{wav} holds other files, which would be deleted: {first_five(others)}; name another folder")
    (arguments.out / "reference.rttm").unlink(missing_ok=True)  # that of the recordings which follow is written last
    shutil.rmtree(wav, ignore_errors=True)
    wav.mkdir(parents=True)
    reference: list[Turn] = []
    for number in progress(range(1, arguments.conversations + 1), arguments.conversations, "conversations"):
        rng = np.random.default_rng((arguments.seed, number))
        count = int(rng.integers(2, arguments.speakers + 1))
        chosen = {one: sessions[one][rng.integers(len(sessions[one]))]
                  for one in rng.choice(sorted(sessions), count, replace=False).tolist()}
        name = f"conversation{number:03}"
        samples, turns = conversation(name, chosen, arguments.turns, arguments.overlap, rng)
        soundfile.write(wav / f"{name}.wav", samples.round().astype(np.int16), SAMPLE_RATE)
        reference += turns
    with write_aside(arguments.out / "reference.rttm") as stream:
        stream.writelines(rttm_lines(reference))
    seconds = sum(turn.end - turn.start for turn in reference)
    print(f"{arguments.out}: {arguments.conversations} conversations, {seconds / 60:.1f} minutes of speech")


if __name__ == "__main__":
    run_main(main)
