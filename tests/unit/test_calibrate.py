"""Calibration and fusion: the optimum, known log-likelihood ratios, files in any order, and other speakers only."""

import json
import math
import os
import subprocess
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from steps.backend.calibrate import train
from utils.errors import InputError
from utils.metrics import bayes_threshold, measure, measure_llr

ROOT = Path(__file__).resolve().parents[2]


def cross_entropy(weights, offset, scores, is_target, prior):
    odds = math.log(prior / (1 - prior))
    sums = {True: [], False: []}
    for row, target in zip(scores, is_target.tolist(), strict=True):
        f = sum(w * s for w, s in zip(weights, row, strict=True)) + offset + odds
        sums[target].append(math.log1p(math.exp(-f if target else f)))
    return prior * np.mean(sums[True]) + (1 - prior) * np.mean(sums[False])


@pytest.mark.parametrize("prior", [0.01, 0.5])
def test_no_other_weights_are_better(prior):
    rng = np.random.default_rng(0)
    is_target = rng.random(300) < 0.3
    scores = np.stack([5 * rng.normal(size=300) + 6 * is_target, 0.1 * rng.normal(size=300) + 0.1 * is_target], axis=1)
    found = train(scores, is_target, prior)
    best = cross_entropy(found.weights, found.offset, scores, is_target, prior)
    for changes in ((0.02, 0, 0), (-0.02, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 0.1), (0, 0, -0.1)):
        worse = cross_entropy(found.weights + changes[:2], found.offset + changes[2], scores, is_target, prior)
        assert worse > best


@pytest.mark.parametrize("prior", [0.1, 1e-5])
def test_scores_that_are_scaled_and_shifted_become_log_likelihood_ratios(prior):
    rng = np.random.default_rng(1)
    is_target = rng.random(40_000) < 0.2
    ratios = rng.normal(np.where(is_target, 2, -2), 2)  # N(+-v/2, v), v = 4: log-likelihood ratios of themselves
    found = train((0.1 * ratios - 7)[:, None], is_target, prior)
    assert found.weights == pytest.approx([10], rel=0.05)
    assert found.offset == pytest.approx(70, rel=0.05)


def test_a_fusion_of_independent_systems_is_better_than_either():
    rng = np.random.default_rng(2)
    is_target = rng.random(5000) < 0.5
    scores = rng.normal(size=(5000, 2)) + np.where(is_target, 1, -1)[:, None] * [1, 0.8]
    fused = train(scores, is_target, 0.5)(scores)
    errors = [measure(x[is_target], x[~is_target]).eer for x in (*scores.T, fused)]
    assert errors[2] < min(errors[:2]) - 2


def test_trials_without_an_error_have_finite_weights():
    found = train(np.array([[1.0], [2], [-1], [-2]]), np.array([True, True, False, False]), 0.05)
    assert 0 < found.weights[0] < 100
    assert np.isfinite(found.offset)


@pytest.mark.parametrize(("scores", "labels", "message"), [
    ([[1.0], [2]], [True, True], "no nontarget trial"), ([[1.0], [2]], [False, False], "no target trial"),
    ([[1.0, 0], [1, 2]], [True, False], "all scores of system 1 are alike"),
    ([[0.3]] * 10, [True, False] * 5, "all scores of system 1 are alike")])  # their deviation is 1e-16, not 0
def test_what_cannot_be_fitted_is_an_error(scores, labels, message):
    with pytest.raises(InputError, match=message):
        train(np.array(scores), np.array(labels), 0.05)


def test_no_score_speaks_against_a_target_but_a_quality_measure_may():
    rng = np.random.default_rng(4)
    is_target = rng.random(500) < 0.5
    good = is_target + rng.normal(size=500)
    x = np.stack([good, 0.3 * good - is_target + rng.normal(size=500)], axis=1)
    assert train(x, is_target, 0.05).weights[1] == 0
    assert train(x, is_target, 0.05, measures=1).weights[1] < -0.1
    with pytest.raises(InputError, match="targets do not score higher than nontargets in any system"):
        train(-good[:, None], is_target, 0.05)
    with pytest.raises(InputError, match="all values of quality measure 1 are alike; leave it out"):
        train(np.stack([good, np.ones(500)], axis=1), is_target, 0.05, measures=1)


