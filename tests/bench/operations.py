"""The work in training each network: parameters with the classifier, operations
(of products and convolutions, forward and backward) per chunk and per epoch of VoxCeleb1, and the memory that an engine
is asked for on a CPU and beside a GPU. They are counted in one step with a few chunks.

e.g.: python3 -m tests.bench.operations > operations.md
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from nnet import memory
from nnet.config import NetworkConfig, network_config
from nnet.model import Network
from tests.bench.train_steps import CORPORA
from utils.config import SCALES, load_config
from utils.errors import run_main
from utils.features.options import read_feature_options

SPEAKERS, FRAMES = 1211, 827  # of VoxCeleb1's training data; 8.27 s on average
CONF = Path("egs/voxceleb/conf")


def operations(config: NetworkConfig, dim: int, speakers: int) -> tuple[int, float]:
    """Return the parameters that are trained with the classifier, and the operations per chunk."""
    size = 2 * (getattr(config.loss, "utterances", 0) or 1)
    network = Network(config, dim, speakers)
    x = torch.randn(size, config.train.chunk_frames, network.frontend.output_dim)
    with FlopCounterMode(display=False) as counter:
        loss, _ = network(x, torch.arange(size) // (size // 2))
        loss.backward()
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() / size


def make_data(folder: Path) -> None:
    """Write the tables of VoxCeleb1's training data, as far as the estimate of memory reads them."""
    folder.mkdir()
    count = CORPORA["VoxCeleb1"]
    (folder / "utt2spk").write_text("".join(f"u{row} s{row % SPEAKERS}\n" for row in range(count)))
    (folder / "spk2utt").write_text("".join(f"s{row} u{row}\n" for row in range(SPEAKERS)))
    (folder / "utt2num_frames").write_text("".join(f"u{row} {FRAMES}\n" for row in range(count)))


def row(path: Path, scale: str, folder: Path) -> str:
    """Return the line of the table on a system."""
    config = load_config(path, scale)
    options = dataclasses.replace(network_config(config, str(path)), init=None)
    dim = read_feature_options(path.parent / f"features/{options.features}.conf").dim
    parameters, each = operations(options, dim, SPEAKERS)
    (folder / "system.yaml").write_text(yaml.safe_dump(config))
    data = folder / "data"
    requests = [memory.train_network(str(folder / "system.yaml"), str(data), str(data), device=device) / 2**30
                for device in ("cpu", "cuda")]
    train = options.train
    return (f"| {path.stem} | {train.batch_size} x {train.chunk_frames} x {options.frontend.output_dim(dim)} | "
            f"{parameters / 1e6:.1f} M | {each / 1e9:.1f} G | {each * CORPORA['VoxCeleb1'] / 1e15:.2f} P | "
            f"{requests[0]:.1f} GB | {requests[1]:.1f} GB |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("systems", nargs="*", help="names in egs/voxceleb/conf (default: every network)")
    arguments = parser.parse_args()
    paths = [CONF / f"{name}.yaml" for name in arguments.systems] or sorted(CONF.glob("*.yaml"))
    print("| System | chunks | parameters | per chunk | VoxCeleb1 epoch | `--mem`, CPU | `--mem`, GPU |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder) / "data")
        for path in paths:
            if load_config(path, arguments.scale)["kind"] == "network":
                print(row(path, arguments.scale, Path(folder)), flush=True)


if __name__ == "__main__":
    run_main(main)
