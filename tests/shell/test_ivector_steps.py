"""The i-vector chain's steps on synthetic features: any number of jobs, kills, Kaldi's posteriors, awkward data."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from steps.ivector.alignments import Alignment, iterate_alignments, write_gselect, write_posteriors
from steps.ivector.extractor import read_extractor
from steps.ivector.gmm_files import read_full
from utils.kaldi.ark import ArkWriter, iterate

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"kind": "ivector", "features": "made-up",
          "ubm": {"num_gaussians": 8, "split_iterations": 4, "diagonal_iterations": 1, "full_iterations": 1,
                  "num_gselect": 4, "parts": 5},
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


def test_ivectors_follow_the_configuration_and_voice_activity_from_elsewhere(made, trained, tmp_path):
    exp, data, out = tmp_path / "exp", tmp_path / "data", tmp_path / "vectors"
    shutil.copytree(trained, exp)
    shutil.copytree(made / "data", data)
    succeed("extract_ivectors.sh", exp, data, out)
    assert "up to date" in succeed("extract_ivectors.sh", exp, data, out).stderr
    changed = CONFIG | {"extractor": CONFIG["extractor"] | {"min_post": 0.5}}
    (exp / "system.yaml").write_text(yaml.safe_dump(changed))
    assert "before_backend.yaml changed" in succeed("extract_ivectors.sh", exp, data, out).stderr
    (exp / "system.yaml").write_text(yaml.safe_dump(changed | {"backend": ["center", "cosine"]}))
    assert "up to date" in succeed("extract_ivectors.sh", exp, data, out).stderr
    # The features are made here, and so are recorded, but the voice activity is not.
    lengths = map(str.split, (data / "utt2num_frames").read_text().splitlines())
    lengths = {name: int(length) for name, length in lengths}
    record = {"options": {}, "inputs": {}, "outputs": {}, "digest": "", "made": ""}
    (data / ".done").write_text(json.dumps(record))
    for voiced in (1, 0):
        with ArkWriter(data / "vad") as writer:
            for name, length in lengths.items():
                writer.write(name, np.array([1.0] * (length - 5) + [voiced] * 5, np.float32))
        said = succeed("extract_ivectors.sh", exp, data, out).stderr
    assert "vad.scp changed" in said


@pytest.mark.parametrize("damaged", [pytest.param(False, marks=pytest.mark.long), True])
@pytest.mark.parametrize(("script", "nj", "sign"), [
    ("train_ubm.sh", 1, "4.safetensors"), ("train_ivector_extractor.sh", 1, "1.safetensors"),
    pytest.param("train_ubm.sh", 2, "6.part1.safetensors", marks=pytest.mark.long),
    pytest.param("train_ivector_extractor.sh", 2, "2.part1.safetensors", marks=pytest.mark.long)])
def test_a_killed_training_goes_on_and_ends_with_the_same_bits(made, trained, tmp_path, script, nj, sign, damaged):
    """Kill -9 of the whole process group as soon as `sign` exists; damaged work is made again.

    The models expected are those of one job.
    """
    exp = tmp_path / "exp"
    extractor = script == "train_ivector_extractor.sh"
    words = [made / "system.yaml", made / "data", *([made / "ubm"] if extractor else []), exp]
    options = ["--nj", str(nj)]
    step = subprocess.Popen(["bash", str(ROOT / "steps" / script), *options, *map(str, words)], start_new_session=True,
                            stderr=subprocess.DEVNULL, env=os.environ | {"VOX_COLD": "true"})
    deadline = time.monotonic() + 60
    while not (exp / "unfinished" / sign).is_file():
        assert step.poll() is None, "the step ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(step.pid, signal.SIGKILL)
    step.wait()
    assert not (exp / ".done").exists()
    if damaged:
        content = bytearray((exp / "unfinished" / sign).read_bytes())
        content[-9] ^= 16
        (exp / "unfinished" / sign).write_bytes(content)
    done = succeed(script, *options, *words)
    assert "continuing where a run was stopped" in done.stderr
    expected = trained if extractor else made / "ubm"
    for name in ("final.ie", "final.ubm") if extractor else ("final.dubm", "final.ubm"):
        assert (exp / name).read_bytes() == (expected / name).read_bytes()


def test_unfinished_work_with_other_options_is_not_taken_up(made, trained, tmp_path):
    exp = tmp_path / "exp"
    (exp / "unfinished").mkdir(parents=True)
    (exp / "unfinished/.begun").write_text("another digest\n")
    (exp / "unfinished/2.safetensors").write_text("of another model")
    train(made, exp)
    assert (exp / "final.ie").read_bytes() == (trained / "final.ie").read_bytes()


@pytest.mark.long
def test_another_back_end_trains_nothing_again(made, trained, tmp_path):
    config, ubm = tmp_path / "system.yaml", tmp_path / "ubm"
    shutil.copy(made / "system.yaml", config)
    words = [("train_ubm.sh", config, made / "data", ubm),
             ("train_ivector_extractor.sh", config, made / "data", ubm, tmp_path / "exp"),
             ("make_posteriors.sh", config, ubm, made / "data", tmp_path / "post")]
    for one in words:
        succeed(*one)
    config.write_text(yaml.safe_dump(CONFIG | {"backend": ["center", "cosine"]}))
    for one in words:
        assert "up to date" in succeed(*one).stderr


def test_posteriors_from_files_give_the_same_model(made, trained, tmp_path):
    """As in a chain that starts in Kaldi; text and binary."""
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


@pytest.mark.long
def test_the_longest_utterances_alone_train_the_model(made, tmp_path):
    config = {**CONFIG, "extractor": {**CONFIG["extractor"], "longest": 12}}
    (made / "longest.yaml").write_text(yaml.safe_dump(config))
    train(made, tmp_path / "longest", config="longest.yaml")
    train(made, tmp_path / "jobs", "--nj", 2, config="longest.yaml")
    lengths = dict(line.split() for line in (made / "data/utt2num_frames").read_text().splitlines())
    (tmp_path / "list").write_text("\n".join(sorted(lengths, key=lambda name: -int(lengths[name]))[:12]))
    subprocess.run([sys.executable, "-m", "utils.kaldi.subset_data_dir", "--utt-list", tmp_path / "list",
                    made / "data", tmp_path / "data"], check=True, cwd=ROOT)
    succeed("train_ivector_extractor.sh", made / "system.yaml", tmp_path / "data", made / "ubm", tmp_path / "exp")
    for name in ("longest", "jobs"):
        assert (tmp_path / name / "final.ie").read_bytes() == (tmp_path / "exp/final.ie").read_bytes()
    (tmp_path / "post.scp").write_text("s0-u0 nowhere:1\n")
    done = call("train_ivector_extractor.sh", "--posteriors", tmp_path / "post.scp", made / "longest.yaml",
                made / "data", made / "ubm", tmp_path / "post")
    assert done.returncode == 1
    assert "extractor.longest is 12, but --posteriors are those of all utterances; leave one out" in done.stderr


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


def test_a_chain_goes_on_from_kaldis_diagonal_mixture_and_selection(made, tmp_path):
    """final.dubm and gselect from files give the same results as those computed here."""
    options = ("--diagonal", made / "ubm/final.dubm")
    succeed("train_ubm.sh", *options, made / "system.yaml", made / "data", tmp_path / "ubm")
    assert (tmp_path / "ubm/final.dubm").read_bytes() == (made / "ubm/final.dubm").read_bytes()
    found, expected = (read_full(folder / "ubm/final.ubm") for folder in (tmp_path, made))
    np.testing.assert_allclose(found.means, expected.means, atol=1e-4)  # the file holds rounded values
    np.testing.assert_allclose(found.covariances, expected.covariances, atol=1e-4)
    call_of = [made / "system.yaml", made / "ubm", made / "data"]
    succeed("make_posteriors.sh", *call_of, tmp_path / "post")
    succeed("make_posteriors.sh", "--gselect", tmp_path / "post/gselect.scp", *call_of, tmp_path / "again")
    both = zip(*(iterate_alignments(tmp_path / name / "post.scp") for name in ("post", "again")), strict=True)
    for (name, one), (other, again) in both:
        assert name == other
        np.testing.assert_array_equal(one.gaussians, again.gaussians)
        np.testing.assert_allclose(one.weights, again.weights, atol=1e-5)
    with ArkWriter(tmp_path / "third") as writer:  # a selection that leaves no choice
        for name, one in iterate_alignments(tmp_path / "post/post.scp"):
            third = Alignment(np.ones_like(one.sizes), np.full(len(one.sizes), 3), np.ones(len(one.sizes), np.float32))
            writer.write_object(name, lambda kaldi, entry=third: write_gselect(kaldi, entry))
    succeed("make_posteriors.sh", "--gselect", tmp_path / "third.scp", *call_of, tmp_path / "only")
    for _, post in iterate_alignments(tmp_path / "only/post.scp"):
        assert set(post.gaussians) == {3}
        assert (post.weights == 1).all()
    config = {**CONFIG, "ubm": {**CONFIG["ubm"], "num_gaussians": 16}}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(config))
    done = call("train_ubm.sh", *options, tmp_path / "more.yaml", made / "data", tmp_path / "more")
    assert done.returncode == 1
    assert "8 Gaussians of dimension 5; ubm.num_gaussians is 16" in done.stderr


def test_what_is_kept_in_memory_changes_no_bit(made, tmp_path):
    """extractor.cache_gb: room for all, for nothing, and for the first block (32 utterances of 8 x 6 floats) of two."""
    models = set()
    for name, room in (("all", 1), ("nothing", 0), ("first", 6200 / 2**30)):
        config = {**CONFIG, "extractor": {**CONFIG["extractor"], "cache_gb": room, "parts": 1}}
        (made / f"{name}.yaml").write_text(yaml.safe_dump(config))
        train(made, tmp_path / name, config=f"{name}.yaml")
        models.add((tmp_path / name / "final.ie").read_bytes())
    assert len(models) == 1


def test_posteriors_of_a_dropped_gaussian_are_an_error(made, tmp_path):
    """The selection belongs to a larger UBM: Kaldi's programs fail on it without naming the cause."""
    with ArkWriter(tmp_path / "post") as writer:
        for name, x in iterate(made / "data/feats.scp"):
            gaussians = np.full(len(x), 8)
            alignment = Alignment(np.ones(len(x), np.int64), gaussians, np.ones(len(x), np.float32))
            writer.write_object(name, lambda kaldi, entry=alignment: write_posteriors(kaldi, entry))
    done = call("train_ivector_extractor.sh", "--posteriors", tmp_path / "post.scp", made / "system.yaml",
                made / "data", made / "ubm", tmp_path / "exp")
    assert done.returncode == 1
    assert "s0-u0 has Gaussian 8, the UBM has 8, counted from 0" in done.stderr
    assert not (tmp_path / "exp/final.ie").exists()