def write_list(folder, prefix, seed):
    """A data directory with a list, and the scores of two systems in different orders."""
    rng = np.random.default_rng(seed)
    (folder / "trials").mkdir(parents=True)
    ids = [f"{prefix}{speaker}-u{number}" for speaker in range(6) for number in range(4)]
    (folder / "utt2spk").write_text("".join(f"{name} {name[:2]}\n" for name in ids))
    pairs = list(combinations(ids, 2))
    (folder / "trials/list").write_text("".join(
        f"{a} {b} {'target' if a[:2] == b[:2] else 'nontarget'}\n" for a, b in pairs))
    for name, scale, shift in (("one", 1.0, 3), ("two", 20.0, -50)):
        values = {pair: scale * (rng.normal() + 3 * (pair[0][:2] == pair[1][:2])) + shift for pair in pairs}
        rows = rng.permutation(len(pairs))
        (folder / name).write_text("".join(f"{' '.join(pairs[row])} {values[pairs[row]]:.5f}\n" for row in rows))


@pytest.fixture
def work(tmp_path):
    write_list(tmp_path / "valid", "a", 0)
    write_list(tmp_path / "test", "b", 1)
    return tmp_path


def call(work, script, *words):
    return subprocess.run(["bash", ROOT / "steps" / script, *words], capture_output=True, text=True, check=False,
                          cwd=work, env=os.environ)


ONE = ["valid/trials/list", "valid/one", "test/trials/list", "test/one", "out/llr"]
BOTH = ["valid/trials/list", "valid/one valid/two", "test/trials/list", "test/one test/two", "out/fused"]


def by_pair(path):
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in path.read_text().splitlines()}


def measured(work, path):
    scores = by_pair(path)
    labels = dict(line.rsplit(" ", 1) for line in (work / "test/trials/list").read_text().splitlines())
    parts = [np.array([scores[pair] for pair, label in labels.items() if label == kind])
             for kind in ("target", "nontarget")]
    return measure(*parts).eer, measure_llr(*parts)


def test_the_steps_calibrate_and_fuse(work):
    done = call(work, "calibrate.sh", "--prior", "0.01", *ONE)
    assert done.returncode == 0, done.stderr
    found = json.loads((work / "out/calibration/llr.json").read_text())
    assert found["threshold"] == pytest.approx(bayes_threshold(0.01))
    raw, llr = by_pair(work / "test/one"), by_pair(work / "out/llr")
    assert list(raw) == list(llr)
    for pair in list(raw)[::29]:
        assert llr[pair] == pytest.approx(found["weights"][0] * raw[pair] + found["offset"], abs=1e-3)
    eer, costs = measured(work, work / "out/llr")
    assert eer == pytest.approx(measured(work, work / "test/one")[0])
    assert costs.cllr < costs.min_cllr + 0.1 < measured(work, work / "test/one")[1].cllr
    assert "up to date" in call(work, "calibrate.sh", "--prior", "0.01", *ONE).stderr
    done = call(work, "fuse.sh", *BOTH)
    assert done.returncode == 0, done.stderr
    found = json.loads((work / "out/calibration/fused.json").read_text())
    two, fused = by_pair(work / "test/two"), by_pair(work / "out/fused")
    for pair in list(raw)[::29]:
        wanted = found["weights"][0] * raw[pair] + found["weights"][1] * two[pair] + found["offset"]
        assert fused[pair] == pytest.approx(wanted, abs=1e-3)
    assert measured(work, work / "out/fused")[0] < eer
    assert found["miss"] < 0.5 and found["false_alarm"] < 0.1
    assert found["systems"] == ["test/one", "test/two"]


