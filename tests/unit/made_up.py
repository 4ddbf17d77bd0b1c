"""A small configuration and small data directories for tests of training."""

import shutil
from pathlib import Path

import numpy as np
import soundfile

from tests.in_process import call
from utils.kaldi.ark import ArkWriter

RATE = 16000
FEATURES = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf/features"
SPEECH = {"feats": "mfcc24.conf", "vad": "vad.conf"}

CONFIG = {
    "kind": "network", "features": "fbank", "frontend": {"cmn": "chunk"},
    "encoder": {"type": "tdnn", "channels": [16, 16, 16, 16, 24]}, "pooling": {"type": "statistics"},
    "head": {"before": ["batch_norm"], "layers": [{"dim": 12, "then": ["batch_norm"], "embedding": "output"}],
             "dropout": 0.1},
    "loss": {"type": "aam_softmax", "margin_warmup": 0.5}, "optimizer": {"type": "adamw", "lr": 0.01},
    "schedule": {"type": "cosine", "warmup_steps": 3},
    "train": {"epochs": 8, "batch_size": 8, "chunk_frames": 30, "keep": "last", "mask_frames": 3, "mask_bands": 2},
}


def write_data(folder, speakers, utterances, seed, trials=False):
    """A data directory whose speakers differ in spectrum and in how the frames move."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    names, lengths = [], []
    with ArkWriter(folder / "feats", compression=3) as writer:
        for speaker in range(speakers):
            colour = rng.normal(size=(10, 10))
            for utterance in range(utterances):
                length = int(rng.integers(25, 60))
                names.append((f"s{speaker}-u{utterance}", f"s{speaker}"))
                lengths.append(length)
                writer.write(names[-1][0], rng.normal(size=(length, 10)) @ colour)
    (folder / "utt2spk").write_text("".join(f"{name} {speaker}\n" for name, speaker in names))
    (folder / "utt2num_frames").write_text(
        "".join(f"{name} {n}\n" for (name, _), n in zip(names, lengths, strict=True)))
    if trials:
        (folder / "trials").mkdir()
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1:]]
        (folder / "trials/valid").write_text(
            "".join(f"{a[0]} {b[0]} {'target' if a[1] == b[1] else 'nontarget'}\n" for a, b in pairs))
    return folder


def write_speech(folder, speakers=3, utterances=4):
    """A data directory of MFCC with voice activity, and its audio files: noise coloured by speaker, with pauses."""
    rng = np.random.default_rng(0)
    (folder / "trials").mkdir(parents=True)
    names = [(f"s{speaker}-u{utterance}", speaker) for speaker in range(speakers) for utterance in range(utterances)]
    for name, speaker in names:
        kernel = np.random.default_rng(speaker).normal(size=8)
        sound = np.convolve(rng.normal(size=int(rng.integers(RATE // 2, RATE))), kernel, "same")
        sound *= 0.03 + (np.sin(np.arange(len(sound)) / RATE * 20 + speaker) > 0)
        soundfile.write(folder / f"{name}.wav", 0.05 * sound, RATE)
    tables = {"wav.scp": [f"{name} {folder}/{name}.wav" for name, _ in names],
              "utt2spk": [f"{name} s{speaker}" for name, speaker in names],
              "trials/valid": [f"{a[0]} {b[0]} {'target' if a[1] == b[1] else 'nontarget'}"
                               for place, a in enumerate(names) for b in names[place + 1:]]}
    for name, lines in tables.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    (folder / "log").mkdir()
    for program, conf, words in (("compute_feats", "feats", (folder, folder)), ("compute_vad", "vad", (folder,))):
        shutil.copy(FEATURES / SPEECH[conf], folder / f"{conf}.conf")
        done = call(f"steps.feat.{program}", folder / f"{conf}.conf", *words)
        assert done.returncode == 0, done.stderr
        (folder / f"{conf}.1.scp").rename(folder / f"{conf}.scp")
    (folder / "log/utt2num_frames.1").rename(folder / "utt2num_frames")
    return folder
