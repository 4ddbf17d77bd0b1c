"""Make a corpus of simulated speakers in the layout of VoxCeleb1, to try a recipe where no corpus is at hand.

    dev/wav/<speaker>/<session>/<utterance>.wav    speakers to train on
    test/wav/...                                   speakers of the trials
    simulated_test.txt, simulated_test_hard.txt    trials; non-targets of the hard list have one gender
    meta.csv                                       speaker, gender, length of the vocal tract in cm, part
    README.txt                                     what this is, and how it was made
    made.sha256                                    digests of all these files

It is no speech: results on it say whether a system works, not how good it is. Every speaker's id begins with
`simulated`, and so does every utterance id made of it. The same seed and options make the same bytes for any
number of jobs, and the first speakers of a part do not depend on how many follow. A folder that is there already is
replaced if it holds nothing but files of made.sha256, unchanged.
e.g.: python3 -m local.simulate_corpus --speakers 60 --utterances 30 --seed 1 exp/simulated
"""

import argparse
import hashlib
import os
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import wavfile

from local.recording_conditions import draw_conditions, record
from local.simulated_voice import RATE, draw_speaker, utter
from utils.arguments import seed, share
from utils.errors import InputError, first_five, run_main
from utils.files import write_aside
from utils.progress import progress
from utils.space import require_space

SPREAD = 0.5  # of sessions; chosen so that i-vectors with PLDA err about as often as on real speech
SECONDS = (3.0, 6.0)  # of an utterance
MADE = "made.sha256"
UNLISTED = (MADE, ".done", "log/simulate_corpus.call")  # what the step adds
VOICE, SESSION, UTTERANCE, TRIALS = range(4)  # what a random stream is for


