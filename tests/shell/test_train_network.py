"""steps/train_network.sh refuses bad data before it trains, and trains again if a model that it needs changes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from nnet.config import network_config
from nnet.training.train import Trainer
from tests.unit.made_up import CONFIG, write_data

ROOT = Path(__file__).resolve().parents[2]


def test_validation_on_speakers_who_are_trained_on_is_refused(tmp_path: Path) -> None:
    train, valid = write_data(tmp_path / "train", 4, 6, 0), write_data(tmp_path / "valid", 3, 4, 1, trials=True)
    for folder, speakers, utterances in ((train, 4, 6), (valid, 3, 4)):
        lines = (f"s{n} {' '.join(f's{n}-u{m}' for m in range(utterances))}\n" for n in range(speakers))
        (folder / "spk2utt").write_text("".join(lines))
    config = CONFIG | {"train": CONFIG["train"] | {"epochs": 1}}
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(config))

    def train_network(*options: object) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", str(ROOT / "steps/train_network.sh"), *map(str, options), "--num-threads", "1",
                               str(tmp_path / "system.yaml"), str(train), str(valid), str(tmp_path / "exp")],
                              capture_output=True, text=True, check=False)

    done = train_network()
    assert done.returncode == 1
    assert f"{valid}: 3 of its 3 speakers are also in the training data: s0, s1, s2; remove them" in done.stderr
    assert not (tmp_path / "exp/model.safetensors").exists() and not (tmp_path / "exp/log").exists()
    done = train_network("--max-shared-speakers", 1)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.long
def test_another_model_to_start_or_to_learn_from_makes_the_network_stale(tmp_path: Path) -> None:
    train, valid = write_data(tmp_path / "train", 4, 6, 0), write_data(tmp_path / "valid", 3, 4, 1, trials=True)
    for folder in (train, valid):
        lines = {}
        for name, speaker in map(str.split, (folder / "utt2spk").read_text().splitlines()):
            lines.setdefault(speaker, []).append(name)
        (folder / "spk2utt").write_text("".join(f"{one} {' '.join(names)}\n" for one, names in lines.items()))
    config, exp = CONFIG | {"train": CONFIG["train"] | {"epochs": 2}}, tmp_path / "work/net"
    Trainer(network_config(config, "x"), train, valid, tmp_path / "old", torch.device("cpu"), seed=1).run()
    shutil.copytree(tmp_path / "old", tmp_path / "other")
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(config))

    def train_network(old: str, state: Path | None = None) -> str:
        asked = {"VOX_STATUS": str(state), "VOX_SCRATCH": str(tmp_path)} if state else {}
        words = ("--num-threads", 1, "--max-shared-speakers", 1, "--init", old, tmp_path / "system.yaml", train, valid,
                 exp)
        done = subprocess.run(["bash", str(ROOT / "steps/train_network.sh"), *map(str, words)], cwd=tmp_path,
                              capture_output=True, text=True, check=False, env=os.environ | asked)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    def state(old: str) -> list[str]:
        (tmp_path / "state").write_text("")
        train_network(old, tmp_path / "state")
        return (tmp_path / "state").read_text()

    train_network("old")
    said = (exp / "log/train.log").read_text()
    assert f"starting from {tmp_path}/old: 4 of 4 speakers known, the classifier alone for 1 epochs" in said
    assert "up to date" in train_network(f"{tmp_path}/other/../old")
    assert state("old").startswith("done\t")
    said = state("other")
    assert said.startswith("stale\t") and said.endswith("network.yaml changed\n")
    weights = load_file(tmp_path / "old/model.safetensors")
    save_file(weights | {"loss.weight": weights["loss.weight"] + 1}, tmp_path / "old/model.safetensors")
    said = state("old")
    assert said.startswith("stale\t") and said.endswith("old/model.safetensors changed\n")

    shutil.copytree(tmp_path / "other", exp.parent / "teacher")
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(config | {"distil": {"models": ["teacher"]}}))
    train_network("")
    assert state("").startswith("done\t")
    save_file(weights | {"loss.weight": weights["loss.weight"] + 1}, exp.parent / "teacher/model.safetensors")
    said = state("")
    assert said.startswith("stale\t") and said.endswith("teacher/model.safetensors changed\n")
