"""Segments of utterances and scores of their pairs, against one pair at a time."""

import numpy as np
import pytest
import torch
from made_up import CONFIG, write_data

from nnet.config import network_config
from nnet.embed import load_network
from nnet.training.train import Trainer
from nnet.utterances import StoredUtterances
from steps.network.extract_segments import embed_segments
from steps.network.score_segments import PairScores, read_count
from tests.in_process import call
from utils.errors import InputError
from utils.kaldi.ark import RowReader

CPU = torch.device("cpu")
FRAMES, SEGMENTS = 30, 3


@pytest.fixture(scope="module", params=["temporal", "cross_attentive"])
def model(request, tmp_path_factory):
    """A model folder and its validation data."""
    folder = tmp_path_factory.mktemp("segments")
    train, valid = write_data(folder / "train", 6, 10, 0), write_data(folder / "valid", 3, 4, 1, trials=True)
    config = CONFIG | {"pooling": {"type": request.param}, "train": CONFIG["train"] | {"epochs": 2},
                       "loss": {"type": "normalised_prototypical", "softmax": True},
                       "frontend": {"cmn": "chunk", "norm_vars": True}}
    torch.set_num_threads(1)
    Trainer(network_config(config, "x"), train, valid, folder / "exp", CPU, seed=1).run()
    return folder / "exp", valid


def one_pair_at_a_time(network, a, b):
    """The mean cosine over all pairs of two utterances' segments (each segments x frames x F)."""
    total = 0.0
    with torch.inference_mode():
        for first in a:
            for second in b:
                x, y = torch.from_numpy(first)[None], torch.from_numpy(second)[None]
                if network.pairwise:
                    sides = (network.pooling.side(network.frames(part)[0]) for part in (x, y))
                    u, v = (network.head.embed(e[0]) for e in network.pooling.pairs(*sides))
                else:
                    u, v = network.embed_features(x), network.embed_features(y)
                total += torch.nn.functional.cosine_similarity(u, v).item()
    return total / len(a) / len(b)


def test_scores_are_the_means_over_all_pairs_of_segments(model, tmp_path):
    exp, data = model
    for job in (1, 2):
        done = call("steps.network.extract_segments", "--job", job, "--nj", 2, "--segments", SEGMENTS,
                    "--segment-frames", FRAMES, exp, data, tmp_path)
        assert done.returncode == 0, done.stderr
    scripts = "".join((tmp_path / f"segments.{job}.scp").read_text() for job in (1, 2))
    (tmp_path / "segments.scp").write_text(scripts)
    (tmp_path / "num_segments").write_text(f"{SEGMENTS}\n")
    done = call("steps.network.score_segments", "--max-shared-speakers", 1, exp, tmp_path, data / "trials/valid",
                tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    network, config = load_network(exp)
    utterances = StoredUtterances(data, config)
    parts = {name: utterances.segments(index, FRAMES, SEGMENTS) for index, name in enumerate(utterances.rows.ids)}
    lines = [line.split() for line in (tmp_path / "scores").read_text().splitlines()]
    trials = [line.split()[:2] for line in (data / "trials/valid").read_text().splitlines()]
    assert [line[:2] for line in lines] == trials
    assert len({line[2] for line in lines}) > len(lines) / 2
    for first, second, score in lines[::7]:
        assert float(score) == pytest.approx(one_pair_at_a_time(network, parts[first], parts[second]), abs=2e-4)
    assert len(list(embed_segments(network, utterances, range(2, 4), CPU, 100, SEGMENTS, FRAMES))) == 2


def test_segments_lie_at_regular_intervals_from_end_to_end(model):
    exp, data = model
    _, config = load_network(exp)
    utterances = StoredUtterances(data, config)
    index = int(np.argmax(utterances.rows.num_rows))
    raw = utterances.rows.read(index)
    found = utterances.segments(index, 20, 4)
    starts = np.linspace(0, len(raw) - 20, 4).round().astype(int)
    for segment, start in zip(found, starts, strict=True):
        part = raw[start:start + 20].astype(np.float64)
        np.testing.assert_allclose(segment, (part - part.mean(0)) / part.std(0), atol=1e-4)
    short = utterances.segments(index, len(raw) + 9, 2)
    np.testing.assert_array_equal(short[0], short[1])
    np.testing.assert_array_equal(short[0, len(raw):], short[0, :9])


def test_frames_that_do_not_split_into_segments_are_named(model, tmp_path):
    exp, data = model
    network, _ = load_network(exp)
    if not network.pairwise:
        pytest.skip("only for systems that pool pairs")
    from utils.kaldi.ark import ArkWriter
    with ArkWriter(tmp_path / "segments") as writer:
        writer.write("a", np.zeros((7, network.encoder.output_dim)))
    scores = PairScores(network, RowReader(tmp_path / "segments.scp"), SEGMENTS, CPU)
    with pytest.raises(Exception, match="a has 7 frames, not a multiple of 3 segments"):
        scores.scores(np.array([0]), np.array([0]))


@pytest.mark.parametrize("text", ["", "three", "0", "-2", "9" * 99, "2\n2"])
def test_a_damaged_number_of_segments_is_named(tmp_path, text):
    (tmp_path / "num_segments").write_text("10\n")
    assert read_count(tmp_path / "num_segments") == 10
    (tmp_path / "num_segments").write_text(text)
    with pytest.raises(InputError, match="num_segments: .* is not a number of segments; extract"):
        read_count(tmp_path / "num_segments")


@pytest.mark.parametrize(("option", "value"), [("--segment-frames", 5), ("--segments", 0)])
def test_unfit_segments_are_refused(model, tmp_path, option, value):
    done = call("steps.network.extract_segments", option, value, model[0], model[1], tmp_path)
    assert done.returncode == 1
    assert "fewer than the 15 frames that the encoder sees at once" in done.stderr