def test_quality_measures_join_the_scores(work):
    """A trial's measures are the smaller and the larger of its utterances' values; they help where scores depend on
    them."""
    for part, seed in (("valid", 2), ("test", 3)):
        rng = np.random.default_rng(seed)
        ids = [line.split()[0] for line in (work / part / "utt2spk").read_text().splitlines()]
        frames = dict(zip(ids, rng.integers(50, 2000, len(ids)).tolist(), strict=True))
        (work / part / "frames").write_text("".join(f"{name} {value}\n" for name, value in frames.items()))
        lines = by_pair(work / part / "one")
        (work / part / "one").write_text("".join(  # short utterances score higher, with anything
            f"{pair} {value - 3 * np.log(min(frames[one] for one in pair.split())):.5f}\n"
            for pair, value in lines.items()))
    options = ["--train-quality", "log:valid/frames", "--quality", "log:test/frames"]
    assert call(work, "calibrate.sh", *ONE).returncode == 0
    plain = measured(work, work / "out/llr")[0]
    done = call(work, "calibrate.sh", *options, *ONE)
    assert done.returncode == 0, done.stderr
    found = json.loads((work / "out/calibration/llr.json").read_text())
    assert found["quality"] == ["log:test/frames"]
    raw, llr = by_pair(work / "test/one"), by_pair(work / "out/llr")
    frames = {line.split()[0]: float(line.split()[1]) for line in (work / "test/frames").read_text().splitlines()}
    for pair in list(raw)[::17]:
        low, high = sorted(np.log(frames[one]) for one in pair.split())
        wanted = np.dot(found["weights"], [raw[pair], low, high]) + found["offset"]
        assert llr[pair] == pytest.approx(wanted, abs=1e-3)
    assert found["weights"][1] == pytest.approx(3 * found["weights"][0], rel=0.3)
    assert measured(work, work / "out/llr")[0] < 0.8 * plain
    text = (work / "test/frames").read_text()
    for change, message in ((text.replace("b0-u0 ", "b0-u9 "), "no value for an utterance of 23 trials of test/one"),
                            (text.replace("b0-u0 ", "b0-u0 -"), "the value of b0-u0 is '-"),
                            (text.replace("b0-u0 ", "b0-u0 x"), "wanted a number above 0")):
        (work / "test/frames").write_text(change)
        done = call(work, "calibrate.sh", *options, *ONE)
        assert done.returncode == 1
        assert message in done.stderr
    done = call(work, "calibrate.sh", *options[:3], "test/frames", *ONE)
    assert done.returncode == 1 and "--train-quality names log:valid/frames, --quality test/frames; put" in done.stderr
    done = call(work, "calibrate.sh", *options[:3], "test/fra'mes", *ONE)
    assert done.returncode == 1 and "test/fra'mes: cannot be split into names; put quotes" in done.stderr
    assert "1 quality measures to train on, 0 to apply to" in call(work, "fuse.sh", *options[:2], *BOTH).stderr


@pytest.mark.parametrize(("words", "change", "message"), [
    (ONE, ("test/utt2spk", " b3", " a3"), "test/trials/list: 1 of its 6 speakers are also in the training data: a3"),
    (ONE, ("valid/utt2spk", "a0-u0 a0\n", ""), "a0-u0 has no speaker in utt2spk of the data directory"),
    (["--prior", "1", *ONE], None, "--prior is '1', wanted more than 0 and less than 1"),
    ([*ONE[:3], "test/one test/two", "out/llr"], None, "1 files of scores to train on, 2 to apply to"),
    (BOTH, ("test/two", "b0-u0 b0-u1", "b0-u0 b0-u0"), "1 trials of test/one have no score: b0-u0 b0-u1"),
    (ONE, ("valid/one", "a0-u0 a0-u1", "a0-u0 a0-u0"), "1 trials of valid/trials/list have no score: a0-u0 a0-u1"),
    (ONE, ("test/one", "b0-u0 b0-u1 ", "b0-u0 b0-u1 nan"), "is not a finite number"),
])
def test_what_does_not_fit_is_an_error_and_nothing_is_written(work, words, change, message):
    if change:
        name, old, new = change
        text = (work / name).read_text()
        assert old in text
        (work / name).write_text(text.replace(old, new))
    done = call(work, "fuse.sh", *words)
    assert done.returncode != 0
    assert message in done.stderr
    assert not list((work).glob("out/*.*")) and not (work / "out/llr").exists() and not (work / "out/fused").exists()


def test_names_may_hold_blanks_and_what_cannot_be_fused_has_its_own_exit_status(work):
    """The recipe goes on after it; other errors end it."""
    (work / "valid/one").rename(work / "valid/o ne")
    words = [BOTH[0], r"valid/o\ ne 'valid/two'", *BOTH[2:]]
    assert call(work, "fuse.sh", *words).returncode == 0
    assert json.loads((work / "out/calibration/fused.json").read_text())["systems"] == ["test/one", "test/two"]
    for name in ("o ne", "two"):
        path = work / "valid" / name
        path.write_text("".join(f"{pair} {-score}\n" for pair, score in by_pair(path).items()))
    done = call(work, "fuse.sh", *words)
    assert done.returncode == 4 and "targets do not score higher than nontargets in any system" in done.stderr
    (work / "valid/two").write_text("nothing\n")
    assert call(work, "fuse.sh", *words).returncode == 1
