"""Small synthetic audio corpora with their features."""

import numpy as np
import soundfile

from utils.audio import change_speed, read_audio
from utils.features.compute import compute_features
from utils.features.options import read_feature_options
from utils.kaldi.ark import ArkWriter

RATE, SPEEDS = 16000, ("0.9", "1.1")


def sound(seed, seconds):
    """A buzz at the speaker's pitch, in noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * (90 + 40 * (seed % 6)) * k * time) / k for k in range(1, 20))
    return (0.1 * buzz + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def write_corpus(folder, speakers, utterances, snip_edges, first=0):
    """Wav and flac files, copies at other speeds, and their features without compression."""
    folder.mkdir(parents=True)
    (folder / "feats.conf").write_text(
        f"--feature-type=fbank\n--num-mel-bins=10\n--snip-edges={'true' if snip_edges else 'false'}\n")
    options = read_feature_options(folder / "feats.conf")
    lines = {name: [] for name in ("wav.scp", "utt2spk", "utt2speed", "utt2num_frames")}
    features = {}
    for speaker in range(first, first + speakers):
        for number in range(utterances):
            path = folder / f"a s{speaker} {number}.{'flac' if number % 2 else 'wav'}"
            soundfile.write(path, sound(speaker + 6 * number, 0.4 + 0.07 * number), RATE, subtype="PCM_16")
            for speed in ("1", *(SPEEDS if number == 0 else ())):
                samples = read_audio(path).samples
                if speed != "1":
                    samples = change_speed(samples, float(speed))
                name = f"s{speaker}-u{number}" if speed == "1" else f"sp{speed}-s{speaker}-u{number}"
                features[name] = path, speed, compute_features(samples, options)
    with ArkWriter(folder / "feats") as writer:
        for name in sorted(features):
            path, speed, values = features[name]
            writer.write(name, values)
            for table, value in zip(lines, (path, name.rpartition("-")[0], speed, len(values)), strict=True):
                lines[table].append(f"{name} {value}\n")
    for table, texts in lines.items():
        (folder / table).write_text("".join(texts))
    (folder / "trials").mkdir()
    names = [name for name in sorted(features) if name.startswith("s") and not name.startswith("sp")]
    (folder / "trials/valid").write_text("".join(
        f"{a} {b} {'target' if a[:2] == b[:2] else 'nontarget'}\n" for i, a in enumerate(names) for b in names[i + 1:]))
    return folder
