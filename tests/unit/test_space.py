"""Estimates of disk space against the free space."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from steps.feat.compute_feats import Utterance, compute_part, estimate_bytes
from utils.errors import InputError
from utils.features.options import read_feature_options
from utils.space import require_space


def test_too_little_space_is_said_with_both_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_000_000_000))
    require_space(tmp_path / "not/there/yet", 1.8e9, "embeddings")
    with pytest.raises(InputError, match=r"embeddings need about 2.1 GB, 2.0 GB are free"):
        require_space(tmp_path, 2e9, "embeddings")


@pytest.mark.parametrize("compression", range(8))
def test_the_estimate_for_features_is_near_what_they_take(tmp_path, compression):
    rng, rate = np.random.default_rng(0), 16000
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for index in range(20):
        soundfile.write(data / f"{index:02}.wav", rng.normal(0, 0.1, rate * 3 + 100 * index), rate)
    (data / "wav.scp").write_text("".join(f"u{index:02} {data}/{index:02}.wav\n" for index in range(20)))
    (tmp_path / "fbank.conf").write_text("--feature-type=fbank\n--num-mel-bins=40\n")
    options = read_feature_options(tmp_path / "fbank.conf")
    part = [Utterance(f"u{index:02}", f"{data}/{index:02}.wav", "1", "1", "", None) for index in range(20)]
    compute_part(options, data, out, 1, 1, compression, pipes=False)
    assert (out / "feats.1.ark").stat().st_size == pytest.approx(estimate_bytes(part, options, compression), rel=0.1)
