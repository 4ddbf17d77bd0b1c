"""Training, resuming and extraction on small synthetic features."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from made_up import CONFIG, write_data
from safetensors.torch import load_file

from nnet.config import InitOptions, network_config, training_part
from nnet.device import has_bf16
from nnet.embed import embed_batch, embed_utterances, load_network
from nnet.training.data import TrainingSet, batches_ahead
from nnet.training.optimizers import learning_rate
from nnet.training.train import Trainer
from nnet.training.validation import Validation
from nnet.utterances import StoredUtterances
from tests.in_process import call
from utils.errors import InputError
from utils.kaldi.ark import ArkWriter, RowReader, iterate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder, write_data(folder / "train", 6, 10, 0), write_data(folder / "valid", 3, 6, 1, trials=True)


def command(corpus, exp, config=None, seed=1):
    folder, train, valid = corpus
    return [sys.executable, "-m", "nnet.training.train", "--seed", str(seed), "--num-threads", "1",
            str(config or folder / "config.yaml"), str(train), str(valid), str(exp)]


def train(corpus, exp, **options):
    return call("nnet.training.train", *command(corpus, exp, **options)[3:])


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    exp = tmp_path_factory.mktemp("exp") / "x"
    done = subprocess.run(["python3", *command(corpus, exp)[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return exp


def test_training_learns_and_leaves_a_complete_model(trained):
    assert {path.name for path in trained.iterdir()} == {
        "model.safetensors", "config.yaml", "versions.yaml", "speakers", "train_seconds", "log"}
    rows = [line.split("\t") for line in (trained / "log/train.tsv").read_text().splitlines()]
    assert rows[0][:3] == ["epoch", "step", "loss"]
    assert len(rows) == 9
    accuracy = rows[0].index("accuracy")
    assert float(rows[-1][accuracy]) > 0.35  # chance: 0.17
    assert (trained / "speakers").read_text().split() == [f"s{i}" for i in range(6)]
    assert yaml.safe_load((trained / "config.yaml").read_text())["speakers"] == 6


def test_the_same_seed_gives_the_same_bits_and_another_does_not(corpus, trained, tmp_path):
    assert train(corpus, tmp_path / "again").returncode == 0
    assert (tmp_path / "again/model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert train(corpus, tmp_path / "other", seed=2).returncode == 0
    assert (tmp_path / "other/model.safetensors").read_bytes() != (trained / "model.safetensors").read_bytes()


@pytest.mark.long
def test_a_run_killed_within_epochs_ends_with_the_same_bits_and_log(corpus, trained, tmp_path):
    exp = tmp_path / "x"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"train": CONFIG["train"] | {"checkpoint_steps": 1}}))
    checkpoint, resumed = exp / "checkpoint.safetensors", set()
    for _ in range(2):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen(command(corpus, exp, config=tmp_path / "config.yaml"), stderr=subprocess.PIPE)
        deadline = time.time() + 60
        while time.time() < deadline and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        resumed |= set(re.findall(rb"after step (\d+)", process.communicate()[1]))
        assert checkpoint.exists(), "ended before it could be killed"
        assert not (exp / "model.safetensors").exists(), "ended before it could be killed"
    done = train(corpus, exp, config=tmp_path / "config.yaml")
    assert done.returncode == 0, done.stderr
    assert "resuming after step" in done.stderr
    assert resumed, "was not resumed from a checkpoint"
    assert (exp / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    ours, theirs = ([line.split("\t")[:6] for line in (folder / "log/train.tsv").read_text().splitlines()]
                    for folder in (exp, trained))
    assert ours == theirs  # all columns except times


def test_early_stopping_holds_through_a_resume(corpus, tmp_path):
    """The run ends `patience` epochs after the best one, even if it was killed right after the last of them."""
    config = network_config(CONFIG | {"train": CONFIG["train"] | {"patience": 2, "keep": "best"}}, "x")
    trainer = Trainer(config, corpus[1], corpus[2], tmp_path / "x", CPU, seed=1)
    eers = iter([9.0, 8.0, 8.5, 8.0, 7.0])
    best = {}

    def eer(network, device):
        value = next(eers)
        if value == 8.0 and not best:
            best.update({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return value

    trainer.validation.eer = eer
    trainer.finish = lambda: None  # killed
    trainer.run()
    again = Trainer(config, corpus[1], corpus[2], tmp_path / "x", CPU, seed=1)
    again.run()
    assert len((tmp_path / "x/log/train.tsv").read_text().splitlines()) == 1 + 4
    model = load_file(tmp_path / "x/model.safetensors")
    assert all(torch.equal(model[name], best[name]) for name in best)


def test_the_back_end_is_no_part_of_what_training_depends_on():
    config = network_config(CONFIG, "x")
    assert training_part(network_config(CONFIG | {"backend": {"lda_dim": 3}}, "x")) == training_part(config)
    assert "distil" not in training_part(config)  # of models that were trained before it existed
    other = training_part(network_config(CONFIG | {"pooling": {"type": "temporal"}}, "x"))
    assert other != training_part(config)
    assert network_config(training_part(config), "x") == config  # as YAML writes and reads it


@pytest.mark.parametrize(("line", "message"), [
    ("s0-u0 s9-u9 target\n", "1 ids are not in utt2spk: s9-u9"),
    ("s0-u0 s1-u1 different\n", "trials/valid:1: label 'different'"),
    ("s0-u0 s0-u1 target\r\n", "trials/valid:1: carriage return"),
])
def test_bad_validation_trials_are_named(corpus, tmp_path, line, message):
    bad = write_data(tmp_path / "bad", 2, 3, 1, trials=True)
    (bad / "trials/valid").write_text(line, newline="")
    with pytest.raises(InputError, match=message):
        Validation(bad, network_config(CONFIG, "x"))


def start_and_save(corpus, exp, seed):
    """Save the checkpoint of a training run that has just started; return its path."""
    exp.mkdir()
    trainer = Trainer(network_config(CONFIG, "x"), corpus[1], corpus[2], exp, CPU, seed)
    trainer.save()
    return trainer.checkpoint


def test_a_checkpoint_of_another_run_is_refused(corpus, tmp_path):
    start_and_save(corpus, tmp_path / "x", seed=2)
    done = train(corpus, tmp_path / "x", seed=1)
    assert done.returncode == 1
    assert "is for another configuration, data or seed; delete it" in done.stderr


def test_a_damaged_checkpoint_is_thrown_away(corpus, trained, tmp_path):
    """One bit of one weight: without the checksum, training would continue to a different model."""
    path = start_and_save(corpus, tmp_path / "x", seed=1)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 16
    path.write_bytes(content)
    done = train(corpus, tmp_path / "x", seed=1)
    assert done.returncode == 0, done.stderr
    assert "was damaged and has been removed: its checksum is wrong" in done.stderr
    assert (tmp_path / "x/model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_batched_extraction_equals_one_by_one(corpus, trained):
    network, config = load_network(trained)
    data = StoredUtterances(corpus[1], config)
    batched = dict(embed_utterances(network, data, range(len(data.rows)), CPU, 500))
    assert list(batched) == list(range(60))
    for index, vector in batched.items():
        alone = embed_batch(network, [data.whole(index)], CPU)[0]
        np.testing.assert_allclose(vector, alone, atol=1e-5, rtol=1e-5)


def test_long_and_short_utterances(corpus, trained, capsys):
    network, config = load_network(trained)
    data = StoredUtterances(corpus[1], config)
    whole = data.whole(0)
    cut = dict(embed_utterances(network, data, range(1), CPU, 500, max_frames=len(whole) // 2 + 1))
    halves = [embed_batch(network, [half], CPU)[0] for half in np.array_split(whole, 2)]
    np.testing.assert_allclose(cut[0], np.mean(halves, axis=0), atol=1e-5)
    sees = network.encoder.receptive_field
    data.whole = lambda index: whole[:sees + 1]  # two pieces would be shorter than what the encoder sees
    cut = dict(embed_utterances(network, data, range(1), CPU, 500, max_frames=sees))
    np.testing.assert_allclose(cut[0], embed_batch(network, [whole[:sees + 1]], CPU)[0], atol=1e-5)
    data.whole = lambda index: whole[:5]
    assert np.isfinite(dict(embed_utterances(network, data, range(1), CPU, 500))[0]).all()
    assert "1 utterances are shorter than the 15 frames" in capsys.readouterr().err


def test_extraction_jobs_write_kaldi_vectors(corpus, trained, tmp_path):
    for job in (1, 2):
        done = call("steps.network.extract", "--job", job, "--nj", 2, trained, corpus[1], tmp_path)
        assert done.returncode == 0, done.stderr
    done = call("steps.network.extract", "--max-frames", 14, trained, corpus[1], tmp_path)
    assert done.returncode == 1 and "--max-frames is 14; wanted no fewer than the 15 frames" in done.stderr
    found = [(name, vector.shape) for job in (1, 2) for name, vector in iterate(tmp_path / f"xvector.{job}.scp")]
    assert {shape for _, shape in found} == {(12,)}
    assert [name for name, _ in found] == list(StoredUtterances(corpus[1], network_config(CONFIG, "x")).rows.ids)


def test_chunks_are_frames_of_the_utterance_and_batches_depend_on_seed_and_step_alone(corpus):
    config = network_config(CONFIG | {"frontend": {}}, "x")
    data = StoredUtterances(corpus[1], config)
    whole = data.whole(3)
    chunk = data.chunk(3, 20, np.random.default_rng(0))
    assert any(np.array_equal(chunk, whole[start:start + 20]) for start in range(len(whole) - 19))
    repeated = data.chunk(3, len(whole) + 7, np.random.default_rng(0))
    np.testing.assert_array_equal(repeated[len(whole):], whole[:7])
    first, second = (TrainingSet(corpus[1], config, seed=5) for _ in range(2))
    for step in (9, 2):
        for ours, theirs in zip(first.batch(step), second.batch(step), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    epoch = np.concatenate([first.batch(step)[1] for step in range(first.steps_per_epoch)])
    assert np.bincount(epoch).max() <= 10  # no utterance twice in an epoch
    tuned = TrainingSet(corpus[1], replace(config, init=InitOptions("x")), seed=5)  # draws other batches than its model
    assert any((tuned.batch(step).labels != first.batch(step).labels).any() for step in range(3))


@pytest.mark.parametrize("frontend", [{"cmn": "utterance", "norm_vars": True}, {"deltas": 1, "cmn": "utterance"}])
def test_chunks_of_a_normalised_utterance_are_parts_of_it(corpus, frontend):
    """With cmn: chunk, each is normalised on its own instead."""
    data = StoredUtterances(corpus[1], network_config(CONFIG | {"frontend": frontend}, "x"))
    alone = StoredUtterances(corpus[1], network_config(CONFIG | {"frontend": frontend | {"cmn": "chunk"}}, "x"))
    for index in range(4):
        whole = data.whole(index)
        chunk = data.chunk(index, 20, np.random.default_rng(index))
        assert any(np.allclose(whole[place:place + 20], chunk, atol=1e-5) for place in range(len(whole) - 19))
        for part in data.segments(index, 15, 3):
            assert any(np.allclose(whole[place:place + 15], part, atol=1e-5) for place in range(len(whole) - 14))
        own = alone.chunk(index, 20, np.random.default_rng(index))
        np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-5)
        assert np.abs(chunk.mean(axis=0)).max() > 0.01


def test_chunks_of_voiced_frames(corpus, tmp_path):
    data = shutil.copytree(corpus[1], tmp_path / "data")
    config = network_config(CONFIG | {"frontend": {"vad": True}}, "x")
    rows = RowReader(data / "feats.scp")
    with ArkWriter(data / "vad") as writer:
        for index, name in enumerate(rows.ids):
            writer.write(name, np.arange(rows.num_rows[index]) % 3 != 0)
    found = StoredUtterances(data, config)
    stored = rows.read(4)
    voiced = stored[np.arange(len(stored)) % 3 != 0]
    np.testing.assert_array_equal(found.whole(4), voiced)
    chunk = found.chunk(4, 10, np.random.default_rng(0))
    assert any(np.array_equal(chunk, voiced[start:start + 10]) for start in range(len(voiced) - 9))
    lines = (data / "vad.scp").read_text().splitlines(keepends=True)
    (data / "vad.scp").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"vad\.scp and feats\.scp list different utterances"):
        StoredUtterances(data, config)
    shutil.copy(data / "feats.scp", data / "vad.scp")
    with pytest.raises(InputError, match="no binary vector for s0-u0"):
        StoredUtterances(data, config).whole(0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_come_ahead_and_pinned_for_a_gpu(corpus, device, monkeypatch):
    """Only batches for a GPU, whose copies are asynchronous, are in pinned memory (simulated: no GPU here)."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    data = TrainingSet(corpus[1], network_config(CONFIG, "x"), seed=1)
    found = list(batches_ahead(data, 3, 6, torch.device(device)))
    assert [step for step, _ in found] == [3, 4, 5]
    for step, batch in found:
        for tensor, wanted in zip(batch, data.batch(step), strict=True):
            assert np.array_equal(tensor, wanted)
            assert any(tensor is other for other in pinned) == (device == "cuda")


