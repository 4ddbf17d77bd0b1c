"""steps/train_network.sh refuses bad data before it trains."""

import os
import subprocess
from pathlib import Path

import torch
import yaml

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


def test_fine_tuning_is_stale_when_the_weights_of_its_model_change(tmp_path: Path) -> None:
    train, valid = write_data(tmp_path / "train", 4, 6, 0), write_data(tmp_path / "valid", 3, 4, 1, trials=True)
    for folder, speakers, utterances in ((train, 4, 6), (valid, 3, 4)):
        lines = (f"s{n} {' '.join(f's{n}-u{m}' for m in range(utterances))}\n" for n in range(speakers))
        (folder / "spk2utt").write_text("".join(lines))
    config = CONFIG | {"train": CONFIG["train"] | {"epochs": 3}}
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(config))
    Trainer(network_config(config, "x"), train, valid, tmp_path / "old", torch.device("cpu"), seed=1).run()
    (tmp_path / "status").touch()

    def train_network(**environment: str) -> None:
        done = subprocess.run(["bash", str(ROOT / "steps/train_network.sh"), "--max-shared-speakers", "1",
                               "--num-threads", "1", "--init", str(tmp_path / "old"), str(tmp_path / "system.yaml"),
                               str(train), str(valid), str(tmp_path / "tuned")], capture_output=True, text=True,
                              check=False, env={**os.environ, **environment})
        assert done.returncode == 0, done.stderr[-3000:]

    train_network()
    log = (tmp_path / "tuned/log/train.log").read_text()
    assert "4 of 4 speakers known, the classifier alone for 2 epochs" in log
    in_status = {"VOX_STATUS": str(tmp_path / "status"), "VOX_SCRATCH": str(tmp_path)}
    train_network(**in_status)
    with open(tmp_path / "old/model.safetensors", "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)[0]
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    train_network(**in_status)
    states = [line.split("\t") for line in (tmp_path / "status").read_text().splitlines()]
    assert [state[0] for state in states] == ["done", "stale"] and "old/model.safetensors changed" in states[1][2]
