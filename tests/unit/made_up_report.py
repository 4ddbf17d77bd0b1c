"""A made-up work folder with scores, embeddings, logs and tables, as the recipe leaves them, but without networks."""

import json
from pathlib import Path

import numpy as np

from utils.jobs import done
from utils.kaldi.ark import ArkWriter

SPEAKERS, UTTERANCES = 6, 7
LIST = "easy"
TRAIN_TSV = ("epoch\tstep\tloss\taccuracy\tlr\tvalid_eer\tutterances_per_second\twaiting\tseconds\n"
             "1\t10\t5.5\t0.1\t0.1\t20.000\t9.0\t0.0\t1.0\n2\t20\t4.5\t0.2\t0.1\t12.000\t9.0\t0.0\t2.0\n")
LOG = "# python3 -m x\n# Accounting: time={} threads=2 peak_mb={}\n# Ended (code 0) at noon, elapsed time 1 seconds\n"


def utterances() -> list[str]:
    return [f"s{speaker}-u{number}" for speaker in range(SPEAKERS) for number in range(UTTERANCES)]


def write_scores(path: Path, trials: Path, gap: float, seed: int) -> None:
    """Write scores whose target and non-target means differ by `gap` deviations, and their record."""
    rng = np.random.default_rng(seed)
    lines = [line.split() for line in trials.read_text().splitlines()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{a} {b} {rng.normal() + gap * (label == 'target'):.5f}\n" for a, b, label in lines))
    record = path.with_name(f".done.{path.name}")
    done.mark(record, done.describe(record, "score", {}, [str(trials)]), [path])


def write_work(work: Path, systems: dict[str, float]) -> Path:
    """Write a work folder. systems: by name, the gap between the means of target and non-target scores."""
    test = work / "data/test"
    (test / "trials").mkdir(parents=True)
    names = utterances()
    (test / "utt2spk").write_text("".join(f"{name} {name[:2]}\n" for name in names))
    (test / "wav.scp").write_text("".join(f"{name} /nowhere/{name}.wav\n" for name in names))
    (test / "spk2gender").write_text("".join(f"s{speaker} {'fm'[speaker % 2]}\n" for speaker in range(SPEAKERS)))
    frames = work / "data/fbank80/test/utt2num_frames"
    frames.parent.mkdir(parents=True)
    frames.write_text("".join(f"{name} {200 + 10 * place}\n" for place, name in enumerate(names)))
    trials = test / "trials" / LIST
    trials.write_text("".join(f"{a} {b} {'target' if a[:2] == b[:2] else 'nontarget'}\n"
                              for place, a in enumerate(names) for b in names[place + 1:]))
    for seed, (system, gap) in enumerate(systems.items()):
        exp = work / "exp" / system
        for backend in ("cosine", "plda"):
            write_scores(exp / f"scores_test/{LIST}.{backend}", trials, gap + (backend == "plda"), seed)
        (exp / "log").mkdir()
        (exp / "log/train.tsv").write_text(TRAIN_TSV)
        (exp / "log/train.log").write_text(LOG.format(7 + seed, 300))
        rng = np.random.default_rng(seed)
        with ArkWriter(exp / "embeddings_test/xvector") as writer:
            for name in names:
                writer.write(name, rng.normal(size=8) + 3 * int(name[1]))
    first = next(iter(systems))
    (work / "exp" / first / "calibration.json").write_text(json.dumps({"plda": {
        "weights": [2.0], "offset": -1.0, "prior": 0.01, "threshold": 4.0, "miss": 0.1, "false_alarm": 0.1,
        "trials": 9, "targets": 4}}))
    return work
