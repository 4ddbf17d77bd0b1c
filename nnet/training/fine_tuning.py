"""Training that starts from a trained model: large-margin fine-tuning, new speakers, a frozen encoder."""

import dataclasses
import sys
from pathlib import Path

from torch import nn

from nnet.config import InitOptions, NetworkConfig, read_network_config
from nnet.training.checkpoint import read_weights
from utils.errors import InputError
from utils.features.model_features import check_options


def initialise(network: nn.Module, speakers: list[str], config: NetworkConfig, train: Path, exp: Path) -> None:
    """Copy a trained model's weights into `network`, and freeze the parts in `init.freeze`.

    The classifier's rows are copied for the speakers that the model knows; the others keep their random start.
    Raises InputError if the model is missing or damaged, has other layers, or was trained on features that differ from
    those of `train`.
    """
    options = config.init
    folder = exp.parent / options.model  # an absolute path stays as it is
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"init: model: no {folder}/model.safetensors; train {options.model} first")
    theirs = read_network_config(str(folder / "config.yaml"))
    check_options(train, theirs.options, folder)
    for field in dataclasses.fields(theirs.frontend):
        one, other = (getattr(part.frontend, field.name) for part in (config, theirs))
        if one != other:
            raise InputError(f"frontend: {field.name} is {one}, {folder} was trained on {other}; wanted the same")
    old, names = read_weights(folder / "model.safetensors"), read_speakers(folder, theirs.speakers)
    known = {name: row for row, name in enumerate(names)}
    pairs = [(row, known[name]) for row, name in enumerate(speakers) if name in known]
    weights = network.state_dict()
    for name, value in weights.items():
        if name.startswith("loss."):
            rows = old.get(name)
            if pairs and rows is not None and len(rows) == len(known) and rows.shape[1:] == value.shape[1:]:
                ours, others = map(list, zip(*pairs, strict=True))
                value[ours] = rows[others]
        elif name not in old or old[name].shape != value.shape:
            found = list(old[name].shape) if name in old else "nothing"
            raise InputError(f"init: {folder}: {name} is {found}, here {list(value.shape)}; encoder, pooling and "
                             "head must be the model's")
        else:
            value.copy_(old[name])
    for part in options.freeze:
        getattr(network, part).requires_grad_(False)
    print(f"starting from {folder}: {len(pairs)} of {len(speakers)} speakers known"
          + (f", {', '.join(options.freeze)} frozen" if options.freeze else ""), file=sys.stderr)


def read_speakers(folder: Path, count: int | None) -> list[str]:
    """Return a model's speakers in the order of its classifier; raises InputError unless there are `count`."""
    names = (folder / "speakers").read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    if len(set(names)) != count or len(names) != count:
        raise InputError(f"{folder}/speakers: {len(set(names))} names, config.yaml says {count} speakers; train the "
                         "model again")
    return names


def training_mode(network: nn.Module, options: InitOptions | None) -> None:
    """Set the modes of a training step: frozen parts keep their batch-norm statistics, too."""
    network.train()
    for part in options.freeze if options else ():
        getattr(network, part).eval()
