"""Training that starts from a trained model: large-margin fine-tuning, new speakers, a frozen encoder."""

import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from nnet.config import InitOptions
from utils.errors import InputError


def initialise(network: nn.Module, speakers: list[str], options: InitOptions, exp: Path) -> None:
    """Copy a trained model's weights into `network`, and freeze the parts that are to stay.

    The classifier's rows are copied for the speakers that the model knows; the others keep their random start.
    Raises InputError when the model is missing or has other layers.
    """
    folder = exp.parent / options.model  # an absolute path stays what it is
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"init: model: no {folder}/model.safetensors; train {options.model} first")
    old = load_file(folder / "model.safetensors")
    known = {name: row for row, name in enumerate((folder / "speakers").read_text(encoding="utf-8").split())}
    pairs = [(row, known[name]) for row, name in enumerate(speakers) if name in known]
    weights = network.state_dict()
    for name, value in weights.items():
        if name.startswith("loss."):
            theirs = old.get(name)
            if pairs and theirs is not None and len(theirs) == len(known) and theirs.shape[1:] == value.shape[1:]:
                ours, others = map(list, zip(*pairs, strict=True))
                value[ours] = theirs[others]
        elif name not in old or old[name].shape != value.shape:
            found = list(old[name].shape) if name in old else "nothing"
            raise InputError(f"init: {folder}: {name} is {found}, here {list(value.shape)}; encoder, pooling and "
                             "head must be those of the model")
        else:
            value.copy_(old[name])
    for part in options.freeze:
        getattr(network, part).requires_grad_(False)
    print(f"starting from {folder}: {len(pairs)} of {len(speakers)} speakers known"
          + (f", {', '.join(options.freeze)} frozen" if options.freeze else ""), file=sys.stderr)


def training_mode(network: nn.Module, options: InitOptions | None) -> None:
    """Set the modes of a training step: frozen parts keep their batch-norm statistics, too."""
    network.train()
    for part in options.freeze if options else ():
        getattr(network, part).eval()
