"""Training on waveforms: chunks against the stored features, repeatability, and refused data."""

import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from made_up import CONFIG
from made_up_audio import RATE, sound, write_corpus
from safetensors.torch import load_file

from nnet.config import network_config
from nnet.frontends.kaldi import KaldiFrontend, frontend_of_batch
from nnet.training.data import TrainingSet
from nnet.training.masks import mask
from nnet.training.train import Trainer
from nnet.training.workers import worker_batches
from nnet.utterances import AudioUtterances
from tests.in_process import call
from utils.audio import Recording, change_speed, exact_speed, read_audio
from utils.errors import InputError
from utils.features.augment import KINDS
from utils.features.frontend import FrontendOptions, apply_frontend
from utils.features.model_features import kept_options

ONLINE = {"kinds": [kind for kind in KINDS if kind != "music"], "share": 0.7}
CPU = torch.device("cpu")


def config(**changes):
    train = CONFIG["train"] | {"epochs": 2, "chunk_frames": 40} | changes.pop("train", {})
    return CONFIG | {"online": ONLINE, "train": train} | changes


@pytest.fixture(scope="module", params=[True, False], ids=["snip", "mirror"])
def data(request, tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "train", 4, 4, request.param)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return write_corpus(folder / "train", 6, 4, False), write_corpus(folder / "valid", 3, 3, False, first=6)


def open_set(folder, options, rank=0, count=1):
    return TrainingSet(folder, network_config(options, "x"), 1, rank, count)


def frames_of(data, options, batch):
    """The encoder's input for a batch of audio."""
    given = kept_options(data, vad=False)
    frontend = KaldiFrontend(network_config(options, "x").frontend, given, given.features["num-mel-bins"])
    frames = frontend.chunks(batch.x)
    return frames if batch.spans is None else mask(frames, batch.spans)


@pytest.mark.parametrize("frontend", [{}, {"cmn": "chunk", "norm_vars": True}])
def test_unchanged_chunks_have_the_stored_features(data, frontend):
    """All utterances of a few epochs, at all speeds, except those that are repeated."""
    options = config(online=ONLINE | {"share": 0.0}, frontend=frontend,
                     train={"chunk_frames": 35, "batch_size": 6, "mask_frames": 0, "mask_bands": 0})
    online, stored = open_set(data, options), open_set(data, options | {"online": None})
    assert isinstance(online.utterances, AudioUtterances)
    assert set(online.utterances.speeds.tolist()) == {1, np.float32(0.9), np.float32(1.1)}
    compared = 0
    for step in range(4 * online.steps_per_epoch):
        ours, (theirs, their_labels, spans) = online.batch(step), stored.batch(step)
        frames, theirs = frames_of(data, options, ours).numpy(), theirs.numpy()
        assert torch.equal(ours.labels, their_labels)
        assert spans is ours.spans is None
        long = stored.utterances.rows.num_rows[stored.chosen(step)] >= 35
        compared += long.sum()
        assert np.abs(frames - theirs)[long].max() < 0.02
        assert np.quantile(np.abs(frames - theirs)[long], 0.99) < 2e-3
        assert frames.shape == theirs.shape
    assert compared > 60


def test_the_copies_of_a_speaker_have_its_voice(data):
    found = open_set(data, config())
    assert len(found.speakers) == 12 and len(np.unique(found.voices)) == 4
    for name, voice in zip(found.utterances.rows.ids, found.voices, strict=True):
        assert f"s{voice}-" in name


@pytest.mark.parametrize("speed", ["0.5", "0.83", "0.9", "0.985", "1.1", "1.7"])
def test_a_part_at_another_speed_is_that_part_of_the_whole(data, tmp_path, speed):
    soundfile.write(tmp_path / "a.wav", sound(0, 2), RATE)
    recording, found = Recording(tmp_path / "a.wav"), open_set(data, config())
    exact, whole = exact_speed(float(np.float32(speed))), change_speed(recording[:], float(speed))
    assert len(whole) == math.ceil(len(recording) / exact)
    for start, stop in ((0, 7000), (1, 400), (4321, 9999), (len(whole) - 3000, len(whole))):
        part = found.utterances._read(recording, exact, start, stop)
        np.testing.assert_allclose(part, whole[start:stop], atol=0.01)  # of 32768


def test_a_short_utterance_is_repeated(data):
    options = config(online=ONLINE | {"share": 0.0}, train={"chunk_frames": 100})
    found = open_set(data, options)
    batch = found.batch(0)
    x = batch.x.numpy()
    recording = read_audio(found.utterances.paths[int(found.chosen(0)[0])]).samples
    if found.utterances.speeds[int(found.chosen(0)[0])] == 1:
        np.testing.assert_array_equal(x[0][:len(recording)], recording)
        np.testing.assert_array_equal(x[0][len(recording):2 * len(recording)], recording[:len(x[0]) - len(recording)])
    assert frames_of(data, options, batch).shape == (8, 100, 10)


