"""A made-up system with embeddings, and calls of the steps that train and score its back-ends."""

import subprocess
from pathlib import Path

import numpy as np

from utils.kaldi.ark import ArkWriter

ROOT = Path(__file__).resolve().parents[2]
BOTH = "backend: {cosine: [center, length, cosine], plda: [center, lda8, length, plda]}\n"


def call(script, *words):
    return subprocess.run(["bash", str(ROOT / "steps" / script), *map(str, words)], capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL)


def write_set(folder, seed, speakers, utterances=6, dim=12):
    """Write embeddings of distinct speakers; return the ids."""
    rng = np.random.default_rng(seed)
    ids = []
    with ArkWriter(folder / "xvector") as writer:
        for speaker in range(speakers):
            centre = 3 * rng.normal(size=dim)
            for utterance in range(utterances):
                ids.append(f"s{seed}{speaker:02}-u{utterance}")
                writer.write(ids[-1], centre + rng.normal(size=dim) + 1)
    return ids


def make_work(folder):
    """A work folder with configuration, training and test embeddings, and a list of all test pairs."""
    work = folder / "a work"
    train = write_set(work / "exp/net/embeddings_train", 1, 20)
    test = write_set(work / "exp/net/embeddings_test", 2, 5)
    (work / "exp/net/system.yaml").write_text(BOTH)
    (work / "exp/net/train_seconds").write_text("12.6\n")
    (work / "data/train").mkdir(parents=True)
    (work / "data/train/utt2spk").write_text("".join(f"{name} {name[:4]}\n" for name in train))
    (work / "data/test/trials").mkdir(parents=True)
    (work / "data/test/utt2spk").write_text("".join(f"{name} {name[:4]}\n" for name in test))
    lines = [f"{a} {b} {'target' if a[:4] == b[:4] else 'nontarget'}\n" for a in test for b in test if a < b]
    (work / "data/test/trials/veri.clean").write_text("".join(lines))
    return work


def files(folder):
    """All files of a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def train(work):
    net = work / "exp/net"
    return call("train_backend.sh", net / "system.yaml", work / "data/train", net / "embeddings_train", net / "backend")


def score(work, backend, *options, trials=None, embeddings="embeddings_test"):
    net = work / "exp/net"
    return call("score.sh", *options, net / "backend" / backend, net / embeddings,
                trials or work / "data/test/trials/veri.clean", net / f"scores_test/veri.clean.{backend}")