@pytest.mark.parametrize(("change", "message"), [
    ({"train": CONFIG["train"] | {"chunk_frames": 10}}, "chunk_frames is 10, fewer than the 15 frames"),
    ({"optimizer": {"type": "sgd", "lr": 1e30}, "schedule": {}}, "the loss at step .* is nan, .* lower optimizer.lr"),
    ({"frontend": {"vad": True}}, "vad.scp"),
    ({"train": CONFIG["train"] | {"epoch": 3}}, "train: unknown key 'epoch'"),
    ({"head": {"layers": [{"dim": 10**9}, {"dim": 10**9, "embedding": "affine"}]}}, "the network cannot be made: .*"),
])
def test_bad_configurations_end_in_one_line(corpus, tmp_path, change, message):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | change))
    done = train(corpus, tmp_path / "x", config=tmp_path / "config.yaml")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nnet.training.train: error: ")
    assert re.search(message, last)
    assert not (tmp_path / "x/model.safetensors").exists()


def test_one_speaker_is_an_error(corpus, tmp_path):
    alone = write_data(tmp_path / "alone", 1, 10, 0)
    with pytest.raises(InputError, match="1 speaker: a network learns to tell 2 or more apart"):
        TrainingSet(alone, network_config(CONFIG, "x"), seed=1)


