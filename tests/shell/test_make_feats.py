"""steps/make_feats.sh and steps/compute_vad.sh, from wav.scp to vad.scp."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from utils.kaldi.ark import iterate
from utils.kaldi.data_dir import read_data_dir

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "egs/voxceleb/conf/features"


def call(script, *words):
    return subprocess.run(["bash", ROOT / "steps" / script, *map(str, words)], capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "it's; a \"folder\""
    folder.mkdir()
    rng = np.random.default_rng(6)
    ids = [f"s-{i}" for i in range(4)]
    for name in ids:
        soundfile.write(folder / f"{name} a.wav", rng.normal(0, 0.1, 8000), 16000)
    (folder / "wav.scp").write_text("".join(f"{name} {folder}/{name} a.wav\n" for name in ids))
    (folder / "utt2spk").write_text("".join(f"{name} s\n" for name in ids))
    (folder / "spk2utt").write_text(f"s {' '.join(ids)}\n")
    return folder


def test_features_and_vad_are_made_once_and_again_when_options_change(data, tmp_path):
    out = tmp_path / "out"
    make = ("make_feats.sh", "--nj", 2, CONF / "mfcc24.conf", data, out)
    done = call(*make)
    assert done.returncode == 0, done.stderr
    assert (out / "feats.conf").read_bytes() == (CONF / "mfcc24.conf").read_bytes()
    first = dict(iterate(out / "feats.scp"))
    assert {features.shape for features in first.values()} == {(50, 24)}
    vad = ("compute_vad.sh", "--nj", 2, CONF / "vad.conf", out)
    done = call(*vad)
    assert done.returncode == 0, done.stderr
    assert list(dict(iterate(out / "vad.scp"))) == list(first)
    assert (out / "vad.conf").read_bytes() == (CONF / "vad.conf").read_bytes()
    assert "vad.scp" in read_data_dir(out).columns

    times = {path: path.stat().st_mtime_ns for path in out.glob("*.scp")}
    for step in (make, vad):
        done = call(*step)
        assert done.returncode == 0
        assert "up to date" in done.stderr
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*.scp")}

    (data / "trials").mkdir()
    for text in ("s-1 s-2 target\n", "s-2 s-1 target\n"):
        (data / "trials/list").write_text(text)
        (data / "spk2gender").write_text(f"s {text[2]}\n")
        assert "up to date" in call(*make).stderr
        assert (out / "trials/list").read_text() == text
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("*.scp")}

    done = call("make_feats.sh", "--nj", 1, "--compression", 0, *make[3:])
    assert done.returncode == 0, done.stderr
    assert "option compression was '3', is now '0'" in done.stderr
    assert not (out / "vad.scp").exists() and not (out / "vad.conf").exists()  # they belonged to the old features
    assert not (out / "feats.2.ark").exists()
    again = dict(iterate(out / "feats.scp"))
    assert all(np.abs(again[name] - first[name]).max() < 0.01 for name in first)
    assert "is gone" in call(*vad).stderr
    assert (out / "vad.scp").exists()


def test_bad_audio_stops_with_its_name_and_without_output(data, tmp_path):
    (data / "s-2 a.wav").write_text("hello")
    done = call("make_feats.sh", CONF / "fbank64.conf", data, tmp_path / "out")
    assert done.returncode == 1
    assert "1 of 4 utterances have no features: s-2" in done.stderr
    assert "s-2 a.wav: damaged, or not audio" in done.stderr
    assert not (tmp_path / "out/feats.scp").exists()
    assert not (tmp_path / "out/.done").exists()
    done = call("make_feats.sh", "--max-failed", 0.25, CONF / "fbank64.conf", data, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert list(dict(iterate(tmp_path / "out/feats.scp"))) == ["s-0", "s-1", "s-3"]


def test_wrong_calls(data, tmp_path):
    done = call("make_feats.sh", CONF / "none.conf", data, tmp_path / "out")
    assert done.returncode == 1
    assert "none.conf is missing or empty" in done.stderr
    done = call("make_feats.sh", CONF / "mfcc24.conf", data, data)
    assert done.returncode == 1
    assert "both input and output" in done.stderr
    assert (data / "wav.scp").exists()
    done = call("compute_vad.sh", CONF / "vad.conf", data)
    assert done.returncode == 1
    assert "feats.scp is missing or empty" in done.stderr
