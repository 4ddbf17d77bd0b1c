"""Training that a queue tells to stop: it saves, and asks to be run again, in one process and in several."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from made_up_training import changed, make_corpus, trainer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.long)])
def test_a_queues_signal_saves_and_exits_for_a_requeue(corpus, tmp_path, number):
    config = changed(train={"epochs": 2000})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "nnet.training.train", "--num-threads", "1", str(tmp_path / "config.yaml"),
               *map(str, corpus), str(tmp_path / "x")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while time.time() < deadline and not (tmp_path / "x/log/train.tsv").exists():
        time.sleep(0.01)
    time.sleep(0.05)
    started = time.time()
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 99, said[-500:]
    assert time.time() - started < 10
    assert not (tmp_path / "x/model.safetensors").exists()
    again = trainer(corpus, tmp_path / "x", config)
    again.resume()
    assert again.step > 0
    found = re.search(r"saved after step (\d+)", said)
    assert found is None or again.step == int(found[1])  # during validation, the step before it was saved


@pytest.mark.long
def test_a_queues_signal_to_several_processes_saves_and_exits_for_a_requeue(corpus, tmp_path):
    """torchrun itself ends with 1; after an error, so does utils/torchrun_here."""
    config = changed(train={"epochs": 2000})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [ROOT / "utils/torchrun_here", "2", "nnet.training.train", "--num-threads", "1", tmp_path / "config.yaml",
               *corpus, tmp_path / "x"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for number in (signal.SIGTERM, signal.SIGUSR1):
        process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True,
                                   env=os.environ | {"PATH": path})
        deadline, before = time.time() + 60, rows_of(tmp_path / "x/log/train.tsv")
        while time.time() < deadline and rows_of(tmp_path / "x/log/train.tsv") <= before + 1:
            time.sleep(0.01)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 99, said[-3000:]
        assert not (tmp_path / "x/model.safetensors").exists() and not (tmp_path / "x/.stopped").exists()
    again = trainer(corpus, tmp_path / "x", config)
    again.resume()
    assert again.step > 0
    command[6] = tmp_path / "none"
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                          env=os.environ | {"PATH": path})
    assert done.returncode == 1 and f"{tmp_path}/none" in done.stderr


def rows_of(table):
    """The number of lines of a table that may not be there yet."""
    return table.read_text().count("\n") if table.exists() else 0