class Task(NamedTuple):
    """A speaker to make."""

    seed: int
    number: int         # in its part, from 0
    part: str           # dev or test
    utterances: int
    sessions: int
    telephone: float    # share of sessions over the telephone

    @property
    def speaker(self) -> str:
        return f"simulated{(10001 if self.part == 'test' else 1) + self.number:05}"

    @property
    def gender(self) -> str:
        return "fm"[self.number % 2]

    def stream(self, kind: int, *which: int) -> np.random.Generator:
        """Return the generator of one thing, which depends on nothing that was drawn before."""
        part = ("dev", "test").index(self.part)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(kind, part, self.number, *which)))

    def files(self) -> list[tuple[int, int, str]]:
        """Return (session, utterance, path below the part's wav folder), sessions in blocks of equal size."""
        return [(session, one, f"{self.speaker}/s{session + 1}/{one + 1:05}.wav")
                for one in range(self.utterances) for session in (one * self.sessions // self.utterances,)]


def make_speaker(root: Path, task: Task) -> float:
    """Write a speaker's utterances under `root`; return the length of the vocal tract in cm."""
    speaker = draw_speaker(task.stream(VOICE), task.gender)
    made = -1
    for session, one, path in task.files():
        if session != made:
            generator, made = task.stream(SESSION, session), session
            today = speaker.in_session(generator, SPREAD)
            conditions = draw_conditions(generator, SPREAD, task.telephone)
        generator = task.stream(UTTERANCE, one)
        samples = record(utter(today, generator.uniform(*SECONDS), generator), conditions, generator)
        file = root / task.part / "wav" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(file, RATE, samples)
    return speaker.tract_cm


def draw_trials(tasks: Sequence[Task], hard: bool) -> list[str]:
    """Return lines `1|0 <path> <path>`, as many targets as non-targets for each speaker, in random order.

    Targets are of two sessions, half of all such pairs. hard: non-targets are of one gender.
    """
    generator = np.random.default_rng(np.random.SeedSequence(tasks[0].seed, spawn_key=(TRIALS, int(hard))))
    lines = []
    drawn = set()
    for task in tasks:
        own = task.files()
        pairs = [(first[2], second[2]) for place, first in enumerate(own) for second in own[:place]
                 if first[0] != second[0]]
        targets = [pairs[chosen] for chosen in generator.permutation(len(pairs))[:-(-len(pairs) // 2)]]
        lines += [("1", *pair) for pair in targets]
        others = [other for other in tasks if other != task and (not hard or other.gender == task.gender)]
        found = 0
        while found < len(targets):
            other = others[found % len(others)].files()
            pair = own[generator.integers(len(own))][2], other[generator.integers(len(other))][2]
            if frozenset(pair) not in drawn:
                drawn.add(frozenset(pair))
                lines.append(("0", *pair))
                found += 1
    return [" ".join(lines[place]) for place in generator.permutation(len(lines))]


def simulate(root: Path, tasks: Sequence[Task], jobs: int) -> None:
    """Make the corpus of all `tasks` at `root`; an interrupted one leaves nothing.

    Raises InputError where `root` exists and is not a corpus that this made, whole or in part.
    """
    if os.path.lexists(root):
        refuse_others_files(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    require_space(root, len(tasks) * tasks[0].utterances * SECONDS[1] * RATE * 2.0, "the simulated recordings")
    aside = root.parent / f".{root.name}.unfinished"
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    aside.mkdir()
    try:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            # The processes inherit that Ctrl-C is not for them: this one ends, when they have ended what they do.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            done = pool.map(make_speaker, [aside] * len(tasks), tasks)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            lengths = list(progress(done, len(tasks), "simulate", "speakers"))
        write_texts(aside, tasks, lengths)
        if os.path.lexists(root):
            refuse_others_files(root)  # again: making it took minutes
            shutil.rmtree(root)
        os.rename(aside, root)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def digests(root: Path) -> dict[str, str]:
    """Return path below `root` -> SHA-256 of each file, links as what they are; without UNLISTED."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            found[name] = "no file"
        elif path.is_file() and name not in UNLISTED:
            with open(path, "rb") as stream:
                found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def refuse_others_files(root: Path) -> None:
    """Raise InputError unless all that `root` holds are files of its made.sha256, unchanged."""
    if root.is_symlink() or not (root / MADE).is_file():
        raise InputError(f"{root} exists and has no {MADE}: this did not make it; remove it or name another folder")
    lines = (root / MADE).read_text(encoding="utf-8", errors="replace").splitlines()
    made = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    others = [name for name, digest in digests(root).items() if made.get(name) != digest]
    if others:
        raise InputError(f"{root} holds {len(others)} files that were changed or that this did not make: "
                         f"{first_five(others)}; move them away or name another folder")


def write_texts(root: Path, tasks: Sequence[Task], lengths: Sequence[float]) -> None:
    """Write lists, meta.csv, README.txt and made.sha256."""
    test = [task for task in tasks if task.part == "test"]
    for name, hard in (("simulated_test.txt", False), ("simulated_test_hard.txt", True)):
        with write_aside(root / name) as stream:
            stream.writelines(f"{line}\n" for line in draw_trials(test, hard))
    with write_aside(root / "meta.csv") as stream:
        stream.write("speaker_id\tgender\tvocal_tract_cm\tset\n")
        stream.writelines(f"{task.speaker}\t{task.gender}\t{length:.2f}\t{task.part}\n"
                          for task, length in zip(tasks, lengths, strict=True))
    with write_aside(root / "README.txt") as stream:
        stream.write("Simulated speakers, made by local/simulate_corpus.py: this is no speech, and results on it "
                     f"are no results on speech.\nseed {tasks[0].seed}, {len(tasks)} speakers "
                     f"({len(test)} of them to test on), {tasks[0].utterances} utterances each in "
                     f"{tasks[0].sessions} sessions, share of telephone sessions {tasks[0].telephone:g}\n")
    made = digests(root)
    with write_aside(root / MADE) as stream:
        stream.writelines(f"{digest}  {name}\n" for name, digest in made.items())


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for option, default, meaning in (
            ("--speakers", 60, "speakers, of both genders alike"),
            ("--test-speakers", None, "how many of them to test on (default: a third)"),
            ("--utterances", 20, "utterances of a speaker"), ("--sessions", 5, "sessions of a speaker"),
            ("--nj", os.cpu_count(), "processes")):
        parser.add_argument(option, type=int, default=default, metavar="N",
                            help=meaning if default is None else f"{meaning} (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=1, help="of everything drawn at random (default: %(default)s)")
    parser.add_argument("--telephone", type=share("--telephone"), default=0.0, metavar="SHARE",
                        help="share of sessions over a telephone line (default: 0)")
    parser.add_argument("root", type=Path, help="folder to make")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    test, sessions = arguments.test_speakers, arguments.sessions
    least = 12 if test is None else test + 2
    test = max(arguments.speakers // 3, 4) if test is None else test
    for option, value, low, high in (
            ("--test-speakers", test, 4, 9999), ("--speakers", arguments.speakers, least, 9999),
            ("--sessions", sessions, 2, 999), ("--utterances", arguments.utterances, sessions, 99999),
            ("--nj", arguments.nj, 1, 999)):
        if not low <= value <= high:
            raise InputError(f"{option} {value} is not between {low} and {high}; name another number")
    counts = (("dev", arguments.speakers - test), ("test", test))
    simulate(arguments.root, [Task(arguments.seed, number, part, arguments.utterances, sessions, arguments.telephone)
                              for part, count in counts for number in range(count)], arguments.nj)


if __name__ == "__main__":
    run_main(main)
