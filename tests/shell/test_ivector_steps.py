"""The i-vector chain's steps on made-up features: any number of jobs, kills, Kaldi's posteriors, awkward data."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from steps.ivector.alignments import iterate_alignments
from steps.ivector.extractor import read_extractor
from steps.ivector.gmm_files import read_full
from utils.ark import ArkWriter, iterate

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"kind": "ivector", "features": "made-up",
          "ubm": {"num_gaussians": 8, "split_iterations": 4, "num_gselect": 4},
          "extractor": {"dim": 6, "iterations": 3, "parts": 5}}


def call(script, *words, **variables):
    return subprocess.run(["bash", str(ROOT / "steps" / script), *map(str, words)], capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL, env={**os.environ, **variables})


def succeed(script, *words):
    done = call(script, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data directory of 10 speakers with 4 utterances each, its configuration, and a trained UBM."""
    folder = tmp_path_factory.mktemp("ivector")
    data, rng = folder / "data", np.random.default_rng(0)
    data.mkdir()
    ids, lengths, means = [], [], 3 * rng.normal(size=(8, 5))
    with ArkWriter(data / "feats") as writer:
        for speaker in range(10):
            moved = means + rng.normal(size=(8, 5))
            for utterance in range(4):
                length = int(rng.integers(150, 400))
                ids.append(f"s{speaker}-u{utterance}")
                lengths.append(length)
                writer.write(ids[-1], moved[rng.integers(8, size=length)] + rng.normal(size=(length, 5)))
    (data / "utt2num_frames").write_text("".join(f"{u} {n}\n" for u, n in zip(ids, lengths, strict=True)))
    (data / "utt2spk").write_text("".join(f"{u} {u[:2]}\n" for u in ids))
    (data / "spk2utt").write_text("".join(f"s{s} {' '.join(u for u in ids if u[:2] == f's{s}')}\n" for s in range(10)))
    (folder / "system.yaml").write_text(yaml.safe_dump(CONFIG))
    succeed("train_ubm.sh", folder / "system.yaml", data, folder / "ubm")
    return folder


def train(made, exp, *options, config="system.yaml"):
    return succeed("train_ivector_extractor.sh", *options, made / config, made / "data", made / "ubm", exp)


@pytest.fixture(scope="module")
def trained(made):
    train(made, made / "exp")
    shutil.copy(made / "system.yaml", made / "exp")
    return made / "exp"


def test_any_number_of_jobs_gives_the_same_model(made, trained, tmp_path):
    train(made, tmp_path / "exp", "--nj", 3)
    assert (tmp_path / "exp/final.ie").read_bytes() == (trained / "final.ie").read_bytes()
    assert (tmp_path / "exp/final.ubm").read_bytes() == (made / "ubm/final.ubm").read_bytes()
    assert not (tmp_path / "exp/unfinished").exists()
    for nj in (1, 4):
        succeed("extract_ivectors.sh", "--nj", nj, trained, made / "data", tmp_path / f"vectors{nj}")
    for (name, one), (other, four) in zip(iterate(tmp_path / "vectors1/ivector.scp"),
                                          iterate(tmp_path / "vectors4/ivector.scp"), strict=True):
        assert name == other
        np.testing.assert_array_equal(one, four)


@pytest.mark.parametrize(("script", "nj", "sign"), [
    ("train_ubm.sh", None, "diagonal.safetensors"), ("train_ivector_extractor.sh", 1, "1.safetensors"),
    ("train_ivector_extractor.sh", 2, "2.part1.safetensors")])
