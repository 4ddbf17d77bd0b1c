"""Make a bundle of a network that another toolkit has trained, if its layers are ours one to one.

wespeaker: ResNet-18 and 34 with TSTP. A checkpoint is what PyTorch saves (avg_model.pt) or safetensors; pickled code is
refused. The bundle has a cosine without centring, as there, and no calibration. docs/using_a_model.md says more.
e.g.: utils/import_checkpoint --from wespeaker voxceleb_resnet34/avg_model.pt work/resnet34
"""

import argparse
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nnet.bundle import digest_of
from nnet.config import plain
from nnet.toolkits import ARCHITECTURES, imported
from steps.backend.chain import WORDS
from steps.use.bundle import make_bundle
from utils.arguments import licence_line
from utils.errors import InputError, run_main
from utils.features.options import read_feature_options, written_out

ROOT = Path(__file__).resolve().parents[2]
WESPEAKER_FEATURES = ROOT / "egs/voxceleb/conf/features/fbank80_wespeaker.conf"
CHAIN = "length cosine"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name; raises InputError, and runs nothing, for any other file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a checkpoint")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged or not safetensors: {error}; download it again") from error
    except Exception as error:  # PyTorch documents no types
        text = " ".join(str(error).split())
        if code := re.search(r"GLOBAL (\S+)", text):
            raise InputError(f"{path}: refused: it is a pickle that calls {code[1]}; wanted tensors alone, as "
                             "torch.save(model.state_dict(), FILE) writes them") from error
        raise InputError(f"{path}: no checkpoint of PyTorch, or damaged ({type(error).__name__}); download it again, "
                         "or name another file") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{path}: holds a {type(found).__name__}, wanted tensors by name")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise InputError(f"{path}: {name!r} is a {type(value).__name__}, wanted tensors by name")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"{path}: {name} has {value.numel()} values, of which the file holds fewer; it is damaged")
    return dict(found)


def base_of(toolkit: str, features: Path) -> dict[str, Any]:
    """Return the keys of the network's configuration that say which features it takes."""
    options = read_feature_options(features)
    return {"features": features.stem, "feature_options": written_out(options)}


def import_checkpoint(toolkit: str, checkpoint: Path, out: Path, licence: str, features: Path) -> str:
    """Write the bundle and return what is said of it; raises InputError, and leaves nothing, if it cannot be right."""
    tensors = read_checkpoint(checkpoint)
    try:
        system, config, weights = imported(toolkit, tensors, base_of(toolkit, features))
    except InputError as error:
        raise InputError(f"{checkpoint}: {error}") from error
    dim = read_feature_options(features).dim
    if config.feature_dim != dim:
        raise InputError(f"{checkpoint} takes {config.feature_dim} values per frame (a ResNet: if its pooling is "
                         f"TSTP), {features} gives {dim}; name the options of its features with --features")
    with tempfile.TemporaryDirectory() as aside:
        exp = Path(aside) / system
        (exp / "backend/cosine").mkdir(parents=True)
        (exp / "backend/cosine" / WORDS).write_text(f"{CHAIN}\n")
        (exp / "config.yaml").write_text(yaml.safe_dump(plain(config), sort_keys=False))
        (exp / "versions.yaml").write_text(yaml.safe_dump({
            "toolkit": toolkit, "checkpoint": checkpoint.name, "sha256": digest_of(checkpoint)}, sort_keys=False))
        save_file(weights, exp / "model.safetensors")
        make_bundle(exp, out, licence)
    return f"{system} of {toolkit}, {sum(value.numel() for value in weights.values()) / 1e6:.1f} M values"


def main() -> None:
    parser = argparse.ArgumentParser(prog="utils/import_checkpoint", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--from", dest="toolkit", choices=list(ARCHITECTURES), required=True, help="the toolkit")
    parser.add_argument("--licence", type=licence_line, default="not stated",
                        help="one line on who may use it for what (default: %(default)s)")
    parser.add_argument("--features", type=Path, default=WESPEAKER_FEATURES,
                        help=f"options of its features (default: {WESPEAKER_FEATURES.relative_to(ROOT)})")
    parser.add_argument("checkpoint", type=Path, help="file of tensors: x.pt, x.ckpt, x.safetensors")
    parser.add_argument("out", type=Path, help="the new bundle")
    arguments = parser.parse_args()
    said = import_checkpoint(arguments.toolkit, arguments.checkpoint, arguments.out, arguments.licence,
                             arguments.features)
    print(f"{arguments.out}: {said}", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
