"""The pieces of the report: thresholds, groups, calibrations, pairs, projections, costs, marks, what is left out."""

import json

import numpy as np
import pytest
import torch
from made_up import CONFIG, write_data
from made_up_report import LIST, write_work

from nnet.config import network_config
from nnet.model import Network
from steps.report import figures
from steps.report.accounting import Cost, read_costs
from steps.report.differences import Difference, differences, read_differences
from steps.report.draw_attention import encoded
from steps.report.embeddings import principal_axes
from steps.report.groups import draw as draw_groups
from steps.report.groups import duration_groups, group_rates, read_traits
from steps.report.head_entropies import draw_system
from steps.report.histograms import read_calibration, read_fused
from steps.report.material import Material, eer_threshold, summarise
from steps.report.page import mark, render, table_rows
from steps.report.pair_attention import attend_pair, choose_pairs
from steps.report.plotting import new_figure
from steps.report.results import COLUMNS
from steps.report.sizes import in_words
from steps.report.training_curves import read_epochs
from tests.in_process import call
from utils.bootstrap import chance, equal_error_rates, interval
from utils.errors import InputError
from utils.jobs.done import describe
from utils.jobs.done import mark as mark_done
from utils.labelled_scores import read_scores_with_speakers
from utils.metrics import measure

SYSTEMS = {"good": 3.0, "same": 2.9, "bad": 0.3}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return write_work(tmp_path_factory.mktemp("work") / "w", SYSTEMS)


@pytest.fixture(scope="module")
def finished(work):
    """The work folder after the programs of table.sh and report.sh."""
    for module, *words in (("results", "--command", "x"), ("figures",), ("page", "--command", "run.sh <b>")):
        out = [work / "exp/figures"] if module == "figures" else []
        done = call(f"steps.report.{module}", *words, work, *out)
        assert done.returncode == 0, done.stderr
    return work


