"""Moved formants: resonances are elsewhere; pitch, length and, for factor 1, samples stay."""

import numpy as np
import pytest
from scipy.signal import lfilter, welch

from utils.formants import move_formants

RATE, PITCH = 16000, 125


def voice(resonance, whispers=False):
    """One second of pulses, or of noise, through one resonance."""
    source = np.random.default_rng(0).normal(size=RATE) if whispers else np.zeros(RATE)
    if not whispers:
        source[::RATE // PITCH] = 1
    radius = np.exp(-np.pi * 120 / RATE)
    sound = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * resonance / RATE), radius**2], source)
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def peak(samples):
    """Return the centre in Hz of the loudest part of the spectrum."""
    places, power = welch(samples, RATE, nperseg=512)
    near = np.abs(places - places[power.argmax()]) < 150
    return (places[near] * power[near]).sum() / power[near].sum()


def lag(samples):
    """Return the period in samples."""
    middle = samples[4000:8000]
    found = np.correlate(middle, middle, "full")[len(middle) - 1:]
    return 80 + found[80:200].argmax()


@pytest.mark.parametrize("factor", [0.85, 0.92, 1.08, 1.2])
def test_the_resonance_moves_and_the_pitch_stays(factor):
    for resonance in (1500, 2500):
        moved = move_formants(voice(resonance), RATE, factor)
        assert moved.dtype == np.float32 and len(moved) == RATE
        assert lag(moved) == RATE // PITCH
        whispered = move_formants(voice(resonance, whispers=True), RATE, factor)
        assert peak(whispered) == pytest.approx(factor * resonance, rel=0.03)


def test_factor_one_keeps_the_samples_and_silence_stays_silent():
    samples = voice(1500)
    np.testing.assert_allclose(move_formants(samples, RATE, 1.0), samples, atol=1e-6)
    assert not move_formants(np.zeros(RATE, np.float32), RATE, 1.1).any()
