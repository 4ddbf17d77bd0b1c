"""--device: which one it is, why there is none, and how it computes. No GPU is needed."""

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
import torch
import yaml
from made_up import CONFIG
from made_up_systems import write_untrained

from nnet import embed
from nnet.device import has_bf16, moved, one_at_a_time
from nnet.training import train
from nnet.training.distributed import start_processes
from tests.in_process import call
from utils import device
from utils.device import find_device
from utils.errors import InputError

CPU = torch.device("cpu")
# Programs of the i-vector chain, and how many files and folders they take.
PROGRAMS = {"steps.ivector.extract": 3, "steps.ivector.train_ubm": 3, "steps.ivector.train_extractor": 5}


def test_unknown_devices_are_named():
    assert find_device("cpu") == CPU
    with pytest.raises(InputError, match="--device gpu: wanted cpu, cuda or cuda:N"):
        find_device("gpu")
    with pytest.raises(InputError, match="--device cuda:99: "):
        find_device("cuda:99")


@pytest.mark.parametrize(("built", "driver", "message"), [
    (None, "12.4", "it was built without CUDA, the driver supports CUDA 12.4; install another build"),
    (None, None, "it was built without CUDA, no NVIDIA driver was found; install another build"),
    ("13.0", "12.4", "it was built for CUDA 13.0, the driver supports CUDA 12.4; install a newer driver"),
    ("12.6", "12.4", "it was built for CUDA 12.6, the driver supports CUDA 12.4; check nvidia-smi"),
    ("12.6", None, "it was built for CUDA 12.6, no NVIDIA driver was found; check nvidia-smi")])
def test_why_there_is_no_gpu(monkeypatch, built, driver, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(device, "driver_version", lambda: driver)
    with pytest.raises(InputError, match=f"finds no GPU here: {message}.*, or use --device cpu"):
        find_device("cuda")


def test_the_driver_that_is_there():
    """A version, or None without a driver."""
    found = device.driver_version()
    assert found is None or re.fullmatch(r"\d+\.\d+", found)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_ivector_programs_say_that_there_is_no_gpu(monkeypatch, tmp_path, program):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = call(program, "--device", "cuda", *[tmp_path / "none"] * PROGRAMS[program])
    assert done.returncode == 1
    assert re.fullmatch(r".*error: --device cuda: PyTorch .* finds no GPU here: .*\n", done.stderr), done.stderr


@pytest.mark.parametrize(("gpus", "message"), [(0, "finds no GPU here"), (1, "this machine has 1 GPUs")])
def test_processes_without_a_gpu_each(monkeypatch, gpus, message):
    """As torchrun starts the second of two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"--device cuda:1: .*{message}"):
        start_processes("cuda")


def test_only_training_rounds_to_tf32(monkeypatch, tmp_path):
    """PyTorch's default for convolutions on a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(InputError, match="--device cuda:2: this machine has 2 GPUs, counted from 0"):
        find_device("cuda:2")
    monkeypatch.setattr(train, "Trainer", mock.Mock(side_effect=InputError("far enough")))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    done = call("nnet.training.train", "--device", "cuda", tmp_path / "config.yaml", *[tmp_path] * 3)
    assert "far enough" in done.stderr and torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("where", "together"), [(CPU, 3), (torch.device("cuda"), 1)])
def test_threads_share_a_gpus_memory(where, together):
    """So that one of them computes at a time; on a CPU, each has its core."""
    inside, most, meet = [], [], threading.Barrier(3)

    def compute(value):
        inside.append(value)
        with contextlib.suppress(threading.BrokenBarrierError):
            meet.wait(0.2)  # until all are inside, if they may be
        most.append(len(inside))
        inside.remove(value)
        return -value

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one_at_a_time(compute, where), range(3))) == [0, -1, -2]
    assert max(most) == together


def test_a_loaded_model_computes_one_batch_at_a_time(monkeypatch, tmp_path):
    devices = []
    monkeypatch.setattr(embed, "one_at_a_time", lambda compute, where: devices.append(where) or compute)
    embed.load(write_untrained(tmp_path / "model"))
    assert devices == [CPU]


def test_the_gpu_that_is_used_is_asked_for_bf16(monkeypatch):
    """With an old and a new GPU in one machine."""
    current = []
    monkeypatch.setattr(torch.cuda, "device", lambda where: mock.MagicMock(
        __enter__=lambda _: current.append(where.index), __exit__=lambda *_: current.pop()))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current == [1])
    assert [has_bf16(torch.device("cuda", number)) for number in (0, 1)] == [False, True]


def test_copies_to_a_gpu_are_pinned_and_do_not_wait():
    class Watched:
        """Records what is done with a tensor."""
        def __init__(self):
            self.done = []

        def pin_memory(self):
            self.done.append("pinned")
            return self

        def to(self, where, non_blocking=False):
            self.done.append((where.type, non_blocking))
            return self

    for where, wanted in ((torch.device("cuda", 1), ["pinned", ("cuda", True)]), (CPU, [("cpu", False)])):
        assert moved(Watched(), where).done == wanted
    x = torch.ones(3)
    assert moved(x, CPU) is x