def test_the_threshold_is_the_lowest_score_with_as_many_misses_as_false_alarms():
    rng = np.random.default_rng(0)
    targets, nontargets = np.sort(rng.normal(1, 1, 40).round(1)), np.sort(rng.normal(0, 1, 60).round(1))
    counted = min(t for t in [*targets, *nontargets] if sum(targets < t) / 40 >= sum(nontargets >= t) / 60)
    assert eer_threshold(targets, nontargets) == counted
    assert eer_threshold(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 2.0
    assert eer_threshold(np.array([1.0]), np.array([1.0])) == 1.0


def test_a_summary_has_densities_that_sum_to_one_with_outliers_in_the_last_bins(work):
    path = work / f"exp/good/scores_test/{LIST}.plda"
    one = summarise(next(one for one in Material(work).files if one.path == path))
    width = np.diff(one.edges)
    assert (one.targets * width).sum() == pytest.approx(1) and (one.nontargets * width).sum() == pytest.approx(1)
    scored = read_scores_with_speakers(one.of.trials, path, work / "data/test/utt2spk")
    assert one.eer == measure(*scored.parts()).eer
    targets, nontargets = scored.parts()
    assert one.edges[-1] == pytest.approx(np.percentile(targets, 99.9)) and one.edges[-1] < targets.max()
    assert one.targets[-1] * width[-1] == pytest.approx(np.mean(targets >= one.edges[-2]))
    assert one.nontargets[0] * width[0] == pytest.approx(np.mean(nontargets < one.edges[1]))


def test_thresholds_of_calibrations_are_on_the_score(tmp_path):
    path = tmp_path / "calibration.json"
    assert read_calibration(path) == {}
    one = {"weights": [2.0], "offset": -1.0, "prior": 0.01, "threshold": 4.0}
    path.write_text(json.dumps({"plda": one, "fused": one | {"weights": [1, 2]}, "none": one | {"weights": [0.0]}}))
    assert read_calibration(path) == {"plda": (2.5, 0.01)}  # 2 s - 1 = 4
    for bad in ("nonsense", "[]", '{"plda": 1}', '{"plda": {"weights": [1]}}',
                json.dumps({"plda": one | {"threshold": float("nan")}})):
        path.write_text(bad)
        with pytest.raises(InputError, match=r"calibration.json: not a calibration \(.*\); calibrate again"):
            read_calibration(path)
    (tmp_path / "calibration").mkdir()
    assert read_fused(tmp_path / "veri.plda", "plda") == {}
    (tmp_path / "calibration/veri.plda.json").write_text(json.dumps(one | {"weights": [1, 2]}))
    assert read_fused(tmp_path / "veri.plda", "plda") == {"plda": (4.0, 0.01)}  # fused scores are the ratios
    (tmp_path / "calibration/veri.plda.json").write_text("{}")
    with pytest.raises(InputError, match=r"veri.plda.json: not a calibration \('threshold'\); calibrate again"):
        read_fused(tmp_path / "veri.plda", "plda")


def test_groups_by_duration_have_a_quarter_of_the_targets_each():
    rng = np.random.default_rng(0)
    seconds, is_target = rng.uniform(1, 9, 4000), rng.random(4000) < 0.5
    groups = duration_groups(seconds, is_target)
    assert sum(group.chosen for group in groups).tolist() == [1] * 4000
    assert all(abs(np.mean(group.chosen[is_target]) - 0.25) < 0.02 for group in groups)
    bound = groups[0].label.removeprefix("under ").removesuffix(" s")
    assert groups[0].chosen.tolist() == (seconds < float(bound)).tolist()
    assert [group.label for group in duration_groups(np.ones(9), np.ones(9, bool))] == ["under 1 s", "1 s and over"]


def test_group_rates_are_those_of_the_trials_whose_speakers_both_belong(work):
    one = next(one for one in Material(work).summaries if one.of.system == "bad")
    found = group_rates(one, read_traits(work / "data/test"))
    assert list(found) == ["shorter side", "gender"]  # no table of ages
    scores = {tuple(line.split()[:2]): float(line.split()[2]) for line in one.of.path.read_text().splitlines()}
    women = {pair: value for pair, value in scores.items() if all(int(name[1]) % 2 == 0 for name in pair)}
    targets = [value for (a, b), value in women.items() if a[:2] == b[:2]]
    others = [value for (a, b), value in women.items() if a[:2] != b[:2]]
    assert found["gender"]["women, girls"] == (measure(np.array(targets), np.array(others)).eer, len(targets))
    (work / "data/test/spk2age").write_text("".join(f"s{speaker} {9 + 20 * (speaker > 2)}\n" for speaker in range(6)))
    try:
        assert list(group_rates(one, read_traits(work / "data/test"))["age"]) == ["0 to 15 years", "16 to 35 years"]
        (work / "data/test/spk2age").write_text("s0 old\n")
        with pytest.raises(InputError, match="spk2age or utt2num_frames: could not convert"):
            read_traits(work / "data/test")
    finally:
        (work / "data/test/spk2age").unlink()


def test_every_group_is_inside_the_axes():
    rates = {"a": {"shorter side": {"x": (3.0, 50), "y": (4.0, 50)}, "gender": {"f": (30.0, 50)}}}
    for axis in draw_groups("t", rates, {"a": "a"}, ["a"]).axes:
        low, high = axis.get_ylim()
        assert low == 0 and high > 30


def test_the_pairs_share_their_first_utterance_where_the_list_allows_it():
    trials = [("a", "b", "nontarget"), ("c", "d", "target"), ("c", "e", "nontarget"), ("c", "f", "target")]
    assert choose_pairs(trials) == (("c", "d"), ("c", "e"))
    assert choose_pairs(trials[:2]) == (("c", "d"), ("a", "b"))
    assert choose_pairs(trials[:1]) is None and choose_pairs(trials[1:2]) is None


@torch.inference_mode()
def test_the_weights_of_a_pair_are_those_of_the_equations(tmp_path):
    """S = ReLU(W s + b) and Q likewise; R_ij = cos(S_i, Q_j); softmax_t of mean row . R_t / tau."""
    config = network_config({**CONFIG, "pooling": {"type": "cross_attentive"}, "feature_dim": 10,
                             "loss": {"type": "normalised_prototypical", "utterances": 2},
                             "train": {**CONFIG["train"], "batch_size": 8}}, "test")
    (tmp_path / "data/fbank").mkdir(parents=True)
    data = write_data(tmp_path / "data/fbank/test", 2, 3, 0)
    network = Network(config, 10, 2).eval()
    found = attend_pair(network, config, Material(tmp_path), "x", ("s0-u0", "s1-u1"))
    hidden = []
    for name in ("s0-u0", "s1-u1"):
        h = encoded(network, config, tmp_path, data, name)[0][0]
        hidden.append(torch.nn.functional.normalize(network.pooling.project(h).relu(), dim=-1).numpy())
    for side, (one, other) in enumerate((hidden, hidden[::-1])):
        r = one @ other.T
        scores = r @ r.mean(axis=0) / network.pooling.temperature
        expected = np.exp(scores - scores.max())
        assert found[side].weights[:, 0] == pytest.approx(expected / expected.sum(), rel=1e-3)


def test_principal_components_are_those_of_the_covariance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1] + 7
    points, share = principal_axes(x)
    unit = (x - x.mean(axis=0)) / np.linalg.norm(x - x.mean(axis=0), axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.cov(unit.T))
    expected = (unit - unit.mean(axis=0)) @ vectors[:, [-1, -2]]
    assert np.abs(points) == pytest.approx(np.abs(expected))
    assert share == pytest.approx(values[-2:].sum() / values.sum())
    assert principal_axes(np.ones((4, 3)))[0].tolist() == [[0, 0]] * 4


