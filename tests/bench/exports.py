"""Export every network of egs/voxceleb/conf with random weights, and print how well onnxruntime and PyTorch agree.

A table in Markdown: parameters up to the embedding, the lowest cosine of both programs' embeddings over lengths from
the shortest to a minute, and the size of the file. utils/export_onnx --help says what is compared.
e.g.: python3 -m tests.bench.exports --scale full xvector resnet34_tstp
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from nnet.config import network_config, plain
from nnet.model import Network
from steps.use.export_onnx import export
from utils.config import SCALES, load_config
from utils.errors import InputError, run_main
from utils.features.options import read_feature_options, written_out

CONF = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf"
SPEAKERS = 10  # they are not exported


def write_model(name: str, scale: str, folder: Path) -> int:
    """Write a model folder with random weights; return the number of parameters up to the embedding."""
    config = load_config(CONF / f"{name}.yaml", scale)
    options = read_feature_options(CONF / f"features/{config['features']}.conf")
    known = {"feature_dim": options.dim, "speakers": SPEAKERS, "feature_options": written_out(options)}
    resolved = network_config(config | known, name)
    torch.manual_seed(1)
    network = Network(resolved, options.dim, SPEAKERS)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(plain(resolved)))
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "model.safetensors")
    return network.parameters_to_embedding()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--with-features", action="store_true", help="export the features, too")
    parser.add_argument("systems", nargs="*", help="names (default: all networks)")
    arguments = parser.parse_args()
    known = sorted(path.stem for path in CONF.glob("*.yaml") if not path.stem.startswith("ivector"))
    print("| system | parameters | lowest cosine | file, MB |\n| --- | ---: | ---: | ---: |", flush=True)
    for name in arguments.systems or known:
        with tempfile.TemporaryDirectory() as folder:
            parameters = write_model(name, arguments.scale, Path(folder) / name)
            out = Path(folder) / "x.onnx"
            try:
                said = export(Path(folder) / name, out, arguments.with_features)
            except InputError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            cosine = re.search(r"lowest cosine ([\d.]+)", said)[1]
            print(f"| {name} | {parameters:,} | {cosine} | {out.stat().st_size / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    run_main(main)
