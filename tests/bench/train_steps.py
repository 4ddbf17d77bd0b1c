"""Training speed of a system: the loader alone, the device alone, whole steps, the time for an epoch of VoxCeleb at
that rate, and the share of the device's limit that is reached.

The data are synthetic: the configured features' dimension, 200 utterances of 8 s in a 2-byte archive, page cache warm.
The limit is the rate of large matrix products in the precision of the configuration, measured in the same run;
operations are those of products and convolutions, forward and backward.

e.g.: python3 -m tests.bench.train_steps --scale mini egs/voxceleb/conf/xvector.yaml
"""

import argparse
import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.utils.flop_counter import FlopCounterMode

from nnet.config import NetworkConfig, network_config
from nnet.device import keep_freed_memory
from nnet.training.data import Batch, batches_ahead
from nnet.training.train import Trainer
from utils.config import SCALES, load_config
from utils.device import find_device
from utils.errors import run_main
from utils.features.options import read_feature_options
from utils.kaldi.ark import ArkWriter

UTTERANCES, FRAMES, SPEAKERS = 200, 800, 50
CORPORA = {"VoxCeleb1": 148_642, "VoxCeleb2": 1_092_009}


def make_data(folder: Path, conf: Path, audio: bool) -> None:
    """Write a data directory with features of the kind in `conf`, and trials for the validation.

    audio: also write audio of the same lengths.
    """
    options = read_feature_options(conf)
    rng = np.random.default_rng(0)
    ids = [f"id{row % SPEAKERS:05}-{row:05}" for row in range(UTTERANCES)]
    ids.sort()
    folder.mkdir()
    with ArkWriter(folder / "feats", compression=3) as writer:
        for name in ids:
            writer.write(name, rng.normal(size=(FRAMES, options.dim)))
    (folder / "utt2spk").write_text("".join(f"{name} {name[:7]}\n" for name in ids))
    (folder / "utt2num_frames").write_text("".join(f"{name} {FRAMES}\n" for name in ids))
    shutil.copy(conf, folder / "feats.conf")
    if audio:
        frame = options.kaldi.frame_opts
        samples = options.rate * round(FRAMES * frame.frame_shift_ms) // 1000
        if frame.snip_edges:
            samples += options.rate * round(frame.frame_length_ms - frame.frame_shift_ms) // 1000
        for name in ids:
            soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(samples), options.rate, subtype="PCM_16")
        (folder / "wav.scp").write_text("".join(f"{name} {folder}/{name}.wav\n" for name in ids))
    (folder / "trials").mkdir()
    (folder / "trials/valid").write_text(f"{ids[0]} {ids[1]} target\n{ids[0]} {ids[-1]} nontarget\n")


def seconds_each(action: Callable[[int], object], device: torch.device, count: int) -> float:
    """Return the median seconds of action(0), action(1), ..., after three calls to warm up."""
    found = []
    for number in range(count + 3):
        started = time.perf_counter()
        action(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return float(np.median(found[3:]))


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of large matrix products."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # as PyTorch's convolutions in fp32
    return 2 * size**3 / seconds_each(lambda _: a @ b, device, 10)


def hours(seconds: float) -> str:
    """Return a time in hours, or in minutes if it is short."""
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min"


def measure(config: NetworkConfig, folder: Path, device: torch.device, steps: int, channels_last: bool) -> list[str]:
    """Return the lines of the report on a configuration."""
    trainer = Trainer(config, folder, folder, folder / "exp", device, 1)
    trainer.steps = 10**9  # a schedule far from its end
    trainer.model = trainer.network
    if not channels_last:
        trainer.network.to(memory_format=torch.contiguous_format)
    batch = trainer.data.batch(0)
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(0, batch)
    alone = iter(batches_ahead(trainer.data, 0, steps + 3, torch.device("cpu")))
    loading = seconds_each(lambda _: next(alone), torch.device("cpu"), steps)
    on_device = Batch(*(part if part is None else part.to(device) for part in batch))
    computing = seconds_each(lambda step: trainer.train_step(step, on_device), device, steps)
    batches = batches_ahead(trainer.data, 0, steps + 3, device)
    source = iter(batches)

    def whole(_: int) -> None:
        trainer.train_step(*next(source))

    stepping = seconds_each(whole, device, steps)
    size = len(batch.x)
    limit = peak(device, torch.bfloat16 if trainer.bf16 else torch.float32)
    rate, each = counter.get_total_flops() / computing, stepping / size
    workers = f" with {trainer.data.workers} worker processes" if trainer.data.workers else ""
    return [f"loader alone   {loading:8.4f} s per batch, {size / loading:8.0f} chunks/s{workers}",
            f"device alone   {computing:8.4f} s per step,  {size / computing:8.0f} utterances/s",
            f"whole steps    {stepping:8.4f} s per step,  {size / stepping:8.0f} utterances/s, waiting for data "
            f"{batches.waited / (stepping * (steps + 3)):.1%}",
            "an epoch       " + ", ".join(f"{name} ({count:,} utterances) {hours(count * each)}"
                                           for name, count in CORPORA.items()),
            f"operations     {counter.get_total_flops() / 1e9:8.1f} G per step: {rate / 1e9:.0f} G/s, "
            f"{rate / limit:.0%} of the {limit / 1e9:.0f} G/s of matrix products"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--num-threads", type=int, default=2, help="threads on a CPU (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps to time (default: %(default)s)")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--chunk-frames", type=int)
    parser.add_argument("--precision", choices=("bf16", "fp32"))
    parser.add_argument("--channels-last", choices=("true", "false"), default="true")
    parser.add_argument("config", type=Path, help="a system's YAML, next to a folder features/")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.num_threads)
    device = find_device(arguments.device, tf32=True)
    config = network_config(load_config(arguments.config, arguments.scale), str(arguments.config))
    wanted = {"batch_size": arguments.batch_size, "chunk_frames": arguments.chunk_frames,
              "precision": arguments.precision}
    config = dataclasses.replace(config, init=None, train=dataclasses.replace(
        config.train, epochs_per_pass=1, **{name: value for name, value in wanted.items() if value is not None}))
    conf = arguments.config.parent / f"features/{config.features}.conf"
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder) / "data", conf, config.online is not None)
        lines = measure(config, Path(folder) / "data", device, arguments.steps, arguments.channels_last == "true")
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    train = config.train
    dim = read_feature_options(conf).dim
    print(f"{arguments.config.stem} ({arguments.scale}): {train.batch_size} x {train.chunk_frames} x {dim}, "
          f"{train.precision}, channels last {arguments.channels_last}; {device}, "
          f"{torch.get_num_threads()} threads{load}")
    print("\n".join(f"  {line}" for line in lines))


if __name__ == "__main__":
    run_main(main)