def test_heads_are_drawn_by_resolution():
    values = np.random.default_rng(0).random((5, 6))
    axis = new_figure(3, 3).subplots()
    draw_system(axis, "s", values, [1, 1, 5, 5, 10, 10])
    expected = [f"T = {t}: {values[:, 2 * n:2 * n + 2].mean():.3f}" for n, t in enumerate((1, 5, 10))]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == expected
    axis = new_figure(3, 3).subplots()
    draw_system(axis, "s", np.random.default_rng(0).random((2, 500)), [])
    assert axis.lines[0].get_ydata().tolist() == sorted(axis.lines[0].get_ydata().tolist())


def test_costs_are_added_over_the_jobs_of_a_step(tmp_path):
    folder = tmp_path / "data/fbank/test/log"
    folder.mkdir(parents=True)
    for job, text in enumerate(("time=3 threads=2 peak_mb=50", "time=5 threads=2 peak_mb=40"), start=1):
        (folder / f"make_feats.{job}.log").write_text(f"# a\n# Accounting: {text}\n# Ended (code 0) at noon\n")
    (folder / "cut.1.log").write_text("# a\n")
    assert read_costs(tmp_path) == [Cost("data/fbank/test", "make_feats", 2, 8, 5, 2, 50)]


def test_numbers_of_parameters_in_words():
    assert [in_words(n) for n in (950, 22_900, 846_000, 1_234_567)] == ["950", "22.9 k", "846 k", "1.23 M"]


