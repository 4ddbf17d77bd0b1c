"""EER and minDCF against their definitions in plain loops; joining of scores and trials."""

import subprocess
import sys

import numpy as np
import pytest

from utils.errors import InputError
from utils.labelled_scores import read_kaldi_scores, read_labelled_scores
from utils.metrics import measure


def rates(targets, nontargets) -> list[tuple[float, float]]:
    """Miss and false-alarm rate at every threshold, from accepting all to rejecting all, by counting."""
    thresholds = [*sorted(set(targets) | set(nontargets)), np.inf]
    return [(sum(t < threshold for t in targets) / len(targets),
             sum(n >= threshold for n in nontargets) / len(nontargets)) for threshold in thresholds]


def brute_eer(targets, nontargets) -> float:
    points = rates(targets, nontargets)
    for (miss, alarm), (next_miss, next_alarm) in zip(points, points[1:], strict=False):
        if next_miss >= next_alarm:
            if miss == alarm:
                return miss
            share = (alarm - miss) / (alarm - miss + next_miss - next_alarm)
            return miss + share * (next_miss - miss)
    raise AssertionError


def brute_dcf(targets, nontargets, prior) -> float:
    return min(prior * miss + (1 - prior) * alarm for miss, alarm in rates(targets, nontargets))


@pytest.mark.parametrize("seed", range(60))
def test_metrics_equal_their_definitions(seed):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(1, 30, size=2)
    targets, nontargets = rng.normal(1, 1, numbers[0]), rng.normal(0, 1, numbers[1])
    if seed % 3:  # many ties, within and between the sides
        targets, nontargets = np.round(targets), np.round(nontargets)
    found = measure(targets, nontargets)
    assert found.eer == pytest.approx(100 * brute_eer(targets, nontargets), abs=1e-9)
    assert found.mindcf01_unnormalised == pytest.approx(brute_dcf(targets, nontargets, 0.01))
    assert found.mindcf05_unnormalised == pytest.approx(brute_dcf(targets, nontargets, 0.05))
    assert found.mindcf01 == pytest.approx(brute_dcf(targets, nontargets, 0.01) / 0.01)
    assert found.mindcf05 == pytest.approx(brute_dcf(targets, nontargets, 0.05) / 0.05)
    assert (found.trials, found.targets) == (numbers.sum(), numbers[0])


def test_known_answers():
    separated = measure(np.array([2.0, 3]), np.array([0.0, 1]))
    assert (separated.eer, separated.mindcf01, separated.mindcf05) == (0, 0, 0)
    reversed_ = measure(np.array([0.0, 1]), np.array([2.0, 3]))
    assert (reversed_.eer, reversed_.mindcf01, reversed_.mindcf05_unnormalised) == (100, 1, 0.05)
    assert measure(np.zeros(7), np.zeros(3)).eer == 50  # a constant score: the two rates cross halfway
    assert measure(np.array([1.0, 3]), np.array([0.0, 2])).eer == 50
    assert measure(np.array([np.inf, 1]), np.array([-np.inf, 0])).eer == 0


def test_the_order_of_trials_and_monotone_changes_do_not_matter():
    rng = np.random.default_rng(0)
    targets, nontargets = rng.normal(1, 1, 500), rng.normal(0, 1, 2000)
    expected = measure(targets, nontargets)
    found = measure(np.exp(rng.permutation(targets)), np.exp(rng.permutation(nontargets)))
    assert vars(found) == pytest.approx(vars(expected))


def test_agrees_with_kaldi(shared):
    folder = shared / "kaldi_reference/backend"
    found = measure(*read_labelled_scores(folder / "trials", folder / "plda_scores"))
    assert found.eer == pytest.approx(5.461, abs=0.001)
    assert (found.trials, found.targets) == (15200, 7600)