def awkward(made, folder, change):
    """A copy of the data with `change` applied to the frames, written without checks."""
    shutil.copytree(made / "data", folder)
    with ArkWriter(folder / "feats") as writer:
        for name, x in iterate(made / "data/feats.scp"):
            x = change(name, x.copy())
            writer.write_object(name, lambda kaldi, entry=x: kaldi.matrix(entry))
    return folder


def whole_chain(config, data, exp):
    """Run all steps and return the logs of training; fails with a step's error."""
    succeed("train_ubm.sh", config, data, exp / "ubm")
    succeed("train_ivector_extractor.sh", config, data, exp / "ubm", exp)
    shutil.copy(config, exp / "system.yaml")
    succeed("extract_ivectors.sh", "--nj", 1, exp, data, exp / "out")
    assert all(np.isfinite(x).all() for _, x in iterate(exp / "out/ivector.scp"))
    return "".join(path.read_text() for path in [*exp.glob("ubm/log/*"), *exp.glob("log/*"), *exp.glob("out/log/*")])


def test_an_utterance_without_a_voiced_frame_has_an_ivector(made, tmp_path):
    data = awkward(made, tmp_path / "data", lambda _, x: x)
    with ArkWriter(data / "vad") as writer:
        for name, x in iterate(data / "feats.scp"):
            writer.write(name, np.full(len(x), name != "s0-u0", np.float32))
    (tmp_path / "vad.yaml").write_text(yaml.safe_dump({**CONFIG, "frontend": {"vad": True}}))
    whole_chain(tmp_path / "vad.yaml", data, tmp_path / "exp")
    vectors = dict(iterate(tmp_path / "exp/out/ivector.scp"))
    assert len(vectors) == 40
    assert np.abs(vectors["s0-u0"]).max() > 0


