"""Training that starts from a trained model: large-margin fine-tuning, new speakers, a frozen encoder.

In the first `init.head_epochs` epochs, everything but the classifier is as in `init.freeze`: its weights stay, and it
is in evaluation mode, so that batch norm uses and keeps the statistics of the old speakers, and nothing is dropped.
After them, batch norm takes those of each batch, as in any training.
"""

import sys
from pathlib import Path

from torch import nn

from nnet.bundle import check_files, is_bundle
from nnet.config import InitOptions, NetworkConfig, network_difference, read_network_config
from nnet.training.checkpoint import read_weights
from utils.errors import InputError
from utils.features.model_features import check_options

PARTS = ("frontend", "encoder", "pooling", "head")  # of a network, besides its classifier, the loss


def initialise(network: nn.Module, speakers: list[str], config: NetworkConfig, train: Path, exp: Path) -> None:
    """Copy a trained model's weights into `network`.

    The classifier's rows are copied for the speakers that the model knows; the others keep their random start. Bundles
    do not name their speakers. Raises InputError if the model is missing or damaged, has another network, or was
    trained on features that differ from those of `train`; or if the loss has no classifier for `init.head_epochs`.
    """
    options = config.init
    classifier = any(parameter.ndim > 1 for parameter in network.loss.parameters())  # a row per speaker
    if options.head_epochs and not classifier:
        raise InputError(f"init: head_epochs is {options.head_epochs}, but loss: type {config.loss.type} has no "
                         "classifier to train; set init.head_epochs to 0")
    folder = exp.parent / options.model  # an absolute path stays as it is
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"init: model: no {folder}/model.safetensors; train {options.model} first")
    bundle = is_bundle(folder)
    if bundle:
        check_files(folder)
    theirs = read_network_config(str(folder / "config.yaml"))
    check_options(train, theirs.options, folder)
    if difference := network_difference(config, theirs):
        key, one, other = difference
        raise InputError(f"init: {key} is {one}, {folder} has {other}; front end, encoder, pooling and head must be "
                         "the model's: --init takes them over, --set changes them back")
    old, names = read_weights(folder / "model.safetensors"), [] if bundle else read_speakers(folder, theirs.speakers)
    known = {name: row for row, name in enumerate(names)}
    pairs = [(row, known[name]) for row, name in enumerate(speakers) if name in known]
    weights, known_rows = network.state_dict(), 0
    for name, value in weights.items():
        if name.startswith("loss."):
            rows = old.get(name)
            if pairs and rows is not None and len(rows) == len(known) and rows.shape[1:] == value.shape[1:]:
                ours, others = map(list, zip(*pairs, strict=True))
                value[ours] = rows[others]
                known_rows = len(pairs)
        elif name not in old or old[name].shape != value.shape:
            found = list(old[name].shape) if name in old else "nothing"
            raise InputError(f"init: {folder}: {name} is {found}, here {list(value.shape)}; its weights and its "
                             "config.yaml do not match, train it again")
        else:
            value.copy_(old[name])
    if pairs and not known_rows and classifier:
        print(f"starting from {folder}: its classifier has another form, so this one starts at random", file=sys.stderr)
    print(f"starting from {folder}: {known_rows} of {len(speakers)} speakers known"
          + (f", {', '.join(options.freeze)} frozen" if options.freeze else "")
          + (f", the classifier alone for {options.head_epochs} epochs" if options.head_epochs else ""),
          file=sys.stderr)


def read_speakers(folder: Path, count: int | None) -> list[str]:
    """Return a model's speakers in the order of its classifier; raises InputError unless there are `count`."""
    names = (folder / "speakers").read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    if len(set(names)) != count or len(names) != count:
        raise InputError(f"{folder}/speakers: {len(set(names))} names, config.yaml says {count} speakers; train the "
                         "model again")
    return names


def training_mode(network: nn.Module, options: InitOptions | None, head_alone: bool = False) -> None:
    """Set which parts of a training step learn, and their modes: frozen parts keep their batch-norm statistics, too.

    head_alone: only the classifier learns.
    """
    network.train()
    for part in PARTS if options else ():
        frozen = head_alone or part in options.freeze
        getattr(network, part).requires_grad_(not frozen).train(not frozen)
