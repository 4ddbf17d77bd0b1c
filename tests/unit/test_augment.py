"""Augmented copies: levels, alignment, repeatability, and agreement with the data directory."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from scipy.signal import fftconvolve

from utils.errors import InputError
from utils.features.augment import Sources, augment, make_plan, read_plan, reverberate, simulated_room, telephone
from utils.kaldi.ark import iterate
from utils.kaldi.data_dir import read_data_dir

RATE = 16000


def voice(seed, seconds=2.0):
    rng = np.random.default_rng(seed)
    return (2000 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def plan(kind, **more):
    return {"kind": kind, "files": [], "seed": 7, **more}


def power(x):
    return np.mean(np.square(x, dtype=np.float64))


@pytest.mark.parametrize("snr_db", [0, 5, 20])
@pytest.mark.parametrize("kind", ["noise", "music", "babble", "made up"])
def test_what_is_added_lies_at_its_level(kind, snr_db):
    clean = voice(0)
    files = {"noise": ["a"], "music": ["short"], "babble": ["a", "b", "c"], "made up": []}[kind]
    sounds = {"a": voice(1, 5), "b": voice(2, 3), "c": voice(3, 1), "short": voice(4, 0.3)}
    done = plan("noise" if kind == "made up" else kind, files=files, snr_db=snr_db)
    copy = augment(clean, done, RATE, sounds.__getitem__)
    assert copy.shape == clean.shape
    assert copy.dtype == np.float32
    assert 10 * np.log10(power(clean) / power(copy - clean)) == pytest.approx(snr_db, abs=0.01)
    np.testing.assert_array_equal(copy, augment(clean, done, RATE, sounds.__getitem__))
    other = augment(clean, done | {"seed": 8}, RATE, sounds.__getitem__)
    assert not np.array_equal(other, copy)


def test_reverberation_is_convolution_with_the_direct_sound_in_place():
    clean, response = voice(0), np.zeros(4000)
    response[[300, 900, 2500]] = 0.9, -0.4, 0.2
    wet = reverberate(clean, response)
    expected = fftconvolve(clean, response)[300:300 + len(clean)]
    np.testing.assert_allclose(wet, expected * np.sqrt(power(clean) / power(expected)), rtol=1e-4, atol=0.5)
    assert np.argmax(np.correlate(wet[:8000], clean[:8000], "full")) == 7999  # no delay


def test_rooms_are_drawn_and_decay():
    made = simulated_room.__wrapped__  # the cache would give the same room again in any case
    first, again, other = (made(RATE, number) for number in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(other) != len(first) or not np.array_equal(other, first)
    direct = np.argmax(np.abs(first))
    assert power(first[direct:direct + 800]) > 10 * power(first[-400:])


def test_a_telephone_line_keeps_its_band_alone():
    time = np.arange(RATE) / RATE
    levels = {}
    for hz in (100, 1000, 5000):
        tone = (8000 * np.sin(2 * np.pi * hz * time)).astype(np.float32)
        levels[hz] = 10 * np.log10(power(telephone(tone, RATE)[2000:-2000]) / power(tone))
    assert abs(levels[1000]) < 1
    assert levels[100] < -20
    assert levels[5000] < -30
    assert len(telephone(voice(0)[:12345], RATE)) == 12345


def test_babble_is_never_of_the_speaker():
    sources = Sources(voices=[f"f{i}" for i in range(12)], speakers=[f"s{i // 4}" for i in range(12)])
    rng = np.random.default_rng(0)
    for _ in range(200):
        found = make_plan("babble", sources, "s1", rng)["files"]
        assert 3 <= len(found) <= 7
        assert len(set(found)) == len(found)
        assert not {"f4", "f5", "f6", "f7"} & set(found)
    with pytest.raises(InputError, match="no recordings of other speakers"):
        make_plan("babble", Sources(voices=["a"], speakers=["s1"]), "s1", rng)
    with pytest.raises(InputError, match="music needs MUSAN"):
        make_plan("music", sources, "s1", rng)


@pytest.mark.parametrize("text", ["noise", "[]x", '{"kind": "nose", "files": [], "seed": 1}', '{"kind": "noise"}',
                                  '{"kind": "noise", "files": [], "seed": 1, "snr_db": NaN}'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(InputError, match="not an augmentation plan"):
        read_plan(text)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (tmp_path / "musan/noise/x").mkdir(parents=True)
    soundfile.write(tmp_path / "musan/noise/x/n.wav", voice(9, 4) / 32768, RATE)
    (tmp_path / "musan/music").mkdir()
    soundfile.write(tmp_path / "musan/music/m.wav", voice(10, 4) / 32768, RATE)
    ids = [f"s{speaker}-u{number}" for speaker in range(3) for number in range(3)]
    for seed, name in enumerate(ids):
        soundfile.write(folder / f"{name}.wav", voice(seed, 1) / 32768, RATE)
    (folder / "wav.scp").write_text("".join(f"{name} {folder}/{name}.wav\n" for name in ids))
    (folder / "utt2spk").write_text("".join(f"{name} {name[:2]}\n" for name in ids))
    (folder / "spk2utt").write_text("".join(f"s{s} {' '.join(ids[3 * s:3 * s + 3])}\n" for s in range(3)))
    (tmp_path / "fbank.conf").write_text("--feature-type=fbank\n--num-mel-bins=20\n")
    return folder


def shell(*words):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.long
def test_copies_become_features_the_same_with_any_number_of_jobs(data, tmp_path):
    out = tmp_path / "aug"
    shell("steps/augment_data.sh", "--kinds", "noise music babble reverb telephone", "--musan-root", tmp_path / "musan",
          data, out)
    copies = read_data_dir(out)
    assert len(copies.ids) == 45
    plans = dict(zip(copies.ids, map(json.loads, copies.columns["utt2augment"]), strict=True))
    assert plans["s1-u1-noise"]["files"] == [str(tmp_path / "musan/noise/x/n.wav")]
    found = []
    for jobs in (1, 3):
        shell("steps/make_feats.sh", "--nj", jobs, "--compression", 0, tmp_path / "fbank.conf", out,
              tmp_path / f"f{jobs}")
        found.append(dict(iterate(tmp_path / f"f{jobs}/feats.scp")))
    shell("steps/make_feats.sh", "--compression", 0, tmp_path / "fbank.conf", data, tmp_path / "clean")
    clean = dict(iterate(tmp_path / "clean/feats.scp"))
    for name, features in found[0].items():
        np.testing.assert_array_equal(features, found[1][name])
        assert features.shape == clean[name.rpartition("-")[0]].shape
        assert np.abs(features - clean[name.rpartition("-")[0]]).mean() > 0.02  # babble is 13 to 20 dB below
    # If they are joined with the originals before the features are made, the originals do not change.
    shell(sys.executable, "-m", "utils.kaldi.combine_data", tmp_path / "both", data, out)
    shell("steps/make_feats.sh", "--compression", 0, tmp_path / "fbank.conf", tmp_path / "both", tmp_path / "fboth")
    both = dict(iterate(tmp_path / "fboth/feats.scp"))
    assert len(both) == 54
    for name, features in (clean | found[0]).items():
        np.testing.assert_array_equal(both[name], features)


def test_a_number_of_copies_and_bad_calls(data, tmp_path):
    out = tmp_path / "aug"
    shell("steps/augment_data.sh", "--kinds", "noise reverb telephone", "--copies", 2, data, out)
    assert len(read_data_dir(out).ids) == 18
    def said(*words):
        done = subprocess.run(["steps/augment_data.sh", *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        return done.stderr.strip().splitlines()[-1]

    assert "has utt2augment already" in said(out, tmp_path / "twice")
    assert "music needs MUSAN" in said("--kinds", "music", data, tmp_path / "x")
    assert "no noise/**/*.wav in" in said("--musan-root", tmp_path / "nowhere", data, tmp_path / "x")
    assert "invalid choice: 'nose'" in said("--kinds", "nose", data, tmp_path / "x")
    assert not (tmp_path / "x/utt2spk").exists()
