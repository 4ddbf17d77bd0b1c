"""Augmented copies of recordings: noise, music, babble, reverberation, telephone.

Each copy has a plan, a JSON mapping in the table utt2augment; it names the files to use and the seed for all other
random choices, so that a copy is the same in each run and with any number of jobs:

    {"kind": "noise", "snr_db": 10, "files": ["/musan/noise/free-sound/noise-0001.wav"], "seed": 93}
    {"kind": "noise", "snr_db": 5, "files": [], "seed": 94}         synthetic noise, white to red, of varying level
    {"kind": "babble", "snr_db": 17, "files": [3 to 7 other speakers' recordings], "seed": 95}
    {"kind": "reverb", "files": ["/RIRS_NOISES/.../Room001-00001.wav"], "seed": 96}
    {"kind": "reverb", "files": [], "seed": 97}                     one of 500 simulated rooms
    {"kind": "telephone", "files": [], "seed": 98}                  300 to 3,400 Hz, 8 kHz, mu-law

The signal-to-noise ratios are those of Kaldi's egs/voxceleb.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from utils.audio import Recording, resample
from utils.errors import InputError

KINDS = ("noise", "music", "babble", "reverb", "telephone")
SNR_DB = {"noise": (15, 10, 5, 0), "music": (15, 10, 8, 5), "babble": (20, 17, 15, 13)}
BABBLE = (3, 7)    # fewest and most voices
ROOMS = 500       # simulated
FULL_SCALE = 32768
MU = 255


@dataclass(frozen=True)
class Sources:
    """Files with noises, music, room responses, and voices for babble, with their speakers."""

    noise: Sequence[str] = ()
    music: Sequence[str] = ()
    responses: Sequence[str] = ()
    voices: Sequence[str] = ()
    speakers: Sequence[str] = field(default=(), repr=False)

    @classmethod
    def find(cls, musan: Path | None, rirs: Path | None, voices: Sequence[str],
             speakers: Sequence[str]) -> "Sources":
        """Find the files of MUSAN and RIRS_NOISES; raises InputError if a folder holds none."""
        def files(folder: Path, pattern: str) -> list[str]:
            found = sorted(map(str, folder.glob(pattern)))
            if not found:
                raise InputError(f"no {pattern} in {folder}; name the unpacked corpus")
            return found

        return cls(files(musan, "noise/**/*.wav") if musan else (), files(musan, "music/**/*.wav") if musan else (),
                   files(rirs, "simulated_rirs/**/*.wav") if rirs else (), voices, speakers)


def make_plan(kind: str, sources: Sources, speaker: str, rng: np.random.Generator) -> dict[str, Any]:
    """Return a plan for a copy of a recording of `speaker`; raises InputError if there is nothing to add."""
    files: list[str] = []
    if kind == "music" and not sources.music:
        raise InputError("music needs MUSAN; name its folder or leave music out")
    pool = {"noise": sources.noise, "music": sources.music, "reverb": sources.responses}.get(kind, ())
    if pool:
        files = [pool[int(rng.integers(len(pool)))]]
    if kind == "babble":
        wanted, tries = int(rng.integers(BABBLE[0], BABBLE[1] + 1)), 0
        while len(files) < wanted and tries < 1000:
            index, tries = int(rng.integers(len(sources.voices))), tries + 1
            if sources.speakers[index] != speaker and sources.voices[index] not in files:
                files.append(sources.voices[index])
        if not files:
            raise InputError(f"babble for {speaker}: no recordings of other speakers")
    plan: dict[str, Any] = {"kind": kind, "files": files, "seed": int(rng.integers(2**31))}
    if kind in SNR_DB:
        plan["snr_db"] = SNR_DB[kind][int(rng.integers(len(SNR_DB[kind])))]
    return plan


def read_plan(text: str) -> dict[str, Any]:
    """Read a plan from its text; raises InputError if it is not a valid plan."""
    try:
        plan = json.loads(text)
        if plan and (plan["kind"] not in KINDS or not isinstance(plan["files"], list) or plan["seed"] < 0
                     or (plan["kind"] in SNR_DB and not np.isfinite(plan["snr_db"]))):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{text!r} is not an augmentation plan; run steps/augment_data.sh again") from error
    return plan


def augment(samples: np.ndarray, plan: dict[str, Any], rate: int,
            read: Callable[[str], np.ndarray | Recording]) -> np.ndarray:
    """Return the copy of `samples` (16-bit scale) that a plan describes, with the same length; {}: no change.

    read: returns the samples of a file at `rate` Hz, or a Recording that reads parts of it on demand.
    """
    if not plan:
        return samples
    rng = np.random.default_rng(plan["seed"])
    kind, files = plan["kind"], plan["files"]
    if kind == "telephone":
        return telephone(samples, rate)
    if kind == "reverb":
        return reverberate(samples, read(files[0])[:] if files else simulated_room(rate, int(rng.integers(ROOMS))))
    if kind == "noise" and not files:
        return add_at(samples, made_up_noise(len(samples), rate, rng), plan["snr_db"])
    added = np.zeros(len(samples), np.float32)
    for name in files:
        added += fit(read(name), len(samples), rng)
    return add_at(samples, added, plan["snr_db"])


def fit(sound: np.ndarray | Recording, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return `length` samples from a random position in a sound, which is repeated if it is shorter."""
    spare = len(sound) - length
    start = int(rng.integers(spare + 1)) if spare > 0 else int(rng.integers(len(sound)))
    if spare > 0:
        return sound[start:start + length]
    return np.take(sound[:], np.arange(start, start + length), mode="wrap")


