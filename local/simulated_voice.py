"""A source-filter synthesiser: simulated speakers that utter random syllables.

Voiced source: the derivative of the glottal flow of Klatt & Klatt, "Analysis, synthesis, and perception of
voice quality variations among female and male talkers", JASA 87 (1990), with jitter, shimmer, open quotient,
aspiration and a spectral tilt. Filter: a cascade of resonances 1 / (1 - (f/F)^2 + j f B/F^2), with formant F and
bandwidth B in Hz, whose targets follow the phones and scale with 1 / vocal-tract length; for nasality, a pole and a
zero move apart. The filter changes every HOP samples: short-time spectra are multiplied and overlap-added.

T is the number of frames, N the number of samples; frequencies are in Hz, levels in dB, durations in seconds.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

RATE, HOP, WINDOW, FFT = 16000, 128, 512, 1024
FREQUENCIES = fft.rfftfreq(FFT, 1 / RATE).astype(np.float32)
REFERENCE_CM = 17.0  # the vocal-tract length of the formants below
# F1, F2, F3 of American English vowels, men: Peterson & Barney, JASA 24 (1952), table II.
VOWELS = np.array([(270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410),
                   (730, 1090, 2440), (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240),
                   (640, 1190, 2390), (490, 1350, 1690)], float)
# F1, F2, F3; level of voicing and of frication; centre and width of frication; nasality.
CONSONANTS = np.array([
    (300, 1100, 2200, -9, -99, 3000, 1000, 1),    # m
    (300, 1500, 2500, -9, -99, 3000, 1000, 1),    # n
    (360, 1100, 2600, -5, -99, 3000, 1000, 0),    # l
    (330, 1150, 1600, -5, -99, 3000, 1000, 0),    # r
    (290, 700, 2300, -6, -99, 3000, 1000, 0),     # w
    (280, 2200, 3000, -6, -99, 3000, 1000, 0),    # j
    (320, 1400, 2500, -99, -12, 6000, 1200, 0),   # s
    (320, 1700, 2500, -99, -11, 3600, 1100, 0),   # sh
    (320, 1100, 2200, -99, -22, 5500, 4000, 0),   # f
    (320, 1400, 2500, -14, -18, 6000, 1200, 0),   # z
    (300, 900, 2200, -99, -99, 1000, 800, 0),     # p, before its burst; so are the stops below
    (300, 1700, 2600, -99, -99, 4500, 1500, 0),   # t
    (300, 1900, 2200, -99, -99, 2200, 900, 0),    # k
    (300, 900, 2200, -20, -99, 1000, 800, 0),     # b
    (300, 1700, 2600, -20, -99, 4500, 1500, 0),   # d
    (300, 1900, 2200, -20, -99, 2200, 900, 0),    # g
], float)
FIRST_STOP, BURST_DB, BURST_SECONDS, SILENCE_DB = 10, -13.0, 0.018, -99.0
HIGHER = np.arange(3500, 8501, 1000.0)  # F4, F5, ... of the reference
BANDWIDTHS = np.array([70, 90, 130.0])  # of F1, F2, F3
COARTICULATION = 0.07  # seconds over which formants move from one target to the next


@dataclass(frozen=True)
class Speaker:
    """The parameters of a speaker, constant over sessions except for the changes of `in_session`."""

    gender: str              # f or m
    tract_cm: float          # length of the vocal tract
    vowels: np.ndarray       # (vowels, 3) formants, scaled and idiosyncratic
    consonants: np.ndarray   # (consonants, 8) like CONSONANTS, scaled
    higher: np.ndarray       # F4 and above
    damping: float           # factor on all bandwidths
    pitch: float             # mean of f0
    liveliness: float        # standard deviation of log f0 over accents
    jitter: float            # standard deviation of a period, relative
    shimmer: float           # standard deviation of a pulse's log amplitude
    open_quotient: float     # share of the period during which the glottis is open
    tilt: float              # corner of the source's low-pass
    breath: float            # level of aspiration relative to voicing
    nasality: float          # distance of zero and pole in sounds that are not nasal, 0 to 1
    nasal_pole: float
    rate: float              # syllables per second

    def in_session(self, generator: np.random.Generator, spread: float) -> "Speaker":
        """Return the speaker on another day: vocal effort, tiredness, pitch; `spread` 0 changes nothing."""
        effort, tired, mood, cold = spread * generator.standard_normal(4)
        changed = {**vars(self), "pitch": self.pitch * np.exp(0.08 * mood + 0.06 * effort),
                   "tilt": self.tilt * np.exp(0.35 * effort), "breath": self.breath + 4 * tired,
                   "open_quotient": float(np.clip(self.open_quotient - 0.05 * effort, 0.3, 0.9)),
                   "liveliness": self.liveliness * np.exp(0.2 * mood), "rate": self.rate * np.exp(0.1 * mood),
                   "nasality": float(np.clip(self.nasality + 0.15 * cold, 0, 1)),
                   "vowels": self.vowels * np.exp([0.03 * effort, 0.015 * mood, 0.01 * tired])}
        return Speaker(**changed)


def draw_speaker(generator: np.random.Generator, gender: str, tract_cm: float | None = None) -> Speaker:
    """Draw a speaker; `tract_cm` sets the length of the vocal tract without changing the other draws."""
    normal = generator.standard_normal
    length = (17.0 if gender == "m" else 14.9) + 0.75 * normal()
    length = tract_cm or float(np.clip(length, 12.5, 19.5))
    scale = REFERENCE_CM / length
    own = np.exp(0.03 * normal(3))  # effect of the tract's shape on all sounds
    consonants = CONSONANTS.copy()
    consonants[:, :3] *= scale * own * np.exp(0.02 * normal((len(CONSONANTS), 3)))
    consonants[:, 5] *= np.sqrt(scale) * np.exp(0.06 * normal(len(CONSONANTS)))
    return Speaker(
        gender=gender, tract_cm=length, consonants=consonants,
        vowels=VOWELS * scale * own * np.exp(0.03 * normal(VOWELS.shape)),
        higher=HIGHER * scale * np.exp(0.03 * normal(HIGHER.shape)), damping=float(np.exp(0.2 * normal())),
        pitch=float((115 if gender == "m" else 200) * np.exp(0.15 * normal())),
        liveliness=float(0.12 * np.exp(0.3 * normal())), jitter=float(0.008 * np.exp(0.4 * normal())),
        shimmer=float(0.05 * np.exp(0.4 * normal())),
        open_quotient=float(np.clip((0.55 if gender == "m" else 0.65) + 0.07 * normal(), 0.35, 0.85)),
        tilt=float((2500 if gender == "m" else 2000) * np.exp(0.35 * normal())),
        breath=float((-28 if gender == "m" else -24) + 3 * normal()),
        nasality=float(np.clip(0.25 + 0.15 * normal(), 0, 1)),
        nasal_pole=float(270 * np.exp(0.08 * normal())), rate=float(4.6 * np.exp(0.12 * normal())))


@dataclass
class Track:
    """The state of the articulators, frame by frame."""

    formants: np.ndarray   # (T, 3)
    voicing: np.ndarray    # (T,) amplitude
    frication: np.ndarray  # (T,) amplitude
    noise: np.ndarray      # (T, 2) centre and width of frication
    nasality: np.ndarray   # (T,) 0 to 1
    accents: np.ndarray    # (T,) log f0 relative to the speaker's mean


def utter(speaker: Speaker, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """Return an utterance of the speaker: (N,) float32, RMS 1, N = seconds * RATE."""
    samples = round(seconds * RATE)
    frames = -(-samples // HOP) + WINDOW // HOP
    track = articulate(speaker, frames, generator)
    padded = (frames - 1) * HOP + WINDOW
    source, aspiration = glottal_source(speaker, track, padded, generator)
    noise = generator.standard_normal(padded, dtype=np.float32)
    breath = 10 ** (speaker.breath / 20)
    spectrum = short_time(source + breath * aspiration * noise)
    spectrum *= vocal_tract(speaker, track) * np.float32(1)
    spectrum += short_time(noise) * frication_shape(track)
    speech = overlap_add(spectrum)[WINDOW // 2:WINDOW // 2 + samples]
    return speech / np.sqrt(np.mean(speech ** 2))


def articulate(speaker: Speaker, frames: int, generator: np.random.Generator) -> Track:
    """Draw syllables with pauses and return their smoothed targets for `frames` frames."""
    targets, lengths, accents = draw_syllables(speaker, frames * HOP / RATE, generator)
    index = np.repeat(np.arange(len(lengths)), np.maximum(np.round(lengths * RATE / HOP), 1).astype(int))
    spoken = targets[index[:frames]]
    width = round(COARTICULATION * RATE / HOP)
    formants = smooth(spoken[:, :3], width)
    levels = smooth(10 ** (spoken[:, 3:5] / 20), 3)
    declination = np.linspace(0.08, -0.1, frames)
    pitch = smooth(accents[index[:frames], None], 2 * width)[:, 0] + declination
    return Track(formants, levels[:, 0], levels[:, 1], spoken[:, 5:7], smooth(spoken[:, 7:], 5)[:, 0], pitch)


def draw_syllables(speaker: Speaker, seconds: float, generator: np.random.Generator
                   ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return targets (phones, 8) like CONSONANTS, durations and accents (phones,), at least `seconds` long."""
    count = round(3 * seconds * speaker.rate) + 10  # more than needed
    syllable = 1 / speaker.rate
    silence = np.array([500, 1500, 2500, SILENCE_DB, SILENCE_DB, 3000, 1000, 0.0])
    targets, lengths, accents = [silence], [generator.uniform(0.05, 0.3)], [0.0]
    kinds = generator.integers(len(CONSONANTS), size=(count, 2))
    vowels = generator.integers(len(VOWELS), size=count)
    for onset, coda, vowel, chance, stress, stretch in zip(
            *kinds.T, vowels, generator.random((count, 2)), generator.standard_normal(count),
            np.exp(0.25 * generator.standard_normal(count)), strict=True):
        accent = speaker.liveliness * stress
        phones = [(speaker.consonants[onset], 0.38)]
        if onset >= FIRST_STOP:
            phones.append((burst(speaker.consonants[onset]), 0.0))
        phones.append((np.array([*speaker.vowels[vowel], 2 * stress, SILENCE_DB, 3000, 1000, 0]), 0.62))
        if chance[0] < 0.3 and coda < FIRST_STOP:
            phones.append((speaker.consonants[coda], 0.3))
        for target, share in phones:
            targets.append(target)
            lengths.append(share * syllable * stretch or BURST_SECONDS)
            accents.append(accent)
        if chance[1] < 0.08:
            targets.append(silence)
            lengths.append(0.15 + 0.3 * chance[1] / 0.08)
            accents.append(0.0)
    return np.array(targets), np.array(lengths), np.array(accents)