@pytest.fixture
def files(tmp_path):
    """A function that writes a trial list and a score file and returns their paths."""
    def write(trials, scores):
        (tmp_path / "trials").write_text("".join(f"{line}\n" for line in trials))
        (tmp_path / "scores").write_text("".join(f"{line}\n" for line in scores))
        return tmp_path / "trials", tmp_path / "scores"
    return write


TRIALS = ["a b target", "a c nontarget", "bb c nontarget", "b bc target"]
SCORES = ["a b 3.5", "a c -1", "bb c 1e-3", "b bc 2."]


def joined(paths):
    targets, nontargets = read_labelled_scores(*paths)
    return sorted(targets.tolist()), sorted(nontargets.tolist())


def test_scores_are_joined_by_both_ids_in_any_order(files):
    assert joined(files(TRIALS, SCORES)) == ([2, 3.5], [-1, 1e-3])
    assert joined(files(TRIALS[::-1], SCORES)) == ([2, 3.5], [-1, 1e-3])
    assert joined(files(TRIALS, sorted(SCORES, reverse=True))) == ([2, 3.5], [-1, 1e-3])


def test_ids_are_not_glued_together(files):
    with pytest.raises(InputError, match="1 trials of .* have no score: b bc"):
        joined(files(TRIALS, [*SCORES[:3], "bb c 2."]))


@pytest.mark.parametrize(("trials", "scores", "message"), [
    (TRIALS, SCORES[1:], "1 trials of .*trials have no score: a b; score"),
    (TRIALS[1:], SCORES, "1 scores belong to no trial of .*: a b; name"),
    (TRIALS, [*SCORES, SCORES[2]], "1 pairs have more or fewer scores .*: bb c; remove"),
    (TRIALS, ["a c 1", *SCORES[:2], SCORES[3]], "1 trials of .*: bb c"),
    ([*TRIALS, "a b maybe"], SCORES, "trials:5: label 'maybe' is neither"),
    ([*TRIALS, "a b xontarget"], SCORES, "trials:5: label 'xontarget'"),
    ([*TRIALS, "a b nontargets"], SCORES, "trials:5: label"),
    ([*TRIALS, "a b 1target"], SCORES, "trials:5: label"),
    (TRIALS, [*SCORES, "a d nan"], "scores:5: score 'nan' is not a finite number"),
    ([*TRIALS, "a b nontarget"], [*SCORES, "a b 3.5"],
     "trials:5: a b is nontarget here and target in .*/trials:1; remove one"),
    ([*TRIALS, "bc bc target"], [*SCORES, "bc bc 99"], "trials:5: a trial of bc with itself; remove the line"),
    ([*TRIALS, "id10270-abc id10270-abc target"], SCORES, "trials:5: a trial of id10270-abc with itself"),
    (TRIALS, [*SCORES, "a d inf"], "scores:5: score 'inf' is not a finite number"),
    (TRIALS, [*SCORES, "a d 1.899526.64"], "scores:5: score '1.899526.64' is not a finite number"),
    (TRIALS, [*SCORES, "a d 1_0"], "scores:5: score '1_0' is not a finite number"),
    (TRIALS, [*SCORES, "a d"], "scores:5: 2 fields, expected 3"),
    (["a b target\r"], ["a b 1"], "trials:1: carriage return"),
    ([], SCORES, "trials: empty"),
    (["a b target"], ["a b 1"], "no nontarget trial"),
    (["a b nontarget"], ["a b 1"], "no target trial"),
    (TRIALS, [f"{line.rpartition(' ')[0]} 0.5" for line in SCORES], "scores: all 4 scores are 0.5: they tell nothing"),
])
def test_what_does_not_fit_is_an_error_that_names_it(files, trials, scores, message):
    with pytest.raises(InputError, match=message):
        measure(*read_labelled_scores(*files(trials, scores)))


def test_a_pair_listed_twice_needs_two_scores(files):
    assert joined(files([*TRIALS, TRIALS[0]], [*SCORES, "a b 4"])) == ([2, 3.5, 4], [-1, 1e-3])
    with pytest.raises(InputError, match="1 pairs have more or fewer scores .*: a b;"):
        joined(files([*TRIALS, TRIALS[0]], SCORES))