def add_at(samples: np.ndarray, added: np.ndarray, snr_db: float) -> np.ndarray:
    """Return the sum, `added` scaled so that its mean power is `snr_db` dB below that of the samples."""
    power, other = (float(np.mean(np.square(x, dtype=np.float64))) for x in (samples, added))
    if other == 0:  # digital silence
        return samples
    return (samples + np.sqrt(power / other / 10 ** (snr_db / 10)) * added).astype(np.float32)


def made_up_noise(length: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise whose power falls by 0 to 6 dB per octave and whose level varies by a few dB within seconds."""
    from scipy.fft import irfft, next_fast_len  # SciPy takes over a second to import and is needed only for copies

    slope, size = rng.uniform(0, 2), next_fast_len(length, real=True)
    spectrum = rng.standard_normal((size // 2 + 1, 2), np.float32).view(np.complex64)[:, 0]
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / rate), 20).astype(np.float32)
    noise = irfft(spectrum * frequency ** np.float32(-slope / 2), size)[:length]
    knots = max(2, round(length / rate) + 1)
    level_db = np.interp(np.linspace(0, knots - 1, length), np.arange(knots), rng.uniform(-6, 6, knots))
    return noise * np.exp(level_db.astype(np.float32) * np.float32(np.log(10) / 20))


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return the samples in a room, with the direct sound not delayed and the power unchanged."""
    from scipy.signal import fftconvolve

    direct = int(np.argmax(np.abs(response)))
    wet = fftconvolve(samples, response.astype(np.float32, copy=False))[direct:direct + len(samples)]
    power = np.mean(np.square(wet, dtype=np.float64))
    gain = np.sqrt(np.mean(np.square(samples, dtype=np.float64)) / power) if power else 1.0
    return np.float32(gain) * wet


@lru_cache(ROOMS)
def simulated_room(rate: int, number: int) -> np.ndarray:
    """Return the response of a shoe-box room by the image method (Allen and Berkley 1979), float32.

    A room takes longer to simulate than a chunk to reverberate, so there are ROOMS of them, 20 kB each.
    """
    import pyroomacoustics  # takes a second to import, needed only for simulated rooms

    rng = np.random.default_rng(number)
    size = rng.uniform((3, 3, 2.4), (10, 8, 4))
    walls = pyroomacoustics.Material(float(rng.uniform(0.2, 0.8)))
    room = pyroomacoustics.ShoeBox(size, fs=rate, materials=walls, max_order=15)
    room.add_source(rng.uniform(0.3, size - 0.3))
    room.add_microphone(rng.uniform(0.3, size - 0.3))
    room.compute_rir()
    return np.asarray(room.rir[0][0], np.float32)


@lru_cache(1)
def _telephone_band() -> np.ndarray:
    """Return a filter at 8 kHz that passes 300 to 3,400 Hz, as second-order sections."""
    from scipy.signal import butter

    return butter(4, (300, 3400), "bandpass", fs=8000, output="sos").astype(np.float32)


def telephone(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return the samples after a telephone line: 300 to 3,400 Hz, 8 kHz, 8-bit mu-law (ITU-T G.711)."""
    from scipy.signal import sosfilt

    narrow = resample(samples, rate, 8000)
    band = np.clip(sosfilt(_telephone_band(), narrow) / np.float32(FULL_SCALE), -1, 1)
    code = np.round(np.copysign(np.log1p(MU * np.abs(band)) / np.float32(np.log1p(MU)), band) * 127)
    decoded = np.copysign(np.expm1(np.abs(code) * np.float32(np.log1p(MU) / 127)) / MU, code)
    wide = resample(decoded * FULL_SCALE, 8000, rate)
    return np.resize(wide, len(samples)) if len(wide) < len(samples) else wide[:len(samples)]
