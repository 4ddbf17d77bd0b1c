"""A small configuration and small data directories for tests of training."""

import numpy as np

from utils.kaldi.ark import ArkWriter

CONFIG = {
    "kind": "network", "features": "fbank", "frontend": {"cmn": "utterance"},
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
