"""Trained systems: the contents of their folders, and embeddings of files, arrays and stored features."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from scipy.signal import resample_poly

from nnet.attention import attention_of
from nnet.embed import load, load_network
from steps.report.draw_attention import attend
from steps.use.listen import listen
from tests.in_process import call
from tests.unit.made_up import write_speech
from tests.unit.made_up_systems import train_systems, write_untrained
from utils.audio import read_audio
from utils.errors import InputError
from utils.features.vad import read_vad_options, vad_written_out
from utils.jobs.done import code_version
from utils.kaldi.ark import read_matrix, read_vectors
from utils.kaldi.objects import write_vector

KINDS = ("network", "ivector")


def succeed(module, *words):
    done = call(module, *words)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech") / "data")


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    """A network and an i-vector system, both trained on the voiced frames of MFCC."""
    folder = tmp_path_factory.mktemp("models")
    train_systems(data, folder)
    return folder


EXTRACT = {"network": "steps.network.extract", "ivector": "steps.ivector.extract"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_refuses_voice_activity_of_other_options(models, data, tmp_path, kind):
    other = shutil.copytree(data, tmp_path / "data")
    (other / "vad.conf").write_text("--vad-energy-threshold=4\n")
    done = call(EXTRACT[kind], models / kind, other, tmp_path)
    assert done.returncode == 1
    assert (f"{other}: voice activity has vad-energy-threshold 4, {models / kind} was trained on 5.5; name data "
            "made with the same options, or train again\n") in done.stderr
    (other / "vad.conf").unlink()
    done = succeed(EXTRACT[kind], models / kind, other, tmp_path)
    assert done.stderr.count("does not name the options of its voice activity; they were not compared") == 1


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def alike(a, b):
    """Whether the embeddings agree to 1e-4 in cosine, and in length."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.float32
    assert cosine(a, b).min() > 1 - 1e-4
    np.testing.assert_allclose(a, b, atol=0.01 * np.abs(b).max())
    return True