def test_a_killed_training_goes_on_and_ends_with_the_same_bits(made, trained, tmp_path, script, nj, sign):
    """Kill -9 of the whole process group as soon as `sign` is there."""
    exp = tmp_path / "exp"
    words = [made / "system.yaml", made / "data", *([made / "ubm"] if nj else []), exp]
    options = ["--nj", str(nj)] if nj else []
    step = subprocess.Popen(["bash", str(ROOT / "steps" / script), *options, *map(str, words)], start_new_session=True,
                            stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (exp / "unfinished" / sign).is_file():
        assert step.poll() is None, "the step ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(step.pid, signal.SIGKILL)
    step.wait()
    assert not (exp / ".done").exists()
    done = succeed(script, *options, *words)
    assert "going on where a run was stopped" in done.stderr
    expected = trained if nj else made / "ubm"
    for name in ("final.ie", "final.ubm") if nj else ("final.dubm", "final.ubm"):
        assert (exp / name).read_bytes() == (expected / name).read_bytes()


def test_unfinished_work_with_other_options_is_not_taken_up(made, trained, tmp_path):
    exp = tmp_path / "exp"
    (exp / "unfinished").mkdir(parents=True)
    (exp / "unfinished/.begun").write_text("another digest\n")
    (exp / "unfinished/2.safetensors").write_text("of another model")
    train(made, exp)
    assert (exp / "final.ie").read_bytes() == (trained / "final.ie").read_bytes()


def test_posteriors_from_files_give_the_same_model(made, trained, tmp_path):
    """What a chain that starts in Kaldi would do; text and binary."""
    for text in ("false", "true"):
        post = tmp_path / f"post-{text}"
        succeed("make_posteriors.sh", "--nj", 2, "--text", text, made / "system.yaml", made / "ubm", made / "data",
                post)
        options = ("--posteriors", post / "post.scp")
        train(made, tmp_path / text, *options)
        found, expected = read_extractor(tmp_path / text / "final.ie"), read_extractor(trained / "final.ie")
        assert (found.m - expected.m).abs().max() < 1e-3 * expected.m.abs().max()
        selected = dict(iterate_alignments(post / "gselect.scp", gselect=True))
        assert all((found.sizes == 4).all() for found in selected.values())
        shutil.copy(made / "system.yaml", tmp_path / text)
        succeed("extract_ivectors.sh", *options, tmp_path / text, made / "data", tmp_path / text / "vectors")
        succeed("extract_ivectors.sh", tmp_path / text, made / "data", tmp_path / text / "again")
        for (_, one), (_, other) in zip(iterate(tmp_path / text / "vectors/ivector.scp"),
                                        iterate(tmp_path / text / "again/ivector.scp"), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)


def test_posteriors_that_do_not_fit_are_errors(made, tmp_path):
    post = tmp_path / "post"
    succeed("make_posteriors.sh", made / "system.yaml", made / "ubm", made / "data", post)
    lines = (post / "post.scp").read_text().splitlines(keepends=True)
    (post / "fewer.scp").write_text("".join(lines[1:]))
    call_of = [made / "system.yaml", made / "data", made / "ubm", tmp_path / "exp"]
    done = call("train_ivector_extractor.sh", "--posteriors", post / "fewer.scp", *call_of)
    assert done.returncode == 1
    assert "s0-u1 where" in done.stderr
    config = {**CONFIG, "extractor": {**CONFIG["extractor"], "update_ubm": True}}
    (tmp_path / "update.yaml").write_text(yaml.safe_dump(config))
    done = call("train_ivector_extractor.sh", "--posteriors", post / "post.scp", tmp_path / "update.yaml", *call_of[1:])
    assert done.returncode == 1
    assert "update_ubm" in done.stderr


def test_the_ubm_follows_the_model_when_asked(made, tmp_path):
    config = {**CONFIG, "extractor": {**CONFIG["extractor"], "update_ubm": True}}
    (made / "update.yaml").write_text(yaml.safe_dump(config))
    train(made, tmp_path / "one", config="update.yaml")
    train(made, tmp_path / "jobs", "--nj", 2, config="update.yaml")
    model, ubm, old = (read_extractor(tmp_path / "one/final.ie"), read_full(tmp_path / "one/final.ubm"),
                       read_full(made / "ubm/final.ubm"))
    assert (model.m[:, :, 0] * model.offset - ubm.means).abs().max() < 1e-4
    assert (old.means - ubm.means).abs().max() > 1e-3
    assert (tmp_path / "one/final.ie").read_bytes() == (tmp_path / "jobs/final.ie").read_bytes()
    assert (tmp_path / "one/final.ubm").read_bytes() == (tmp_path / "jobs/final.ubm").read_bytes()


def test_frames_of_another_dimension_are_an_error(made, trained, tmp_path):
    shutil.copytree(made / "data", tmp_path / "data")
    with ArkWriter(tmp_path / "data/feats") as writer:
        for name, x in iterate(made / "data/feats.scp"):
            writer.write(name, x[:, :3])
    done = call("extract_ivectors.sh", trained, tmp_path / "data", tmp_path / "out")
    assert done.returncode == 1
    assert "3 values a frame, the UBM has 5" in done.stderr
    assert not (tmp_path / "out/ivector.scp").exists()
