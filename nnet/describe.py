"""Print the layers of a network, with output shapes for an utterance of 300 frames and parameter counts.

e.g.: python3 -m nnet.describe egs/voxceleb/conf/xvector.yaml --num-speakers 1211
"""

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from nnet.config import network_config
from nnet.model import Network, make_network
from utils.config import SCALES, load_config
from utils.errors import run_main
from utils.features.options import read_feature_options, written_out

FRAMES = 300


def describe(network: Network) -> list[tuple[str, str, str, int]]:
    """Return (name, kind, output shape, own parameters) of each layer, in the order of the computation."""
    rows: list[tuple[str, str, str, int]] = []

    def note(name: str):
        def hook(module: nn.Module, _inputs: object, output: Tensor | tuple) -> None:
            first = output[0] if isinstance(output, tuple) else output
            shape = " x ".join(str(size) for size in first.shape[1:]) or "1"
            own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
            rows.append((name, type(module).__name__, shape, own))
        return hook

    for name, module in network.named_modules():
        leaf = not any(True for _ in module.children())
        if name and (leaf or any(True for _ in module.parameters(recurse=False))) \
                and not isinstance(module, nn.Sequential):
            module.register_forward_hook(note(name))
    network.eval()
    with torch.no_grad():
        count, frontend = getattr(network.loss, "utterances", 1), network.frontend
        shape = (FRAMES, frontend.output_dim) if frontend.stored else (frontend.samples_of(FRAMES),)
        network(torch.zeros(count, *shape), torch.zeros(count, dtype=torch.long))
    counted = {row[0] for row in rows}
    for name, module in network.named_modules():  # modules that are never called: others use their parameters
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if own and name not in counted:
            rows.append((name, type(module).__name__, "-", own))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--num-speakers", type=int, required=True)
    parser.add_argument("--scale", choices=SCALES, default="full")
    arguments = parser.parse_args()
    config = network_config(load_config(arguments.config, arguments.scale), str(arguments.config))
    features = read_feature_options(arguments.config.parent / "features" / f"{config.features}.conf")
    config = dataclasses.replace(config, feature_options=written_out(features))
    network = make_network(config, features.dim, arguments.num_speakers)
    rows = [("layer", "kind", "output", "parameters")]
    rows += [(name, kind, shape, f"{count:,}") for name, kind, shape, count in describe(network)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, kind, shape, count in rows:
        print(f"{name:{widths[0]}}  {kind:{widths[1]}}  {shape:{widths[2]}}  {count:>{widths[3]}}")
    total = sum(parameter.numel() for parameter in network.parameters())
    frontend = network.frontend
    print(f"front end: {config.frontend.type}, {frontend.output_dim} values per frame, {frontend.frame_rate:g} frames "
          "per second")
    print(f"parameters: {total} total, {network.parameters_to_embedding()} to the embedding")


if __name__ == "__main__":
    run_main(main)
