"""The recipe for any folder of recordings, as a user calls it: stage 0, the sizes that it picks, and settings."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from tests.tiny import make_conf

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Noise of twelve speakers in two sessions."""
    root, rng = tmp_path_factory.mktemp("corpus") / "my corpus", np.random.default_rng(0)
    for speaker in range(12):
        for place in range(4):
            path = root / f"Speaker {speaker}/day {place % 2}/{place}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * rng.normal(size=24000), 16000)
    return root


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    return make_conf(tmp_path_factory.mktemp("conf"))


def run(conf, work, *more):
    words = ["bash", ROOT / "egs/mycorpus/run.sh", "--conf", conf, "--work", work, "--nj", "1", "--cmd", "run", *more]
    return subprocess.run(words, capture_output=True, text=True, check=False,
                          env={**os.environ, "VOX_PICKED": "train.epochs=999"})


def test_stage_0_prints_the_summary_and_later_stages_take_the_sizes_that_suit_the_data(corpus, conf, tmp_path):
    work = tmp_path / "a work folder"
    done = run(conf, work, "--corpus", corpus, "--systems", "ivector xvector", "--stop-stage", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Corpus {corpus}: 12 speakers, 48 recordings, 0.02 hours, 24 sessions\n")
    assert len((work / "data/valid/spk2utt").read_text().splitlines()) == 2
    assert not list((work / "exp").glob("*/system.yaml"))
    settings = ("--set", "train.epochs=3", "--set", "extractor.dim=5 train.batch_size=8")
    # Stage 2 ends at once, since there are no features; the systems have been resolved by then.
    done = run(conf, work, "--stage", "2", "--stop-stage", "2", "--systems", "ivector xvector", *settings)
    assert done.returncode == 1 and "data/mfcc24/train/feats.scp is missing" in done.stderr
    ivector, xvector = (yaml.safe_load((work / f"exp/{name}/system.yaml").read_text())
                        for name in ("ivector", "xvector"))
    assert ivector["ubm"]["num_gaussians"] == 32 and ivector["extractor"]["dim"] == 5
    assert xvector["train"]["epochs"] == 3 and xvector["train"]["batch_size"] == 8
    done = run(conf, work, "--stage", "2", "--stop-stage", "2", "--systems", "xvector", "--scale", "mini")
    assert yaml.safe_load((work / "exp/xvector/system.yaml").read_text())["train"]["epochs"] == 2
    done = run(conf, work, "--corpus", corpus, "--systems", "ivector xvector", "--status")
    assert done.returncode == 0 and done.stdout.startswith("done    stage 0: ") and "to do   stage 8: " in done.stdout


def test_calls_that_cannot_work_end_with_one_line(corpus, conf, tmp_path):
    for words, message in (
            ((), "no corpus: name the folder of your recordings with --corpus DIR"),
            (("--stage", "1"), "data/picked.sh is missing; run stage 0, which looks at the data, first"),
            (("--corpus", corpus, "--set", "train.epoch=3"),
             "--set: no chosen system has the key 'train.epoch'; did you mean train.epochs?"),
            (("--corpus", corpus, "--speaker-regex", "x"), "--speaker-regex 'x' has no group")):
        done = run(conf, tmp_path / "work", "--systems", "ivector xvector", *words)
        assert done.returncode == 1
        assert message in done.stderr.splitlines()[-1], done.stderr
        assert not (tmp_path / "work/data/train").exists()
    done = subprocess.run(["bash", ROOT / "egs/voxceleb/run.sh", "--scale", "auto", "--work", tmp_path / "v"],
                          capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "invalid choice: 'auto'" in done.stderr