def burst(stop: np.ndarray) -> np.ndarray:
    """Return the target of a stop's release."""
    released = stop.copy()
    released[3:5] = SILENCE_DB, BURST_DB
    return released


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Return values (T, any) smoothed twice over `width` frames, i.e. with a triangular window."""
    once = ndimage.uniform_filter1d(values, width, axis=0, mode="nearest")
    return ndimage.uniform_filter1d(once, width, axis=0, mode="nearest")


def glottal_source(speaker: Speaker, track: Track, samples: int, generator: np.random.Generator
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Return the flow's derivative and the envelope of aspiration, both (samples,) float32.

    The flow in the open phase is u^2 - u^3, with u = phase / open quotient from 0 to 1. Its derivative 2 u - 3 u^2
    jumps from -1 to 0 at closure; a two-sample polynomial residual band-limits the jump.
    """
    times, centres = np.arange(samples), np.arange(len(track.voicing)) * HOP + WINDOW // 2
    pitch = speaker.pitch * np.exp(np.interp(times, centres, track.accents))
    voicing = np.interp(times, centres, track.voicing)
    phase = np.cumsum(pitch / RATE)
    jitter = 1 + speaker.jitter * generator.standard_normal(int(2 * phase[-1]) + 2)
    phase = np.cumsum(pitch * jitter[phase.astype(int)] / RATE)
    cycle = phase.astype(int)
    strength = np.exp(speaker.shimmer * generator.standard_normal(cycle[-1] + 2))
    opened = np.minimum((phase - cycle) / speaker.open_quotient, 1)
    amplitude = voicing * strength[cycle]
    source = amplitude * np.where(opened < 1, (2 - 3 * opened) * opened, 0)
    closures = np.interp(np.arange(cycle[-1]) + speaker.open_quotient, phase, times)
    before = np.clip(closures.astype(int), 0, samples - 2)
    late = closures - before
    source[before] += amplitude[before] * (1 - late) ** 2 / 2
    source[before + 1] -= amplitude[before] * late ** 2 / 2
    return source.astype(np.float32), (voicing * (0.3 + (opened < 1))).astype(np.float32)