def test_many_missing_scores_are_counted_and_five_named(files):
    trials = [f"a b{index} target" for index in range(20)]
    with pytest.raises(InputError, match="20 trials .*: a b0, a b1, a b2, a b3, a b4 and 15 more"):
        joined(files(trials, ["a c 1"]))


def test_nan_scores_are_an_error():
    with pytest.raises(InputError, match="1 nontarget scores are NaN"):
        measure(np.array([1.0]), np.array([0, np.nan]))


def test_large_files_in_many_blocks(files):
    rng = np.random.default_rng(1)
    number = 100_000
    names = [f"speaker{a}-{'x' * (a % 7)}" for a in rng.integers(0, 3000, number)]
    labels = rng.random(number) < 0.1
    values = np.round(rng.normal(size=number), 5)
    trials = [f"{name} {row} {'target' if label else 'nontarget'}" for row, (name, label) in
              enumerate(zip(names, labels, strict=True))]
    scores = [f"{name} {row} {value}" for row, (name, value) in enumerate(zip(names, values, strict=True))]
    paths = files(trials, scores)
    assert paths[0].stat().st_size > 2 << 20  # more than two blocks
    for order in (np.arange(number), rng.permutation(number)):
        targets, nontargets = read_labelled_scores(*files(trials, [scores[row] for row in order]))
        np.testing.assert_array_equal(np.sort(targets), np.sort(values[labels]))
        np.testing.assert_array_equal(np.sort(nontargets), np.sort(values[~labels]))
    with pytest.raises(InputError, match="trials:100001: label 'x'"):
        read_labelled_scores(*files([*trials, "a b x"], scores))


def test_command_line_prints_the_metrics(files, tmp_path):
    def call(*words):
        return subprocess.run([sys.executable, "-m", "utils.metrics", *map(str, words)],
                              capture_output=True, text=True, check=False)

    done = call(*files(TRIALS, SCORES))
    assert done.returncode == 0, done.stderr
    assert dict(line.split() for line in done.stdout.splitlines()) == {
        "trials": "4", "targets": "2", "eer": "0.0000", "mindcf01": "0.0000", "mindcf05": "0.0000",
        "mindcf01_unnormalised": "0.0000", "mindcf05_unnormalised": "0.0000"}
    (tmp_path / "kaldi").write_text("3.5 target\n-1 nontarget\n1e-3 nontarget\n2. target\n")
    assert [part.tolist() for part in read_kaldi_scores(tmp_path / "kaldi")] == [[3.5, 2], [-1, 1e-3]]
    assert call(tmp_path / "kaldi").stdout == done.stdout
    trials, scores = files(["a b target", "a c nontarget", "a d target", "b d nontarget"],
                           ["a b 1", "a c 2", "a d 3", "b d -9"])
    done = call("--llr", "--prior", "0.2", "--prior", "0.9", "--points", tmp_path / "points", trials, scores)
    found = dict(line.split() for line in done.stdout.splitlines())
    assert (found["mindcf_0.2"], found["mindcf_0.9"]) == ("0.5000", "0.5000")
    # ln 4 = 1.4 rejects one target; ln 1/9 = -2.2 accepts all but -9.
    assert (found["actdcf_0.2"], found["actdcf_0.9"]) == ("2.5000", "0.5000")
    assert (tmp_path / "points").read_text().splitlines() == [
        "threshold\tmiss\tfalse_alarm", "-9\t0\t1", "1\t0\t0.5", "2\t0.5\t0.5", "3\t0.5\t0"]
    assert "error: --prior is '1', wanted more than 0 and less" in call("--prior", "1", trials, scores).stderr
    failed = call(*files(TRIALS, SCORES[:2]))
    assert failed.returncode == 1
    assert failed.stderr.startswith("utils.metrics: error: ")
    assert len(failed.stderr.splitlines()) == 1