def test_batches_depend_on_seed_and_step_alone(corpus):
    first, second = (open_set(corpus[0], config()) for _ in range(2))
    for step in (5, 2):
        batch = first.batch(step)
        halves = [open_set(corpus[0], config(), rank, 2).batch(step) for rank in (0, 1)]
        for part, theirs, *parts in zip(batch, second.batch(step), *halves, strict=True):
            assert torch.equal(part, theirs)
            assert torch.equal(part, torch.cat(parts))
    assert (frames_of(corpus[0], config(), batch) == 0).any()  # masks
    clean = open_set(corpus[0], config(online=ONLINE | {"share": 0.0}))
    changed = [(first.batch(step).x - clean.batch(step).x).abs().amax(dim=1).numpy() > 0 for step in range(20)]
    assert 0.6 < np.mean(changed) < 0.8


def test_a_killed_run_ends_with_the_same_bits(corpus, tmp_path):
    torch.set_num_threads(1)

    def trainer(exp):
        return Trainer(network_config(config(train={"checkpoint_steps": 2}), "x"), *corpus, exp, CPU, seed=1)

    trainer(tmp_path / "whole").run()
    killed = trainer(tmp_path / "x")
    step = killed.train_step

    def train_step(number, batch):
        if number == 3:
            raise KeyboardInterrupt
        return step(number, batch)

    killed.train_step = train_step
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    trainer(tmp_path / "x").run()
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("x", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.long
def test_two_processes_train_as_one(corpus, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(
        head=CONFIG["head"] | {"dropout": 0.0}, optimizer={"type": "sgd", "lr": 0.0005},
        train={"precision": "fp32", "epochs": 3})))
    curves, words = [], ["--num-threads", "1", tmp_path / "config.yaml", *corpus]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for name in ("one", "two"):
        if name == "one":
            done = call("nnet.training.train", *words, tmp_path / name)
        else:
            done = subprocess.run([*torchrun, "nnet.training.train", *words, tmp_path / name], capture_output=True,
                                  text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = (tmp_path / name / "log/train.tsv").read_text().splitlines()[1:]
        curves.append([float(row.split("\t")[2]) for row in rows])
    np.testing.assert_allclose(curves[0], curves[1], atol=2e-4)


@pytest.mark.parametrize("frontend", [
    {}, {"cmn": "chunk"}, {"cmn": "utterance", "norm_vars": True}, {"cmn": "sliding", "cmn_window": 15},
    {"cmn": "sliding", "cmn_window": 15, "norm_vars": True}, {"cmn": "sliding", "norm_vars": True},
    {"deltas": 2, "cmn": "utterance", "norm_vars": True}, {"deltas": 1, "delta_window": 3}])
def test_the_front_end_of_a_batch_is_that_of_each_chunk(frontend):
    options = FrontendOptions(**frontend)
    x = (5 + 3 * np.random.default_rng(0).standard_normal((3, 50, 7))).astype(np.float32)
    ours = frontend_of_batch(torch.from_numpy(x), options).numpy()
    for row in range(3):
        np.testing.assert_allclose(ours[row], apply_frontend(x[row], None, options), atol=2e-5)


def test_a_recording_gives_the_samples_of_the_whole_file(tmp_path):
    for name, rate, channels, subtype in (("a.wav", RATE, 1, "PCM_16"), ("b.flac", RATE, 1, "PCM_16"),
                                          ("c.wav", RATE, 2, "FLOAT"), ("d.wav", 8000, 1, "PCM_16"),
                                          ("e.ogg", RATE, 1, None)):
        samples = np.stack([sound(row, 1.0) for row in range(channels)], axis=1)
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
        whole, recording = read_audio(tmp_path / name).samples, Recording(tmp_path / name)
        assert len(recording) == len(whole)
        for part in (slice(None), slice(0, 1), slice(4001, 9999), slice(-5, None), slice(15000, 99999)):
            np.testing.assert_array_equal(recording[part], whole[part])


def test_damaged_recordings_end_in_one_line(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, sound(0, 2), RATE)
    path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2])
    with pytest.raises(InputError, match=r"a\.flac: (truncated|damaged)"):
        Recording(path)[20000:32000]
    (tmp_path / "b.wav").write_bytes(b"RIFF and nothing else")
    for name, message in (("b.wav", "not audio"), ("c.wav", "No such file"), ("cat x |", "is a command")):
        with pytest.raises(InputError, match=message):
            Recording(name if name.endswith("|") else tmp_path / name)


