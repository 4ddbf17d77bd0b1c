"""Recording conditions of simulated speakers: room, microphone, noise, and optionally a telephone line."""

from dataclasses import dataclass

import numpy as np
from scipy import fft, signal

from local.simulated_voice import RATE

RESPONSE = 8192  # samples of a session's impulse response, 0.5 s
MU = 255  # of G.711's mu-law


@dataclass(frozen=True)
class Conditions:
    """A session's recording conditions."""

    response: np.ndarray   # (RESPONSE,) impulse response of room and microphone
    noise: np.ndarray      # (RESPONSE / 2 + 1,) magnitude spectrum of the noise
    noise_db: float        # signal-to-noise ratio
    level_db: float        # RMS of the recording, relative to full scale
    telephone: bool


def draw_conditions(generator: np.random.Generator, spread: float, telephone: float) -> Conditions:
    """Draw a session. spread: how much sessions differ (0: all alike); telephone: share of telephone calls."""
    frequencies = fft.rfftfreq(RESPONSE, 1 / RATE)
    late = generator.uniform(0.15, 0.6)  # seconds until the room has decayed by 60 dB
    times = np.arange(RESPONSE) / RATE
    room = generator.standard_normal(RESPONSE) * 10 ** (-3 * times / late) * (times > 0.002)
    room *= spread * 10 ** (generator.uniform(-20, -6) / 20) / np.sqrt(np.sum(room ** 2))
    room[0] = 1
    # A microphone: a smooth random curve over log frequency, and the edges of its band.
    knots = np.linspace(np.log(50), np.log(8000), 8)
    curve = np.interp(np.log(np.maximum(frequencies, 50)), knots, 4.0 * spread * generator.standard_normal(8))
    low, high = generator.uniform(40, 160), generator.uniform(5000, 9000)
    band = 1 / np.sqrt((1 + (low / np.maximum(frequencies, 1)) ** 4) * (1 + (frequencies / high) ** 8))
    microphone = 10 ** (curve / 20) * band
    is_telephone = bool(generator.random() < telephone)
    if is_telephone:  # 300 to 3400 Hz
        microphone *= np.abs(signal.freqz_sos(signal.butter(4, (300, 3400), "bandpass", fs=RATE, output="sos"),
                                              frequencies, fs=RATE)[1])
    response = fft.irfft(fft.rfft(room) * minimum_phase(microphone), RESPONSE)
    colour = np.maximum(frequencies, 60) ** -generator.uniform(0.0, 1.2)
    bump = generator.uniform(0, 3) * np.exp(-0.5 * ((frequencies - generator.uniform(200, 4000)) / 400) ** 2)
    noise_db = 20 + spread * generator.uniform(-10, 10)
    return Conditions(response.astype(np.float32), (colour * (1 + bump) * microphone).astype(np.float32),
                      noise_db, generator.uniform(-32, -22), is_telephone)


def minimum_phase(magnitude: np.ndarray) -> np.ndarray:
    """Return the minimum-phase spectrum of a magnitude, (RESPONSE / 2 + 1,): causal, with the shortest response."""
    cepstrum = fft.irfft(np.log(np.maximum(magnitude, 1e-6 * np.max(magnitude))), RESPONSE)
    cepstrum[1:RESPONSE // 2] *= 2
    cepstrum[RESPONSE // 2 + 1:] = 0
    return np.exp(fft.rfft(cepstrum))


def record(speech: np.ndarray, conditions: Conditions, generator: np.random.Generator) -> np.ndarray:
    """Return `speech` (N,) as recorded under these conditions: (N,) int16, never clipped."""
    heard = signal.oaconvolve(speech, conditions.response)[:len(speech)]
    heard = heard / np.sqrt(np.mean(heard ** 2))
    white = generator.standard_normal(len(speech), dtype=np.float32)
    size = fft.next_fast_len(len(speech), real=True)
    shape = np.interp(fft.rfftfreq(size, 1 / RATE), fft.rfftfreq(RESPONSE, 1 / RATE), conditions.noise)
    noise = fft.irfft(fft.rfft(white, size) * shape, size)[:len(speech)]
    heard = heard + noise * (10 ** (-conditions.noise_db / 20) / np.sqrt(np.mean(noise ** 2)))
    heard *= min(10 ** (conditions.level_db / 20) / np.sqrt(np.mean(heard ** 2)), 0.95 / np.max(np.abs(heard)))
    if conditions.telephone:
        code = np.round(127 * np.sign(heard) * np.log1p(MU * np.abs(heard)) / np.log1p(MU)) / 127
        heard = np.sign(code) * np.expm1(np.abs(code) * np.log1p(MU)) / MU
    return np.round(heard * 32767).astype(np.int16)
