"""Deltas, normalisation and voiced frames: Kaldi's numbers, plain loops, and chunks."""

import numpy as np
import pytest

from utils.config import build
from utils.errors import InputError
from utils.features.cmvn import normalise
from utils.features.deltas import add_deltas
from utils.features.frontend import FrontendOptions, apply_frontend, frontend_margin
from utils.kaldi.ark import iterate


def loop_normalise(features, window, norm_vars):
    """Kaldi's SlidingWindowCmn, written out."""
    out = np.zeros_like(features, dtype=np.float64)
    frames = len(features)
    for t in range(frames):
        start, end = t - window // 2, t - window // 2 + window
        if start < 0:
            start, end = 0, end - start
        if end > frames:
            start, end = max(0, start - (end - frames)), frames
        block = features[start:end].astype(np.float64)
        out[t] = features[t] - block.mean(axis=0)
        if norm_vars:
            out[t] = out[t] / block.std(axis=0) if len(block) > 1 else 0
    return out


def loop_deltas(features, order, window):
    """Regression slopes of slopes, on features whose end frames are repeated indefinitely."""
    far = order * window
    padded = np.concatenate([features[:1]] * far + [features] + [features[-1:]] * far).astype(np.float64)
    parts, current = [features], padded
    for _ in range(order):
        norm = 2 * sum(j * j for j in range(1, window + 1))
        shifted = np.pad(current, ((window, window), (0, 0)), mode="edge")
        current = sum(j * shifted[window + j:len(shifted) - window + j] for j in range(-window, window + 1)) / norm
        parts.append(current[far:far + len(features)])
    return np.concatenate(parts, axis=1)


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(3).normal(3, 7, (431, 5)).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 2, 5, 40, 431])
@pytest.mark.parametrize("window", [3, 40, 300])
@pytest.mark.parametrize("norm_vars", [False, True])
def test_sliding_normalisation_is_the_loop(features, frames, window, norm_vars):
    some = features[:frames]
    np.testing.assert_allclose(normalise(some, window, norm_vars), loop_normalise(some, window, norm_vars),
                               atol=1e-4)


def test_normalisation_over_all_frames(features):
    np.testing.assert_allclose(normalise(features, None, True),
                               (features - features.mean(0)) / features.std(0), atol=1e-5)
    assert np.array_equal(normalise(np.full((9, 2), 1e3, np.float32), None, True), np.zeros((9, 2)))
    assert normalise(features[:0], 300).shape == (0, 5)


@pytest.mark.parametrize(("order", "window"), [(1, 2), (2, 2), (2, 3), (3, 1)])
def test_deltas_are_the_loop(features, order, window):
    for frames in (1, 3, 100):
        np.testing.assert_allclose(add_deltas(features[:frames], order, window),
                                   loop_deltas(features[:frames], order, window), atol=1e-4)
    assert add_deltas(features[:0], order, window).shape == (0, 5 * (order + 1))


@pytest.mark.parametrize(("name", "options"), [
    ("cmn300", FrontendOptions(cmn="sliding")),
    ("cmvn300", FrontendOptions(cmn="sliding", norm_vars=True)),
    ("deltas2w3", FrontendOptions(deltas=2, delta_window=3)),
    ("ivector_input", FrontendOptions(deltas=2, delta_window=3, cmn="sliding", vad=True)),
])
def test_kaldis_numbers(shared, name, options):
    folder = shared / "kaldi_reference/features"
    vad = dict(iterate(folder / "vad.ark"))
    reference = dict(iterate(folder / f"{name}.ark"))
    assert len(reference) == 4
    for utterance, stored in iterate(folder / "mfcc24.ark"):
        ours = apply_frontend(stored, vad[utterance], options)
        assert ours.dtype == np.float32
        assert ours.shape[1] == options.output_dim(stored.shape[1])
        np.testing.assert_allclose(ours, reference[utterance], atol=1e-5)


CHUNKED = [FrontendOptions(cmn="sliding"), FrontendOptions(deltas=2, cmn="utterance", norm_vars=True),
           FrontendOptions(cmn="utterance", vad=True), FrontendOptions(deltas=2, delta_window=3),
           FrontendOptions(deltas=2, cmn="sliding", cmn_window=41, norm_vars=True),
           FrontendOptions(deltas=1, cmn="sliding", cmn_window=300, vad=True), FrontendOptions(vad=True)]


@pytest.mark.parametrize("options", CHUNKED, ids=str)
@pytest.mark.parametrize("frames", [90, 431])
def test_a_chunk_is_a_slice_of_the_whole(features, options, frames):
    features = features[:frames]
    vad = (np.arange(frames) % 7 != 0).astype(np.float32)
    whole = apply_frontend(features, vad, FrontendOptions(**vars(options) | {"vad": False}))
    margin = frontend_margin(options)
    for start, stop in ((0, 20), (0, frames), (3, 40), (60, 90), (frames - 20, frames), (frames // 2, frames - 1)):
        low, high = max(0, start - margin), min(frames, stop + margin)
        chunk = apply_frontend(features[low:high], vad[low:high], options, keep=(start - low, stop - low))
        expected = whole[start:stop][vad[start:stop] > 0] if options.vad else whole[start:stop]
        np.testing.assert_allclose(chunk, expected, atol=2e-5)


def test_the_margin_is_needed(features):
    """With half the margin, the first frames, whose window extends only to the right, would differ."""
    options = FrontendOptions(cmn="sliding")
    whole = apply_frontend(features, None, options)
    chunk = apply_frontend(features[:10 + frontend_margin(options) // 2], None, options, keep=(0, 10))
    assert np.abs(chunk - whole[:10]).max() > 0.1


def test_a_chunk_normalised_on_its_own(features):
    options = FrontendOptions(deltas=1, cmn="chunk", norm_vars=True)
    chunk = apply_frontend(features[98:302], None, options, keep=(2, 202))
    np.testing.assert_allclose(chunk, normalise(add_deltas(features, 1, 2)[100:300], None, True), atol=1e-5)
    np.testing.assert_allclose(chunk.std(axis=0), 1, atol=1e-4)


def test_no_voiced_frame_keeps_all(features):
    options = FrontendOptions(vad=True)
    assert np.array_equal(apply_frontend(features, np.zeros(431), options), features)
    assert apply_frontend(features, np.arange(431) < 9, options).shape == (9, 5)


def test_wrong_input_is_told(features):
    for vad in (None, np.ones(430)):
        with pytest.raises(InputError, match="431 frames but (no|430) decisions"):
            apply_frontend(features, vad, FrontendOptions(vad=True))
    for wrong in ({"cmn": "mean"}, {"deltas": -1}, {"cmn_window": 0}, {"norm_vars": True}):
        with pytest.raises(InputError, match="cmn|deltas|norm_vars"):
            build(FrontendOptions, wrong, "frontend")
