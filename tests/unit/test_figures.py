"""The numbers in figures: DET points against counting, entropies and weights against their definitions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import CONFIG, write_data

from nnet.attention import Attention
from nnet.config import network_config
from nnet.model import Network
from nnet.utterances import StoredUtterances
from steps.report.det_curves import draw as draw_det
from steps.report.det_curves import limits
from steps.report.draw_attention import attend, draw, entropies
from steps.report.material import POINTS, Summary
from steps.report.plotting import line_style, mark_style, save_figure
from steps.report.provenance import Origin
from steps.report.results import Scores
from utils.errors import InputError
from utils.metrics import det_points, measure
from utils.simulated import has_simulated, is_simulated


def counted(targets, nontargets, threshold):
    """False-alarm and miss rate by counting, trials at the threshold accepted."""
    return (sum(score >= threshold for score in nontargets) / len(nontargets),
            sum(score < threshold for score in targets) / len(targets))


def test_det_points_are_those_of_every_score():
    targets, nontargets = np.array([3.0, 1.0, 2.0, 2.0]), np.array([0.0, 2.0, 1.5, -1.0, 0.0])
    thresholds, false_alarms, misses = det_points(targets, nontargets, POINTS)
    assert thresholds.tolist() == [-1, 0, 1, 1.5, 2, 3]
    expected = [counted(targets, nontargets, threshold) for threshold in (-1, 0, 1, 1.5, 2, 3)]
    assert np.allclose(np.stack([false_alarms, misses], axis=1), expected)


def test_a_thinned_curve_lies_on_the_whole_one_and_passes_through_the_eer():
    rng = np.random.default_rng(0)
    targets, nontargets = rng.normal(2, 1, 20000), rng.normal(0, 1, 30000)
    _, false_alarms, misses = det_points(targets, nontargets, POINTS)
    assert len(misses) <= 4 * POINTS
    ordered = np.sort(np.concatenate([targets, nontargets]))
    whole = np.array([(np.mean(nontargets >= t), np.mean(targets < t)) for t in ordered[::500]])
    assert np.interp(whole[:, 0], false_alarms[::-1], misses[::-1]) == pytest.approx(whole[:, 1], abs=0.006)
    assert misses.min() == 0 and false_alarms.min() == pytest.approx(1 - np.mean(nontargets < targets.max()))
    crossing = np.argmin(np.abs(misses - false_alarms))
    assert 100 * misses[crossing] == pytest.approx(measure(targets, nontargets).eer, abs=0.3)


def test_limits_are_ticks_around_all_curves():
    assert limits([9.0, 3.0]) == (0.2, 40)
    assert limits([0.0]) == (0.01, 20)


def summary(system, eer):
    """A summary of made-up scores with this EER in its label."""
    rng = np.random.default_rng(0)
    points = det_points(rng.normal(1, 1, 100), rng.normal(0, 1, 100), POINTS)[1:]
    of = Scores("t", system, "plda", Path("s"), Path("t"), Origin("1", "mini", "c"))
    return Summary(of, eer, 0.0, *points, np.arange(4.0), np.ones(3), np.ones(3))


def test_28_systems_have_28_styles_and_the_figure_names_each_with_its_eer(tmp_path):
    assert len({str(line_style(number)) for number in range(28)}) == 28
    assert len({str(mark_style(number)) for number in range(49)}) == 49
    two = [summary("x", 30.0), summary("$y", 4.0)]
    (axis,) = draw_det("t", two, ["$y", "x"], 1, 40).axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["$y, EER 4.00 %", "x, EER 30.00 %"]
    assert [line.get_color() for line in axis.lines[::2][:2]] == [line_style(n)["color"] for n in (0, 1)]
    many = draw_det("t", [summary(f"s{n}", n + 1.0) for n in range(20)], [f"s{n}" for n in range(20)], 1, 40)
    assert len(many.legends[0].get_texts()) == 20  # below the axes, which they would cover


def test_a_figure_is_written_in_all_formats_with_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        save_figure(draw_det("t", [summary("x", 3.0)], ["x"], 1, 40), tmp_path / name)
    starts = {"png": b"\x89PNG", "pdf": b"%PDF-", "svg": b"<?xml"}
    for kind, start in starts.items():
        first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("a", "b"))
        assert first.startswith(start) and first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{n}.{kind}" for n in "ab" for kind in starts)


def test_entropies_are_those_of_the_definition():
    weights = np.array([[0.25, 1.0, 0.7], [0.25, 0.0, 0.1], [0.25, 0.0, 0.1], [0.25, 0.0, 0.1]])
    expected = [-sum(a * math.log(a) for a in column if a > 0) for column in weights.T]
    assert entropies(weights) == pytest.approx(expected)
    assert expected[0] == pytest.approx(math.log(4)) and expected[1] == 0


def test_weights_are_spread_over_the_frames_that_were_kept():
    one = Attention(np.array([[0.2], [0.8]]), np.array([0, 0, -1, 1, 1]))
    assert one.over_time()[:, 0] == pytest.approx([0.4, 0.4, 0, 1.6, 1.6])


def test_attend_gives_the_weights_of_the_whole_utterance(tmp_path):
    config = network_config({**CONFIG, "pooling": {"type": "multi_head", "heads": 3}, "feature_dim": 10}, "test")
    data = write_data(tmp_path / "data", 2, 3, 0)
    network = Network(config, 10, 2).eval()
    found = attend(network, config, tmp_path, data, "s1-u0")
    x = torch.from_numpy(StoredUtterances(data, config).whole(3))[None]
    with torch.no_grad():
        h = network.encoder(x, None)[0][0].numpy()
    u = network.pooling.u.detach().numpy()
    for head in range(3):
        scores = [math.fsum(float(a) * float(b) for a, b in zip(frame[8 * head:8 * head + 8], u[head], strict=True))
                  for frame in h]
        total = math.fsum(math.exp(score) for score in scores)
        assert found.weights[:, head] == pytest.approx([math.exp(score) / total for score in scores], rel=1e-4)
    assert len(found.frames) == x.shape[1] and set(found.frames) == set(range(len(h)))
    with pytest.raises(InputError, match="no utterance s9-u9; name one"):
        attend(network, config, tmp_path, data, "s9-u9")


def test_the_figure_shows_every_head_the_mean_and_the_single_head():
    rng = np.random.default_rng(0)
    many = Attention(rng.dirichlet(np.ones(20), 4).T, np.arange(160) // 8)
    single = {"one": Attention(np.full((20, 1), 1 / 20), np.arange(160) // 8)}
    figure = draw("t", rng.normal(size=(160, 80)), "many", many, single)
    lines = next(axis for axis in figure.axes if "against" in axis.get_title("left")).patches
    assert [line.get_label() for line in lines] == ["many: mean of 4 heads", "one: single head"]
    assert lines[0].get_data().values == pytest.approx(many.over_time().mean(axis=1))
    assert lines[1].get_data().values == pytest.approx(np.ones(160))
    bars = next(axis for axis in figure.axes if axis.get_title("left") == "entropy").patches
    assert [bar.get_width() for bar in bars] == pytest.approx(list(entropies(many.weights)))


def test_simulated_speakers_are_known_by_their_ids(tmp_path):
    assert is_simulated("simulated00001-s1-00001") and not is_simulated("id10270-x6uYqmx31kE-00001")
    for first, expected in (("simulated10001-s1-00001", True), ("id10270-x-00001", False)):
        (tmp_path / "list").write_text(f"{first} id2-x-00001 nontarget\n")
        assert has_simulated(tmp_path / "list") == expected