def resonance(frequency: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    """Return 1 - (f/F)^2 + j f B/F^2, whose inverse is a formant, over FREQUENCIES: (..., FFT/2 + 1)."""
    inverse = (1 / np.square(frequency))[..., None].astype(np.float32)
    result = np.empty((*np.shape(frequency), len(FREQUENCIES)), np.complex64)
    result.real = 1 - FREQUENCIES ** 2 * inverse
    result.imag = FREQUENCIES * (np.broadcast_to(bandwidth, np.shape(frequency))[..., None].astype(np.float32)
                                 * inverse)
    return result


def vocal_tract(speaker: Speaker, track: Track) -> np.ndarray:
    """Return each frame's filter, including source tilt and lip-to-microphone path: (T, FFT/2 + 1)."""
    constant = np.prod(resonance(speaker.higher, speaker.damping * (60 + 0.05 * speaker.higher)), axis=0)
    constant *= 1 + 1j * FREQUENCIES / np.float32(speaker.tilt)
    denominator = resonance(track.formants[:, 0], speaker.damping * BANDWIDTHS[0])
    for number in (1, 2):
        denominator *= resonance(track.formants[:, number], speaker.damping * BANDWIDTHS[number])
    nasality = np.maximum(track.nasality, speaker.nasality)
    zero = speaker.nasal_pole * (1 + 1.2 * nasality)
    denominator *= resonance(np.array(speaker.nasal_pole), np.array(100.0)) * constant
    return resonance(zero, np.array(100.0)) / denominator


def frication_shape(track: Track) -> np.ndarray:
    """Return each frame's spectrum of frication: (T, FFT/2 + 1) float32, a bell curve around its centre."""
    shape = np.zeros((len(track.frication), len(FREQUENCIES)), np.float32)
    heard = np.flatnonzero(track.frication > 1e-4)
    centre, width = (track.noise[heard, column, None].astype(np.float32) for column in (0, 1))
    shape[heard] = np.exp(-0.5 * ((FREQUENCIES - centre) / width) ** 2)
    shape *= track.frication[:, None].astype(np.float32)
    return shape


def short_time(signal: np.ndarray) -> np.ndarray:
    """Return the spectra of windows at intervals of HOP: (T, FFT/2 + 1) complex64."""
    frames = np.lib.stride_tricks.sliding_window_view(signal.astype(np.float32), WINDOW)[::HOP]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    return fft.rfft(frames * window, FFT)


def overlap_add(spectrum: np.ndarray) -> np.ndarray:
    """Return the signal from spectra at intervals of HOP: ((T - 1) HOP + FFT,) float32."""
    frames = fft.irfft(spectrum, FFT).reshape(len(spectrum), FFT // HOP, HOP)
    signal = np.zeros((len(spectrum) + FFT // HOP - 1, HOP), np.float32)
    for part in range(FFT // HOP):
        signal[part:part + len(spectrum)] += frames[:, part]
    return signal.reshape(-1)