@pytest.mark.long
@pytest.mark.parametrize("value", [1.0, 0.1, None])
def test_frames_that_are_alike_are_floored_and_said(made, tmp_path, value):
    """All values equal; one column a copy of another. Every Gaussian is at the floor, even one that kept its shape."""
    def change(_, x):
        if value is None:
            x[:, 4] = x[:, 0]
        else:
            x[:] = value
        return x
    said = whole_chain(made / "system.yaml", awkward(made, tmp_path / "data", change), tmp_path / "exp")
    assert said.count("full UBM: covariances of 8 of 8 Gaussians floored") == 1


@pytest.mark.parametrize(("value", "message"), [
    (np.nan, "s0-u0 has NaN or infinite values"), (1e30, "iteration 1: the mixture has NaN or infinite values")])
def test_frames_that_are_no_numbers_end_in_an_error_that_says_where(made, tmp_path, value, message):
    def change(name, x):
        x[3, 2] = value if name == "s0-u0" else x[3, 2]
        return x
    done = call("train_ubm.sh", made / "system.yaml", awkward(made, tmp_path / "data", change), tmp_path / "ubm")
    assert done.returncode == 1
    assert message in done.stderr
    assert not list((tmp_path / "ubm").glob("final.*"))


def test_frames_of_another_dimension_are_an_error(made, trained, tmp_path):
    shutil.copytree(made / "data", tmp_path / "data")
    with ArkWriter(tmp_path / "data/feats") as writer:
        for name, x in iterate(made / "data/feats.scp"):
            writer.write(name, x[:, :3])
    done = call("extract_ivectors.sh", trained, tmp_path / "data", tmp_path / "out")
    assert done.returncode == 1
    assert "3 values per frame, the UBM has 5" in done.stderr
    assert not (tmp_path / "out/ivector.scp").exists()
