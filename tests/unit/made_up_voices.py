"""Recordings of made-up voices: each sounds of its own, and speakers differ in pitch and timbre."""

from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 16000


def voice(speaker: int, number: int, seconds: float = 1.8) -> np.ndarray:
    """Harmonics of the speaker's pitch that come and go, with the speaker's timbre, in a little noise; int16."""
    rng, own = np.random.default_rng([speaker, number]), np.random.default_rng(speaker)
    time, knots = np.arange(round(seconds * RATE)) / RATE, np.arange(0, seconds + 0.2, 0.15)
    phase = 2 * np.pi * np.cumsum(100 + 9 * speaker + np.interp(time, knots, rng.normal(0, 8, len(knots)))) / RATE
    timbre = own.uniform(0.2, 1, 20)
    sound = sum(timbre[k - 1] * np.interp(time, knots, rng.uniform(0, 1, len(knots)) ** 3) * np.sin(k * phase)
                for k in range(1, 21))
    return np.round(2500 * sound + 30 * rng.standard_normal(len(time))).astype(np.int16)


def write(path: Path, samples: np.ndarray, **more: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, **more)
    return path


def write_aac(path: Path, samples: np.ndarray) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start:start + 1024], format="s16", layout="mono")
            frame.rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
