"""Small networks and i-vector systems: trained on the data of `made_up.write_speech`, or with random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from nnet.config import network_config, plain
from nnet.model import Network
from nnet.training.train import Trainer
from tests.in_process import call
from tests.unit.made_up import CONFIG, FEATURES
from utils.features.options import read_feature_options, written_out
from utils.kaldi.objects import write_vector

FRONTEND = {"deltas": 1, "cmn": "sliding", "cmn_window": 60, "vad": True}
IVECTOR = {"kind": "ivector", "features": "mfcc24", "frontend": FRONTEND,
           "ubm": {"num_gaussians": 4, "split_iterations": 2}, "extractor": {"dim": 3, "iterations": 1}}


def train_network(data: Path, folder: Path, **changes: Any) -> None:
    """Train a network on the voiced frames of MFCC; changes: of its configuration."""
    config = CONFIG | {"features": "mfcc24", "frontend": FRONTEND,
                       "train": CONFIG["train"] | {"epochs": 30, "chunk_frames": 20}, **changes}
    Trainer(network_config(config, "x"), data, data, folder, torch.device("cpu"), seed=1).run()


def train_systems(data: Path, folder: Path) -> None:
    """Train `network` and `ivector` in a folder, both on the voiced frames of MFCC."""
    train_network(data, folder / "network")
    exp = folder / "ivector"
    exp.mkdir()
    (exp / "system.yaml").write_text(yaml.safe_dump(IVECTOR))
    for words in (("train_ubm", exp / "system.yaml", data, exp),
                  ("train_extractor", exp / "system.yaml", data, exp / "final.ubm", exp / "unfinished", exp)):
        (exp / "unfinished").mkdir()  # as the steps, each of which makes its own
        done = call(f"steps.ivector.{words[0]}", *words[1:])
        assert done.returncode == 0, done.stderr
        shutil.rmtree(exp / "unfinished")


def write_untrained(folder: Path, features: str = "fbank40", **changes: Any) -> Path:
    """Write the model folder of a network with random weights; changes: of its configuration."""
    options = read_feature_options(FEATURES / f"{features}.conf")
    config = network_config(CONFIG | {
        "features": features, "feature_dim": options.dim, "speakers": 3, "feature_options": written_out(options),
        **changes}, "x")
    torch.manual_seed(1)
    network = Network(config, options.dim, 3)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors")
    return folder


def write_calibrated(folder: Path, **changes: Any) -> Path:
    """Write a network with random weights, like `write_untrained`, whose cosine is 0 offset and has a calibration."""
    write_untrained(folder, **changes)
    (folder / "backend/cosine").mkdir(parents=True)
    (folder / "backend/cosine/chain").write_text("center length cosine\n")
    write_vector(folder / "backend/cosine/mean.vec", np.zeros(12, np.float32))
    (folder / "calibration.json").write_text(json.dumps({"cosine": {
        "weights": [20.0], "offset": -19.0, "prior": 0.05, "trials": 210, "eer": 9.5, "cllr": 0.4, "histogram": {
            "low": -1.0, "high": 1.0, "targets": [0, 0, 2, 8], "nontargets": [60, 90, 40, 10]}}}))
    return folder
