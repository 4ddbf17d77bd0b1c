"""Intervals over speakers against trials that are literally repeated; hull, C_llr and actual DCF against loops."""

import math
import subprocess
import sys
from itertools import combinations, pairwise, product

import numpy as np
import pytest

from utils.bootstrap import chance, draws, equal_error_rates, interval
from utils.errors import InputError
from utils.labelled_scores import Scored, read_scores_with_speakers
from utils.metrics import bayes_threshold, eer_hull, hull_steps, measure, measure_llr


def made_up(speakers, utterances, seed, gap=2.0, ties=False):
    """All trials among the utterances of some speakers; targets score higher by `gap`."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(speakers), utterances)
    pairs = np.array(list(combinations(range(len(of)), 2)))
    is_target = of[pairs[:, 0]] == of[pairs[:, 1]]
    values = rng.normal(size=len(pairs)) + gap * is_target + rng.normal(size=speakers)[of[pairs[:, 0]]]
    return Scored(values.round(0 if ties else 6), is_target, of[pairs])


def repeated(scored, counts):
    """The EER of trials that are listed as often as their speakers were drawn."""
    targets, nontargets = [], []
    for value, target, (a, b) in zip(*scored, strict=True):
        (targets if target else nontargets).extend([value] * int(counts[a] * (1 if target else counts[b])))
    return measure(np.array(targets), np.array(nontargets)).eer


@pytest.mark.parametrize("ties", [False, True])
def test_replicates_are_the_error_rates_of_repeated_trials(ties):
    scored = made_up(6, 3, 0, ties=ties)
    found = equal_error_rates(scored, replicates=40, seed=5)
    for eer, counts in zip(found, draws(6, 40, 5), strict=True):
        assert counts.sum() == 6
        assert eer == pytest.approx(repeated(scored, counts), abs=1e-9)
    np.testing.assert_array_equal(found, equal_error_rates(scored, replicates=40, seed=5))
    shuffled = np.random.default_rng(1).permutation(len(scored.values))
    np.testing.assert_allclose(found, equal_error_rates(Scored(*(part[shuffled] for part in scored)), 40, 5))


def test_numbers_of_speakers_do_not_matter():
    scored = made_up(5, 3, 1)
    other = scored._replace(speakers=np.array([7, 90, 100, 1000, 2000])[scored.speakers])
    np.testing.assert_array_equal(equal_error_rates(scored, 20), equal_error_rates(other, 20))


def test_intervals_cover_the_truth_and_narrow_with_speakers():
    """The EER of all speakers of a kind lies within 95 % intervals of samples of them, mostly."""
    truth = measure(*made_up(60, 6, 100).parts()).eer
    found = [interval(equal_error_rates(made_up(12, 6, seed), 200)) for seed in range(40)]
    covered = sum(one.low <= truth <= one.high for one in found)
    assert covered >= 30
    many = interval(equal_error_rates(made_up(48, 6, 3), 200))
    assert many.high - many.low < 0.75 * np.mean([one.high - one.low for one in found])


def test_a_difference_is_tested_on_the_same_speakers():
    """Two systems that differ a little, but in the same direction for all speakers, are told apart."""
    base = made_up(20, 5, 2)
    better = base._replace(values=base.values + 0.5 * base.is_target)
    one, other = equal_error_rates(base, 300), equal_error_rates(better, 300)
    assert interval(one).low < interval(other).high  # the intervals overlap
    assert interval(one - other).low > 0
    assert chance(one - other) == pytest.approx(2 / 301)
    assert chance(one - one) == 1
    assert chance(np.array([-1.0, 1, 2, 3, np.nan])) == pytest.approx(2 * 2 / 5)


def test_one_speaker_has_no_interval():
    with pytest.raises(InputError, match="the list has 1 speakers: an interval over speakers needs two or more"):
        equal_error_rates(Scored(np.array([1.0]), np.array([True]), np.array([[3, 3]])))


def brute_hull(targets, nontargets):
    """Return the vertices of the ROC's lower convex hull: a point stays unless a line between two others runs below it.
    """
    points = [(0.0, 1.0)]
    for threshold in sorted(set(targets) | set(nontargets)):
        points.append((sum(t <= threshold for t in targets) / len(targets),
                       sum(n > threshold for n in nontargets) / len(nontargets)))
    return [p for p in points if not any(
        a[0] <= p[0] <= b[0] and a != p != b and a[0] < b[0]
        and a[1] + (b[1] - a[1]) * (p[0] - a[0]) / (b[0] - a[0]) < p[1] - 1e-12 for a, b in product(points, points))]


@pytest.mark.parametrize("seed", range(20))
def test_the_hulls_equal_error_rate(seed):
    rng = np.random.default_rng(seed)
    targets, nontargets = rng.normal(1, 1, int(rng.integers(1, 12))), rng.normal(0, 1, int(rng.integers(1, 12)))
    if seed % 2:
        targets, nontargets = targets.round(), nontargets.round()
    # The EER on the hull is the smallest mean of both rates, at the weights for which that is largest.
    hull = brute_hull(targets, nontargets)
    shares = np.linspace(0, 1, 20001)
    least = np.min([shares * miss + (1 - shares) * alarm for miss, alarm in hull], axis=0)
    found = eer_hull(targets, nontargets)
    assert found == pytest.approx(100 * least.max(), abs=0.02)
    assert found <= measure(targets, nontargets).eer + 1e-9
    t, n = hull_steps(targets, nontargets)
    assert (t.sum(), n.sum()) == (len(targets), len(nontargets))
    ratios = [(a / b if b else np.inf) for a, b in zip(t, n, strict=True)]
    assert all(low < high for low, high in pairwise(ratios))


def test_costs_of_log_likelihood_ratios_by_hand():
    targets, nontargets = np.array([2.0, -1.0, 5.0]), np.array([-3.0, 0.5])
    found = measure_llr(targets, nontargets)
    expected = (sum(math.log2(1 + math.exp(-s)) for s in targets) / 3
                + sum(math.log2(1 + math.exp(s)) for s in nontargets) / 2) / 2
    assert found.cllr == pytest.approx(expected)
    # ln(0.99 / 0.01) = 4.595: two targets are missed, no false alarm; ln(0.95 / 0.05) = 2.944: the same
    assert bayes_threshold(0.01) == pytest.approx(4.595, abs=1e-3)
    assert found.actdcf01 == pytest.approx(2 / 3)
    assert found.actdcf05 == pytest.approx(2 / 3)
    # Pooled: {-3: n}, {-1: t, 0.5: n}, {2, 5: t}; the middle block has log-likelihood ratio ln((1/3) / (1/2)).
    middle = (1 / 3) / (1 / 2)
    assert found.min_cllr == pytest.approx((math.log2(1 + 1 / middle) / 3 + math.log2(1 + middle) / 2) / 2)
    assert measure_llr(np.zeros(4), np.zeros(9)).cllr == pytest.approx(1)
    assert measure_llr(np.array([3.0, 4]), np.array([-1.0, 1])).min_cllr == 0


@pytest.mark.parametrize("seed", range(8))
def test_calibrated_scores_reach_the_minimum_and_no_map_is_below_it(seed):
    rng = np.random.default_rng(seed)
    targets, nontargets = rng.normal(1, 1, 3000), rng.normal(-1, 1, 5000)  # 2 s is the log-likelihood ratio
    least = measure_llr(targets, nontargets).min_cllr
    assert measure_llr(2 * targets, 2 * nontargets).cllr == pytest.approx(least, abs=0.015)
    for scale, shift in ((1, 0), (2, 0), (3, 1), (0.1, -2)):
        assert measure_llr(scale * targets + shift, scale * nontargets + shift).cllr >= least


@pytest.fixture
def files(tmp_path):
    (tmp_path / "utt2spk").write_text("a1 a\na2 a\nb1 b\nb2 b\nc1 c\nc2 c\n")
    pairs = [*combinations(["a1", "a2", "b1", "b2", "c1", "c2"], 2)]
    rng = np.random.default_rng(0)
    (tmp_path / "trials").write_text("".join(
        f"{a} {b} {'target' if a[0] == b[0] else 'nontarget'}\n" for a, b in pairs))
    for name, gap in (("weak", 0.5), ("strong", 4)):
        values = [rng.normal() + gap * (a[0] == b[0]) for a, b in pairs]
        rows = rng.permutation(len(pairs))
        (tmp_path / name).write_text("".join(f"{' '.join(pairs[row])} {values[row]:.4f}\n" for row in rows))
    return tmp_path


def test_speakers_are_joined_with_scores_in_any_order(files):
    scored = read_scores_with_speakers(files / "trials", files / "weak", files / "utt2spk")
    assert (scored.is_target == (scored.speakers[:, 0] == scored.speakers[:, 1])).all()
    assert sorted(map(tuple, scored.speakers.tolist()))[:3] == [(0, 0), (0, 1), (0, 1)]
    lines = dict(line.rsplit(" ", 1) for line in (files / "weak").read_text().splitlines())
    assert sorted(scored.values) == sorted(map(float, lines.values()))


@pytest.mark.parametrize(("change", "message"), [
    (("utt2spk", "b2 b\n", ""), "5 trials name ids that are not in .*utt2spk; name the data directory"),
    (("utt2spk", "b2 b\n", "b2 a\n"),
     "(a. b2 is a nontarget, but .* has a and a|b1 b2 is a target, but .* has b and a); correct either .3 such"),
])
def test_speakers_that_do_not_fit_are_errors(files, change, message):
    name, old, new = change
    (files / name).write_text((files / name).read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        read_scores_with_speakers(files / "trials", files / "weak", files / "utt2spk")


def test_the_command_line_compares_systems(files):
    done = subprocess.run([sys.executable, "-m", "utils.bootstrap", files / "trials", files / "utt2spk", files / "weak",
                           files / "strong"], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert " EER " in first and ";" not in first
    assert "strong  EER 0.00 %, interval 0.00 to 0.00; -" in second and ", p 0." in second
