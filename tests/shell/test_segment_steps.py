"""From a trained network to scores by segments: extract_segments.sh, score_segments.sh; repeats and bad input."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from nnet.config import network_config
from nnet.training.train import Trainer
from steps.report.results import words_of
from tests.unit.made_up import CONFIG, write_data

ROOT = Path(__file__).resolve().parents[2]


ALLOWED = "--max-shared-speakers", 1  # the synthetic test speakers have the names of the training speakers


def call(script, *words):
    return subprocess.run(["bash", str(ROOT / "steps" / script), *map(str, words)], capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that pools pairs, and validation data."""
    folder = tmp_path_factory.mktemp("model")
    train, valid = write_data(folder / "train", 4, 6, 0), write_data(folder / "valid", 3, 4, 1, trials=True)
    config = CONFIG | {"pooling": {"type": "cross_attentive"}, "loss": {"type": "normalised_prototypical"},
                       "train": CONFIG["train"] | {"epochs": 1}}
    torch.set_num_threads(1)
    Trainer(network_config(config, "x"), train, valid, folder / "exp", torch.device("cpu"), seed=1).run()
    (valid / "spk2utt").write_text("".join(f"s{n} {' '.join(f's{n}-u{m}' for m in range(4))}\n" for n in range(3)))
    return folder / "exp", valid


def test_any_number_of_jobs_gives_the_same_scores_and_nothing_is_done_twice(model, tmp_path):
    exp, data = model
    found = []
    for jobs in (1, 2):
        out = tmp_path / f"segments{jobs}"
        done = call("extract_segments.sh", "--nj", jobs, "--segments", 4, "--segment-frames", 20, exp, data, out)
        assert done.returncode == 0, done.stderr
        scores = tmp_path / f"scores{jobs}/valid.segments"
        done = call("score_segments.sh", *ALLOWED, exp, out, data / "trials/valid", scores)
        assert done.returncode == 0, done.stderr
        found.append(np.array([float(line.split()[2]) for line in scores.read_text().splitlines()]))
        before = scores.stat().st_mtime_ns
        assert call("extract_segments.sh", "--nj", 3, "--segments", 4, "--segment-frames", 20, exp, data,
                    out).returncode == 0
        assert call("score_segments.sh", *ALLOWED, exp, out, data / "trials/valid", scores).returncode == 0
        assert scores.stat().st_mtime_ns == before
    assert words_of(scores) == "the mean cosine of the 16 pairs of 4 segments of 20 frames"
    assert len(found[0]) == 66
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.long
def test_other_segments_make_stale_scores_again(model, tmp_path):
    exp, data = model
    scores = tmp_path / "scores/valid.segments"
    texts = []
    for segments in (2, 3):
        done = call("extract_segments.sh", "--segments", segments, "--segment-frames", 20, exp, data, tmp_path / "out")
        assert done.returncode == 0, done.stderr
        assert call("score_segments.sh", *ALLOWED, exp, tmp_path / "out", data / "trials/valid", scores).returncode == 0
        texts.append(scores.read_text())
    assert texts[0] != texts[1]


def test_speakers_who_are_trained_on_are_refused(model, tmp_path):
    exp, data = model
    call("extract_segments.sh", "--segments", 2, "--segment-frames", 20, exp, data, tmp_path / "out")
    done = call("score_segments.sh", exp, tmp_path / "out", data / "trials/valid", tmp_path / "s/x.segments")
    assert done.returncode == 1
    assert "trials/valid: 3 of its 3 speakers are also in the training data: s0, s1, s2; remove them" in done.stderr
    assert not (tmp_path / "s/x.segments").exists()


def test_bad_input_leaves_no_scores(model, tmp_path):
    exp, data = model
    done = call("score_segments.sh", *ALLOWED, exp, tmp_path / "none", data / "trials/valid", tmp_path / "s/x.segments")
    assert done.returncode == 1
    assert "segments.scp is missing or empty; run the stage that makes it first" in done.stderr
    done = call("extract_segments.sh", "--segment-frames", 9, exp, data, tmp_path / "out")
    assert done.returncode == 1
    assert "--segment-frames 9; wanted 1 or more, and no fewer than" in done.stderr
    call("extract_segments.sh", "--segments", 2, "--segment-frames", 20, exp, data, tmp_path / "out")
    (tmp_path / "list").write_text("s0-u0 s9-u9 target\n")
    done = call("score_segments.sh", *ALLOWED, exp, tmp_path / "out", tmp_path / "list", tmp_path / "s/x.segments")
    assert done.returncode == 1
    assert "1 ids have no embedding: s9-u9" in done.stderr
    assert not (tmp_path / "s/x.segments").exists()