def test_damaged_epochs_are_named(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("epoch\tloss\tvalid_eer\n1\t5.5\t20.0\n")
    assert read_epochs(path).tolist() == [[1, 5.5, 20]]
    for bad in ("", "epoch\tloss\n1\t2\n", "epoch\tloss\tvalid_eer\n1\tx\t2\n", "epoch\tloss\tvalid_eer\n1\n"):
        path.write_text(bad)
        with pytest.raises(InputError, match="train.tsv: wanted lines with epoch, loss, valid_eer"):
            read_epochs(path)


def test_differences_and_marks_are_those_of_the_paired_bootstrap(finished):
    found = read_differences(finished / "exp/differences.tsv")
    trials = finished / "data/test/trials" / LIST
    for backend in ("cosine", "plda"):
        scored = {name: read_scores_with_speakers(trials, finished / f"exp/{name}/scores_test/{LIST}.{backend}",
                                                  finished / "data/test/utt2spk") for name in SYSTEMS}
        eers = {name: measure(*one.parts()).eer for name, one in scored.items()}
        drawn = {name: equal_error_rates(one) for name, one in scored.items()}
        best = min(eers, key=eers.get)
        for name in SYSTEMS:
            one = found[LIST, backend, name]
            assert one.best == best and one.difference == pytest.approx(eers[name] - eers[best], abs=0.001)
            if name == best:
                assert mark(one) == "best"
                continue
            between = drawn[name] - drawn[best]
            assert (one.low, one.high) == pytest.approx(interval(between), abs=0.001)
            assert one.p == pytest.approx(chance(between), abs=0.001)
            assert mark(one) == ("*" if chance(between) < 0.05 else "=")
    assert {mark(one) for one in found.values()} == {"best", "*", "="}


def test_replicates_without_targets_leave_no_difference():
    key = "l", "b", "x"
    other, none = ("l", "b", "y"), np.full(9, np.nan)
    found = differences({key: 1.0, other: 2.0}, {key: none, other: none})
    assert found[1] == Difference("l", "b", "y", "x", 1.0, 0.0, 0.0, 1.0)
    assert differences({key: 1.0}, {}) == []


def row(system, eer, low="1.0", high="9.0"):
    values = (system, "plda", "easy", "9", "3", eer, low, high, *"0000", "1", "mini", "c")
    return dict(zip(COLUMNS, values, strict=True))


def test_the_table_marks_rivals_and_draws_intervals_on_one_scale():
    compared = {("easy", "plda", name): Difference("easy", "plda", name, "a", gap, -1, 2, p)
                for name, gap, p in (("a", 0.0, 1.0), ("b", 1.0, 0.04), ("c", 2.0, 0.4))}
    rows = table_rows([row("c", "7.0"), row("b", "6.0"), row("a", "5.0"), row("d", "4.0", "-", "-")], compared)
    assert [(one["system"], one["mark"]) for one in rows] == [("d", ""), ("a", "best"), ("b", "*"), ("c", "=")]
    assert rows[0]["interval"] == "-" and rows[0]["bar"] is None
    assert rows[2]["difference"] == "+1.00 (-1.00 to +2.00)" and rows[2]["p"] == "0.040"
    assert rows[1]["bar"]["high"] == 97 and rows[1]["bar"]["low"] < rows[1]["bar"]["eer"] < 97
    alone = table_rows([row("a", "5.0")], {key: one for key, one in compared.items() if key[2] == "a"})
    assert alone[0]["mark"] == ""  # nothing to compare with


def test_every_text_of_the_page_is_escaped():
    evil = "<script>alert('x')</script>\"&"
    shown = table_rows([row(evil, "5.0") | {"backend": evil, "list": evil, "seed": evil, "scale": evil}], {})
    drawn = {"alt": evil, "caption": evil, "source": "data:,", "kind": "line", "size": "wide", "pixels": [1, 1]}
    section = {"title": evil, "figures": [drawn], "left_out": [evil]}
    costs = [{"folder": evil, "step": evil, "jobs": 1, "seconds": 1, "longest": 1, "threads": 1, "peak_mb": 1}]
    page = render(title=evil, simulated=True, command=evil, date=evil, versions=evil, machine=evil, in_every_row=evil,
                  rows=shown, kinds=evil, left_out=[evil], sections=[section], costs=costs)
    assert "alert('x')" not in page and page.count("<script") == 1
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34;&amp;") == 21


def test_what_cannot_be_drawn_is_said(finished):
    page = (finished / "exp/report.html").read_text()
    for reason in ("Groups of easy by age: data preparation left no spk2age.",
                   "Parameters against EER on easy: no network.",
                   "Attention over time: no network whose pooling has several heads.",
                   "Weights of cross attentive pooling: no network that pools pairs."):
        assert f"<li>{reason}" in page
    assert "run.sh &lt;b&gt;" in page
    assert page.count("<figure ") == 8  # DET curves and histograms of two back-ends, groups, embeddings, epochs, costs


def test_a_missing_file_leaves_out_its_figure_alone(work, tmp_path):
    (work / "data/test/utt2spk").rename(tmp_path / "utt2spk")
    try:
        material = Material(work)
        sections = {title: figures.draw_section(some, material, tmp_path) for title, some in figures.SECTIONS[5:7]}
    finally:
        (tmp_path / "utt2spk").rename(work / "data/test/utt2spk")
    assert sections["Embeddings"]["left_out"] == [f"Embeddings: {work}/data/test/utt2spk is missing."]
    assert [one["file"] for one in sections["Training"]["figures"]] == ["training.svg"]


def test_bad_scores_end_in_one_line(tmp_path):
    work = write_work(tmp_path / "w", {"one": 2.0})
    path = work / f"exp/one/scores_test/{LIST}.plda"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([f"{lines[0].rsplit(' ', 1)[0]} nan\n", *lines[1:]]))
    done = call("steps.report.results", "--command", "x", work)
    assert done.returncode == 0
    assert "left out: one, 1 file of scores: scores changed since they were made" in done.stderr
    record = path.with_name(f".done.{path.name}")
    record.unlink()
    mark_done(record, describe(record, "score", {}, [str(work / "data/test/trials" / LIST)]), [path])
    done = call("steps.report.results", "--command", "x", work)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and "'nan' is not a finite number; score again" in line
