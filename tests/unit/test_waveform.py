"""Features on the device against those of steps/feat, for every feature file of the recipe.

Both compute in single precision. In a band with hardly any energy compared with the rest of its frame, the rounding of
the Fourier transform shows in the logarithm: there, Kaldi's values differ by up to 0.007 from double precision.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from nnet.frontends.kaldi import KaldiFeatures
from utils.audio import read_audio
from utils.errors import InputError
from utils.features.compute import compute_features
from utils.features.options import read_feature_options

FEATURES = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf/features"


def assert_agree(ours, theirs):
    """998 in 1,000 values agree to 1e-3, and none differs by more than rounding explains."""
    assert ours.shape == theirs.shape
    difference = np.abs(ours - theirs)
    assert difference.max() < 0.02
    assert np.quantile(difference, 0.998) < 1e-3
    assert difference.mean() < 1e-4


@pytest.fixture(scope="module")
def speech(shared):
    paths = sorted((shared / "corpora/minivox/dev/wav").rglob("*.flac"))[:40:20]
    return [read_audio(path).samples for path in paths]


@pytest.mark.parametrize("name", [path.stem for path in sorted(FEATURES.glob("*.conf")) if path.stem != "vad"])
def test_features_on_the_device_are_kaldis(speech, name):
    options = read_feature_options(FEATURES / f"{name}.conf")
    layer = KaldiFeatures(options)
    for samples in speech:
        for length in (len(samples), 32000, 16123):
            ours = layer(torch.from_numpy(samples[None, :length]))[0].numpy()
            assert_agree(ours, compute_features(samples[:length], options))


@pytest.mark.parametrize("more", [
    "--snip-edges=true\n--window-type=hanning", "--window-type=sine\n--use-energy=true", "--window-type=blackman",
    "--window-type=rectangular\n--remove-dc-offset=false\n--preemphasis-coefficient=0",
    "--round-to-power-of-two=false\n--frame-length=32\n--low-freq=100\n--high-freq=-400",
    "--raw-energy=false\n--use-energy=true\n--energy-floor=1"])
@pytest.mark.parametrize("kind", ["mfcc", "fbank"])
def test_options_mean_what_they_mean_to_kaldi(speech, tmp_path, kind, more):
    (tmp_path / "x.conf").write_text(f"--feature-type={kind}\n--num-mel-bins=30\n{more}\n")
    options = read_feature_options(tmp_path / "x.conf")
    samples = speech[0][:40000]
    batch = torch.from_numpy(np.stack([samples, samples[::-1]]))
    ours = KaldiFeatures(options)(batch).numpy()
    for row, theirs in enumerate((samples, samples[::-1])):
        assert_agree(ours[row], compute_features(theirs, options))


def test_what_is_not_there_is_refused(tmp_path):
    (tmp_path / "x.conf").write_text("--feature-type=fbank\n--use-power=false\n")
    with pytest.raises(InputError, match="remove them from the feature file"):
        KaldiFeatures(read_feature_options(tmp_path / "x.conf"))
    (tmp_path / "y.conf").write_text("--feature-type=fbank\n--snip-edges=true\n")
    with pytest.raises(InputError, match="100 samples are too short"):
        KaldiFeatures(read_feature_options(tmp_path / "y.conf"))(torch.zeros(1, 100))
