"""What a recording is worth for telling speakers: how much sound it has, and what is wrong with it.

The limits are rules of thumb, chosen so that clean speech of the corpora here passes (tests/unit/test_verify.py). The
voice activity of a model does not serve here: features without an energy have none.
"""

from typing import NamedTuple

import numpy as np

from utils.audio import SOUNDLESS, Audio
from utils.errors import InputError

FRAME_SECONDS = 0.025
LOUD = 95            # percentile of the frames' levels that stands for the voice
QUIET_DB = 30.0      # frames this much below it are pauses
TOO_SHORT = 0.5      # seconds of sound below which a recording is refused
SHORT = 3.0          # seconds of sound below which errors become frequent
CLIPPED = 0.95       # a signal is clipped if one sample in a thousand exceeds this share of the peak
PEAK = 0.1           # full scale 1: quieter recordings are not taken for clipped
UPPER_HZ, UPPER_DB = 4000.0, -50.0  # a narrow band: less power than this above it, relative to all
TWO_VOICES = 0.6     # share of the channels' power that their mean keeps; copies keep 1, two speakers 1/2


class Quality(NamedTuple):
    """seconds: of sound, without pauses; remarks: each a reason to trust a score less."""

    seconds: float
    remarks: tuple[str, ...]


def active_seconds(samples: np.ndarray, rate: int) -> float:
    """Return how long N samples are not quieter than QUIET_DB below their loud parts."""
    size = round(FRAME_SECONDS * rate)
    frames = samples[:len(samples) // size * size].reshape(-1, size).astype(np.float64)
    if not len(frames):
        return 0.0
    power = frames.var(axis=1) + 1e-3  # a step of 16 bits has 1/12
    return float((10 * np.log10(power / np.percentile(power, LOUD)) > -QUIET_DB).sum() * size / rate)


def is_clipped(samples: np.ndarray) -> bool:
    """Whether many samples lie near the peak; resampling smears clipped tops, so they need not be equal."""
    level = np.abs(samples)
    return bool(level.max() > PEAK * 32768 and np.percentile(level, 99.9) > CLIPPED * level.max())


def upper_db(samples: np.ndarray, rate: int) -> float:
    """Return the power above UPPER_HZ relative to the whole, in dB."""
    size = 1024
    frames, window = samples[:len(samples) // size * size].reshape(-1, size), np.hanning(size)
    power = np.zeros(size // 2 + 1)
    for first in range(0, len(frames), 1000):  # an hour at once would take a gigabyte
        power += np.square(np.abs(np.fft.rfft(frames[first:first + 1000] * window))).sum(axis=0)
    above = power[np.fft.rfftfreq(size, 1 / rate) > 1.125 * UPPER_HZ]  # beyond the slope of a filter
    return float(10 * np.log10((above.sum() + 1e-9) / (power.sum() + 1e-9)))


def judge(audio: Audio, rate: int, name: str) -> Quality:
    """Judge a recording at the model's rate; raises InputError if it is silent or too short."""
    if soundless := [note for note in audio.notes if note in SOUNDLESS]:
        raise InputError(f"{name}: {soundless[0]}; it cannot identify a speaker")
    seconds = active_seconds(audio.samples, rate)
    if seconds < TOO_SHORT:
        raise InputError(f"{name}: {seconds:.2f} s of sound; wanted at least {TOO_SHORT:g} s, better {SHORT:g} s")
    remarks = []
    if seconds < SHORT:
        remarks.append(f"short: {seconds:.1f} s of sound; errors are rarer with {SHORT:g} s and more")
    if is_clipped(audio.samples):
        remarks.append("clipped: it was recorded too loud")
    if rate > 2 * UPPER_HZ and (audio.rate <= 2 * UPPER_HZ or upper_db(audio.samples, rate) < UPPER_DB):
        remarks.append(f"narrow band: nothing above {UPPER_HZ:g} Hz, as over a telephone; the model was trained at "
                       f"{rate} Hz")
    if audio.kept < TWO_VOICES:
        remarks.append("its channels differ, as those of two speakers do, and were averaged; name a file for each")
    return Quality(seconds, tuple(remarks))