def test_learning_rate_schedules():
    schedule = network_config(CONFIG, "x").schedule
    rates = [learning_rate(schedule, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 3, abs=0.01)
    assert max(rates) == rates[2]
    assert rates[-1] < 0.01
    assert all(later < earlier for earlier, later in zip(rates[2:], rates[3:], strict=False))


def test_weights_are_plain_tensors(trained):
    weights = load_file(trained / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert os.path.getsize(trained / "model.safetensors") < 100_000


@pytest.mark.parametrize(("flags", "expected"), [
    ("flags\t\t: fpu avx2 fma", False), ("flags\t\t: avx512f avx512_bf16 amx_tile", True),
    ("flags : avx512f amx_bf16", True), ("Features\t: fp asimd bf16", True), ("flags : avx512f avx512_bf16x", False)])
def test_bf16_is_for_processors_that_have_it(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert has_bf16(CPU, tmp_path / "cpuinfo") == expected
    assert not has_bf16(CPU, tmp_path / "nowhere")


def test_without_bf16_training_says_so_and_takes_fp32(corpus, tmp_path, monkeypatch, capsys):
    losses = {}
    for precision, has in (("bf16", False), ("bf16", True), ("fp32", True)):
        config = network_config({**CONFIG, "train": {**CONFIG["train"], "precision": precision}}, "test")
        monkeypatch.setattr("nnet.training.train.has_bf16", lambda device, has=has: has)
        trainer = Trainer(config, *corpus[1:], tmp_path / "exp", CPU, 1)
        assert ("fp32 is used" in capsys.readouterr().err) == (not has)
        trainer.model = trainer.network
        losses[precision, has] = float(trainer.train_step(0, trainer.data.batch(0))[0])
    assert losses["bf16", False] == losses["fp32", True] != losses["bf16", True]
