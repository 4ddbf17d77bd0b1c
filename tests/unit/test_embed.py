"""Trained systems: what their folders say, and embeddings of files, arrays and stored features."""

import shutil

import pytest
import torch
import yaml

from nnet.config import network_config
from nnet.training.train import Trainer
from tests.in_process import call
from tests.unit.made_up import CONFIG, write_speech

KINDS = ("network", "ivector")
FRONTEND = {"deltas": 1, "cmn": "sliding", "cmn_window": 60, "vad": True}
IVECTOR = {"kind": "ivector", "features": "mfcc24", "frontend": FRONTEND,
           "ubm": {"num_gaussians": 4, "split_iterations": 2}, "extractor": {"dim": 3, "iterations": 1}}


def succeed(module, *words):
    done = call(module, *words)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech") / "data")


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    """A network and an i-vector system, both of voiced frames of MFCC."""
    folder = tmp_path_factory.mktemp("models")
    config = CONFIG | {"features": "mfcc24", "frontend": FRONTEND,
                       "train": CONFIG["train"] | {"epochs": 30, "chunk_frames": 20}}
    Trainer(network_config(config, "x"), data, data, folder / "network", torch.device("cpu"), seed=1).run()
    exp = folder / "ivector"
    (exp / "unfinished").mkdir(parents=True)
    (exp / "system.yaml").write_text(yaml.safe_dump(IVECTOR))
    succeed("steps.ivector.train_ubm", exp / "system.yaml", data, exp)
    succeed("steps.ivector.train_extractor", exp / "system.yaml", data, exp / "final.ubm", exp / "unfinished", exp)
    return folder


EXTRACT = {"network": "steps.network.extract", "ivector": "steps.ivector.extract"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_refuses_voice_activity_of_other_options(models, data, tmp_path, kind):
    other = shutil.copytree(data, tmp_path / "data")
    (other / "vad.conf").write_text("--vad-energy-threshold=4\n")
    done = call(EXTRACT[kind], models / kind, other, tmp_path)
    assert done.returncode == 1
    assert (f"{other}: voice activity has vad-energy-threshold 4, {models / kind} was trained on 5.5; name data "
            "made with the same options, or train again\n") in done.stderr
    (other / "vad.conf").unlink()
    done = succeed(EXTRACT[kind], models / kind, other, tmp_path)
    assert done.stderr.count("does not say the options of its voice activity; they were not compared") == 1