@pytest.fixture
def files(data):
    return [line.split()[1] for line in (data / "wav.scp").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_files_arrays_and_stored_features_give_what_the_steps_extract(models, data, files, tmp_path, kind):
    succeed(EXTRACT[kind], models / kind, data, tmp_path)
    ids, wanted = read_vectors(next(tmp_path.glob("*vector.1.scp")))
    model = load(models / kind)
    found = model.embed(files)
    assert model.rate == 16000
    assert found.shape == (len(ids), model.dim)
    assert alike(found, wanted)
    assert cosine(found[0], found[-1]) < 0.99
    assert alike(model.embed([soundfile.read(path)[0] for path in files], rate=16000), found)
    assert alike(model.embed(tuple(soundfile.read(path, dtype="int16")[0] for path in files), 16000.0), found)
    lines = (data / "feats.scp").read_text().splitlines()
    assert alike(model.embed_features([read_matrix(line.split()[1]) for line in lines]), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_one_by_one_is_as_in_batches_and_other_rates_are_converted(models, files, kind):
    model = load(models / kind)
    together = model.embed(files)
    for path, wanted in zip(files, together, strict=True):
        assert model.embed(Path(path)).shape == (model.dim,)
        assert alike(model.embed(path), wanted)
    fast = resample_poly(soundfile.read(files[0])[0], 3, 1)
    assert cosine(model.embed(fast.astype(np.float32), rate=48000), together[0]) > 0.99
    assert model.embed([]).shape == (0, model.dim)


SOUND = np.random.default_rng(0).normal(size=9000) / 9
BAD = [
    (SOUND, {}, "input 1: an array without its sampling rate; give rate="),
    ([SOUND, SOUND[:100]], {"rate": 16000}, "input 2: 100 samples at 16000 Hz are too short for one frame"),
    (SOUND[:0], {"rate": 16000}, "input 1: holds no samples"),
    (np.where(np.arange(9000) == 7, np.nan, SOUND), {"rate": 16000}, "input 1: NaN or infinite samples"),
    (SOUND * 32768, {"rate": 16000}, "where 1 is full scale; divide samples on the 16-bit scale by 32768"),
    (SOUND[:, None], {"rate": 16000}, r"input 1: an array \[9000, 1\] of float64; wanted one channel"),
    (SOUND.astype(np.int64), {"rate": 16000}, "of int64; wanted one channel: .N. of floats or int16"),
    (SOUND, {"rate": 16000.5}, "input 1: a sampling rate of 16000.5 Hz; wanted a whole number"),
    (SOUND, {"rate": 16}, "input 1: a sampling rate of 16 Hz; wanted 4000 to 400000"),
    ("text.wav", {}, "text.wav: damaged, or not audio that can be read"),
    ("empty.wav", {}, "empty.wav: empty, 0 bytes"),
    ("short.wav", {}, "short.wav: 100 samples at 16000 Hz are too short for one frame"),
    ("missing.wav", {}, "missing.wav: No such file or directory"),
    ("short.wav", {"rate": 16000}, "short.wav: rate is 16000, but files state their own; leave it out"),
]


@pytest.mark.parametrize(("audio", "options", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused_in_one_line(models, tmp_path, monkeypatch, audio, options, message):
    monkeypatch.chdir(tmp_path)
    Path("text.wav").write_text("not audio")
    Path("empty.wav").write_bytes(b"")
    soundfile.write("short.wav", SOUND[:100], 16000)
    for kind in KINDS:
        with pytest.raises(InputError, match=message) as error:
            load(models / kind).embed(audio, **options)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("frames", "message"), [
    (np.ones((50, 30)), r"input 1: features of shape \[50, 30\]; wanted T x 24, as .* was trained on"),
    (np.ones(24), r"input 1: features of shape \[24\]"), (np.ones((0, 24)), r"input 1: features of shape \[0, 24\]"),
    (np.full((50, 24), np.inf), "input 1: NaN or infinite features")])
def test_bad_features_are_refused(models, frames, message):
    for kind in KINDS:
        with pytest.raises(InputError, match=message):
            load(models / kind).embed_features(frames)


def test_silence_and_what_had_to_be_repeated_are_said(models, capsys):
    load(models / "network").embed([SOUND, np.zeros(9000), SOUND[:1600]], rate=16000)
    assert capsys.readouterr().err.splitlines() == [
        "warning: input 2: digital silence; its embedding is meaningless",
        "warning: input 2: no voiced frame; all frames are used",
        "warning: input 3: 10 frames, fewer than the 15 that the encoder needs: they are repeated"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_says_versions_and_holds_the_training_mean(models, tmp_path, kind):
    folder = shutil.copytree(models / kind, tmp_path / kind)
    versions = yaml.safe_load((folder / "versions.yaml").read_text())
    assert versions["attvec"] == code_version()
    assert versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]  # builds differ: +cpu, +cu130
    model = load(folder)
    with pytest.raises(InputError, match="backend has no chain with `center`; run steps/train_backend.sh"):
        _ = model.mean
    (folder / "backend/copies").mkdir(parents=True)
    write_vector(folder / "backend/copies/mean.vec", np.zeros(model.dim, np.float32))
    (folder / "backend/copies/chain").write_text("copies center cosine\n")
    with pytest.raises(InputError, match="backend has no chain with `center`"):
        _ = model.mean  # the mean of other embeddings
    for mean in (np.arange(model.dim, dtype=np.float32), np.ones(model.dim + 1, np.float32)):
        (folder / "backend/plda").mkdir(exist_ok=True)
        write_vector(folder / "backend/plda/mean.vec", mean)
        (folder / "backend/plda/chain").write_text("center lda5 length plda\n")
        if len(mean) == model.dim:
            assert (model.mean == mean).all()
    with pytest.raises(InputError, match=f"mean.vec has {model.dim + 1} values, an embedding of .* {model.dim}; train"):
        _ = model.mean


def test_folders_that_say_too_little_are_refused(models, data, tmp_path):
    with pytest.raises(InputError, match="no trained system: neither model.safetensors nor final.ie; name the folder"):
        load(tmp_path)
    stored = read_matrix((data / "feats.scp").read_text().split()[1])
    folder = shutil.copytree(models / "ivector", tmp_path / "ivector")
    (folder / "vad.conf").unlink()
    with pytest.raises(InputError, match="uses voice activity but does not state its options"):
        load(folder).embed_features(stored)
    (folder / "feats.conf").unlink()
    with pytest.raises(InputError, match="does not state its feature options, so features cannot be computed"):
        load(folder).embed("a.wav")
    with pytest.raises(InputError, match="does not state its feature options, so features cannot be computed"):
        listen(load(folder), ["a.wav"])
    folder = shutil.copytree(models / "network", tmp_path / "network")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for change, message in (({"low-freq": None}, "features: low-freq: expected a number"),
                            ({"num-ceps": 20}, "feature options give 20 values per frame, the features have 24"),
                            ({"snip": 1}, "features: snip is 1, wanted no such option; train the model again"),
                            ({"feature-type": "x"}, "features: feature-type is 'x', wanted mfcc or fbank")):
        changed = config | {"feature_options": config["feature_options"] | change}
        (folder / "config.yaml").write_text(yaml.safe_dump(changed))
        with pytest.raises(InputError, match=message):
            load(folder)
    del config["feature_options"]["low-freq"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="features: low-freq is missing, wanted 20.0; train the model again"):
        load(folder)


@pytest.mark.parametrize("pooling", ["multi_head", "channel_attentive_statistics"])
def test_attention_over_a_recording_is_that_over_its_features(data, tmp_path, pooling):
    """As the report draws it, from a data directory with voice activity; unvoiced frames have no weight."""
    vad = vad_written_out(read_vad_options(data / "vad.conf"))
    exp = write_untrained(tmp_path / "exp", features="mfcc24", pooling={"type": pooling}, vad_options=vad,
                          frontend={"vad": True, "deltas": 1, "cmn": "sliding", "cmn_window": 60})
    model, (name, path) = load(exp), (data / "wav.scp").read_text().splitlines()[0].split()
    found = attention_of(model, read_audio(path).samples)
    network, config = load_network(exp)
    wanted = attend(network, config, exp, data, name)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-3)
    assert (found.frames == wanted.frames).all()
    np.testing.assert_allclose(found.weights.sum(axis=0), 1, atol=1e-5)
    sound = 1000 * np.random.default_rng(0).normal(size=16000).astype(np.float32)
    half = attention_of(model, np.concatenate([sound, 1e-3 * sound])).over_time()
    assert half.shape[0] == 200 and half[:95].all() and not half[110:].any()
    assert attention_of(model, sound[:1000]) is None  # too short


def test_systems_without_weights_have_no_attention(models):
    for kind in KINDS:
        assert attention_of(load(models / kind), np.ones(16000, np.float32)) is None
