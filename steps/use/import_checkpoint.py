"""Make a bundle of a network that another toolkit has trained, if its layers are ours one to one.

wespeaker: ResNet-18 and 34 with TSTP, ECAPA-TDNN with ASTP. speechbrain: ECAPA-TDNN, for fine-tuning only, because its
features are of another kind than ours. A checkpoint is what PyTorch saves (avg_model.pt, embedding_model.ckpt) or
safetensors; pickled code is refused. The bundle has a cosine without centring and no calibration.
docs/using_a_model.md says more.
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

ROOT = Path(__file__).resolve().parents[2]
# Options of each toolkit's features, where they are ours; speechbrain's are of another kind.
FEATURES = {"wespeaker": "egs/voxceleb/conf/features/fbank80_wespeaker.conf"}
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
        code = re.search(r"GLOBAL (\S+)", str(error))
        what = f"a pickle that calls {code[1]}" if code else "no checkpoint of PyTorch, or damaged"
        raise InputError(f"{path}: refused: {what} ({type(error).__name__}); wanted tensors alone, as "
                         "torch.save(model.state_dict(), FILE) writes them") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{path}: holds a {type(found).__name__}, wanted tensors by name")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{path}: {name!r} is a {type(value).__name__}, wanted tensors by name")
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise InputError(f"{path}: {name} is sparse, quantised or without values, wanted all its values")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"{path}: {name} should have {value.numel()} values, the file holds fewer; it is damaged")
    return {name: value.detach() for name, value in found.items()}


def import_checkpoint(toolkit: str, checkpoint: Path, out: Path, licence: str, features: Path | None) -> str:
    """Write the bundle and return what is said of it; raises InputError, and leaves nothing, if it cannot be right."""
    tensors = read_checkpoint(checkpoint)
    try:
        system, config, weights = imported(toolkit, tensors, features)
    except InputError as error:
        raise InputError(f"{checkpoint}: {error}") from error
    with tempfile.TemporaryDirectory() as aside:
        exp = Path(aside) / system
        (exp / "backend/cosine").mkdir(parents=True)
        (exp / "backend/cosine" / WORDS).write_text(f"{CHAIN}\n")
        (exp / "config.yaml").write_text(yaml.safe_dump(plain(config), sort_keys=False))
        (exp / "versions.yaml").write_text(yaml.safe_dump({
            "toolkit": toolkit, "checkpoint": checkpoint.name, "sha256": digest_of(checkpoint)}, sort_keys=False))
        save_file(weights, exp / "model.safetensors")
        make_bundle(exp, out, licence, embeds=features is not None)
    return (f"{system} of {toolkit}, {sum(value.numel() for value in weights.values()) / 1e6:.1f} M values"
            + ("; for fine-tuning only, because its features cannot be computed here" if features is None else ""))


def main() -> None:
    parser = argparse.ArgumentParser(prog="utils/import_checkpoint", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--from", dest="toolkit", choices=list(ARCHITECTURES), required=True, help="the toolkit")
    parser.add_argument("--licence", type=licence_line, default="not stated",
                        help="one line on who may use it for what (default: %(default)s)")
    parser.add_argument("--features", type=Path, help="options of its features (default: for wespeaker, "
                        f"{FEATURES['wespeaker']})")
    parser.add_argument("checkpoint", type=Path, help="file of tensors: x.pt, x.ckpt, x.safetensors")
    parser.add_argument("out", type=Path, help="the new bundle")
    arguments = parser.parse_args()
    known = FEATURES.get(arguments.toolkit)
    if arguments.features and not known:
        raise InputError(f"--features {arguments.features}: the features of {arguments.toolkit} are of another kind "
                         "than any options describe; leave it out")
    said = import_checkpoint(arguments.toolkit, arguments.checkpoint, arguments.out, arguments.licence,
                             arguments.features or (ROOT / known if known else None))
    print(f"{arguments.out}: {said}", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