def lines_changed(path, change):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(lines)))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda d: (d / "wav.scp").unlink(), "wav.scp is missing; it names the audio to read"),
    (lambda d: lines_changed(d / "wav.scp", lambda lines: lines[1:]), "wav.scp and feats.scp list different"),
    (lambda d: lines_changed(d / "utt2speed", lambda lines: [*lines, "zz 1\n"]), "utt2speed and feats.scp list"),
    (lambda d: lines_changed(d / "utt2speed", lambda lines: [*lines[:-1], "sp1.1-s1-u0 fast\n"]),
     "'fast' is not a speed"),
    (lambda d: (d / "feats.conf").unlink(), "has no feats.conf"),
    (lambda d: (d / "feats.conf").write_text("--feature-type=fbank\n--num-mel-bins=12\n"), "feats.conf gives 12"),
    (lambda d: (d / "utt2augment").write_text("x {}\n"), "has utt2augment: its copies are changed in a way"),
])
def test_bad_data_directories_are_refused(tmp_path, damage, message):
    folder = write_corpus(tmp_path / "data", 2, 2, False)
    damage(folder)
    with pytest.raises(InputError, match=message):
        open_set(folder, config(train={"batch_size": 2}))


@pytest.mark.parametrize(("change", "message"), [
    ({"online": {"kinds": ["music"]}}, "music needs MUSAN"),
    ({"online": {"kinds": ["nose"]}}, "online: kinds: 'nose' is not one of noise, music"),
    ({"online": {"kinds": []}}, "online: kinds is empty; wanted one kind or more"),
    ({"online": {"kinds": ["noise"], "share": 2}}, "online: share is 2; wanted at least 0 and at most 1"),
    ({"frontend": {"vad": True}}, "vad"),
    ({"train": {"shuffle_mb": 1}}, "online: frontend.vad and train.shuffle_mb are for stored features"),
])
def test_bad_configurations_are_refused(corpus, change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        open_set(corpus[0], config(**change))


def test_audio_of_another_length_than_its_features_is_refused(tmp_path):
    folder = write_corpus(tmp_path / "data", 2, 2, False)
    soundfile.write(folder / "a s0 0.wav", sound(0, 0.2), RATE)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config(train={"batch_size": 2})))
    done = call("nnet.training.train", tmp_path / "config.yaml", folder, folder, tmp_path / "exp")
    assert done.returncode == 1
    assert re.search(r"s0-u0: .*a s0 0\.wav gives \d+ frames, its features have \d+; make the features again",
                     done.stderr.splitlines()[-1])


def test_corpora_of_noise_are_taken_from_the_command_line(corpus, tmp_path):
    for name, seconds in (("musan/noise/a", 3), ("musan/music/b", 3), ("rirs/simulated_rirs/c", 0.1)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"{name}.wav", sound(1, seconds), RATE)
    options = network_config(config(online={"kinds": list(KINDS), "share": 1.0}), "x")
    found = TrainingSet(corpus[0], options, 1, musan=tmp_path / "musan", rirs=tmp_path / "rirs")
    sources = found.augmentation.sources
    assert [len(sources.noise), len(sources.music), len(sources.responses)] == [1, 1, 1]
    assert found.batch(0).x.isfinite().all()
    with pytest.raises(InputError, match="name the unpacked corpus"):
        TrainingSet(corpus[0], options, 1, musan=tmp_path / "nothing")


def test_worker_processes_make_the_same_batches(corpus):
    data = open_set(corpus[0], config(train={"mask_frames": 5}))
    found = list(worker_batches(data.batch, range(2, 7), 2))
    assert len(found) == 5
    for step, batch in enumerate(found, start=2):
        for part, expected in zip(batch, data.batch(step), strict=True):
            assert torch.equal(part, expected)


def test_an_error_in_a_worker_is_one_line(tmp_path):
    folder = write_corpus(tmp_path / "data", 2, 2, False)
    data = open_set(folder, config(train={"batch_size": 4}))
    (folder / "a s0 0.wav").unlink()
    with pytest.raises(InputError, match=r"^\S.*a s0 0\.wav: No such file or directory; copy it again .*$"):
        list(worker_batches(data.batch, range(4), 2))


ENDS = """
import multiprocessing, os, signal, sys, time
import torch
from nnet.training.batch import Batch
from nnet.training.data import batches_ahead

class Data:
    workers = 2
    def batch(self, step):
        time.sleep(0.01)
        return Batch(torch.full((2, 3), float(step)), torch.zeros(2), None)

source = iter(batches_ahead(Data(), 0, 10**6, torch.device("cpu")))
for step in range(3):
    assert next(source)[0] == step
workers = multiprocessing.active_children()
print(*(worker.pid for worker in workers), flush=True)
for worker in workers:  # as a queue sends its signals to all of a job
    os.kill(worker.pid, signal.SIGTERM)
for step in range(3, 40):
    assert next(source)[1].x[0, 0] == step
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
raise SystemExit(9)
"""


@pytest.mark.parametrize(("end", "code"), [("stopped", 9), ("killed", -9)])
def test_workers_outlive_signals_and_end_with_the_training(end, code):
    done = subprocess.run([sys.executable, "-c", ENDS, end], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (code, "")
    workers = [int(word) for word in done.stdout.split()]
    assert len(workers) == 2
    until = time.monotonic() + (20 if end == "killed" else 0)  # PyTorch's workers look for their parent every 5 s
    while (left := [pid for pid in workers if Path(f"/proc/{pid}/cmdline").exists()
                    and Path(f"/proc/{pid}/cmdline").read_bytes()]) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left
