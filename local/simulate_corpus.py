"""Make a corpus of simulated speakers in the layout of VoxCeleb1, for trying a recipe without a real corpus.

    dev/wav/<speaker>/<session>/<utterance>.wav    training speakers
    test/wav/...                                   test speakers
    simulated_test.txt, simulated_test_hard.txt    trials; hard: non-targets of the same gender
    meta.csv                                       speaker, gender, length of the vocal tract in cm, part
    README.txt                                     describes the corpus and its options
    made.sha256                                    digests of all these files

It is not speech: results on it show whether a system works, not how good it is. Every speaker's id begins with
`simulated`, and so does every utterance id. The same seed and options give the same bytes for any
number of jobs, and the first speakers of a part do not depend on how many follow. An existing folder is
replaced if it holds only files listed in made.sha256, unchanged.
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

SPREAD = 0.5  # of sessions; chosen so that i-vectors with PLDA have about the error rate of real speech
SECONDS = (3.0, 6.0)  # range of an utterance's duration
MADE = "made.sha256"
UNLISTED = (MADE, ".done", "log/simulate_corpus.call")  # files that the step adds
VOICE, SESSION, UTTERANCE, TRIALS = range(4)  # purposes of random streams


class Task(NamedTuple):
    """A speaker to simulate."""

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
        """Return the generator for one purpose, independent of all earlier draws."""
        part = ("dev", "test").index(self.part)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(kind, part, self.number, *which)))

    def files(self) -> list[tuple[int, int, str]]:
        """Return (session, utterance, path below the part's wav folder); sessions have equal sizes."""
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

    Targets: half of the same-speaker pairs from two sessions. hard: non-targets have the same gender.
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
    """Make the corpus of all `tasks` at `root`; an interrupted run leaves no files.

    Raises InputError if `root` exists and is not a corpus, complete or partial, made by this program.
    """
    if os.path.lexists(root):
        refuse_others_files(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    require_space(root, len(tasks) * tasks[0].utterances * SECONDS[1] * RATE * 2.0, "the simulated recordings")
    aside = root.parent / f".{root.name}.unfinished"
    shutil.rmtree(aside, ignore_errors=True)  # left by a killed run
    aside.mkdir()
    try:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            # The processes inherit the blocked SIGINT: on Ctrl-C this process ends once they have finished their tasks.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            done = pool.map(make_speaker, [aside] * len(tasks), tasks)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            lengths = list(progress(done, len(tasks), "simulate", "speakers"))
        write_texts(aside, tasks, lengths)
        if os.path.lexists(root):
            refuse_others_files(root)  # check again: the simulation took minutes
            shutil.rmtree(root)
        os.rename(aside, root)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def digests(root: Path) -> dict[str, str]:
    """Return path below `root` -> SHA-256 of each file, without UNLISTED; links and special files get a mark."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            found[name] = "not a file"
        elif path.is_file() and name not in UNLISTED:
            with open(path, "rb") as stream:
                found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def refuse_others_files(root: Path) -> None:
    """Raise InputError unless `root` holds only files listed in its made.sha256, unchanged."""
    if root.is_symlink() or not (root / MADE).is_file():
        raise InputError(f"{root} exists and has no {MADE}, so it is not a simulated corpus; remove it or name "
                         "another folder")
    lines = (root / MADE).read_text(encoding="utf-8", errors="replace").splitlines()
    made = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    others = [name for name, digest in digests(root).items() if made.get(name) != digest]
    if others:
        raise InputError(f"{root} holds {len(others)} files that were changed or added: "
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
        stream.write("Simulated speakers, made by local/simulate_corpus.py: this is not speech, and results on it "
                     f"say nothing about results on speech.\nseed {tasks[0].seed}, {len(tasks)} speakers "
                     f"({len(test)} of them test speakers), {tasks[0].utterances} utterances each in "
                     f"{tasks[0].sessions} sessions, share of telephone sessions {tasks[0].telephone:g}\n")
    made = digests(root)
    with write_aside(root / MADE) as stream:
        stream.writelines(f"{digest}  {name}\n" for name, digest in made.items())


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for option, default, meaning in (
            ("--speakers", 60, "speakers, half of each gender"),
            ("--test-speakers", None, "how many of them are test speakers (default: a third)"),
            ("--utterances", 20, "utterances per speaker"), ("--sessions", 5, "sessions per speaker"),
            ("--nj", os.cpu_count(), "processes")):
        parser.add_argument(option, type=int, default=default, metavar="N",
                            help=meaning if default is None else f"{meaning} (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=1, help="random seed (default: %(default)s)")
    parser.add_argument("--telephone", type=share("--telephone"), default=0.0, metavar="SHARE",
                        help="share of sessions over a telephone line (default: 0)")
    parser.add_argument("root", type=Path, help="folder to create")
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
