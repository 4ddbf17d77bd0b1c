"""The keys of a network's configuration; unknown keys and invalid values are errors that name them.

`python3 -m nnet.config [--init FOLDER] CONF OUT` writes the keys that training depends on, with defaults filled in: all
but back-end and scoring. OUT is rewritten only if it changed.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from nnet.bundle import check_files, is_bundle
from nnet.encoders import ENCODERS
from nnet.frontends import FRONTENDS
from nnet.losses import LOSSES
from nnet.losses.softmax import LossOptions
from nnet.poolings import POOLINGS
from nnet.training.averaging import AVERAGES, AverageOptions
from nnet.training.optimizers import OPTIMIZERS, SCHEDULES, OptimizerOptions, ScheduleOptions
from utils.config import DEFAULT_TYPES, Count, NotNegative, Positive, Probability, Share, Whole, build, choice, choose
from utils.errors import InputError, run_main
from utils.features.model_features import Options
from utils.files import write_if_changed
from utils.settings import keys_of
from utils.strict_yaml import read_yaml
from utils.systems import SCALE_LINE, scale_of

# Keys that training writes into the model's own configuration.
BY_TRAINING = ("vad_options", "feature_dim", "speakers", "feature_options")
# The keys that make the network, but for its classifier.
NETWORK = ("features", "frontend", "encoder", "pooling", "head")
HEAD_EPOCHS, RATE = 2, 0.1  # head_epochs, if there are more, and rate of a system that --init starts from a model
Operation = Literal["relu", "batch_norm"]


@dataclass(frozen=True)
class LayerOptions:
    """A dense layer: affine map, then operations. The embedding is its `affine` result or its `output`."""

    dim: Count
    then: tuple[Operation, ...] = ()
    embedding: Literal["affine", "output"] | None = None


@dataclass(frozen=True)
class HeadOptions:
    """The dense layers between pooling and classifier."""

    layers: tuple[LayerOptions, ...]
    before: tuple[Operation, ...] = ()  # on the pooled vector
    dropout: Probability = 0.0          # before the classifier

    def __post_init__(self) -> None:
        taps = [layer for layer in self.layers if layer.embedding]
        if len(taps) != 1:
            raise ValueError(f"{len(taps)} layers have the key `embedding`, wanted exactly one")


@dataclass(frozen=True)
class TrainOptions:
    """Length of training, chunks, precision, checkpoints."""

    epochs: Count
    epochs_per_pass: Count = 1        # 3: an epoch is a third of the utterances, as many as at one of three speeds
    batch_size: Count = 64
    chunk_frames: Count = 300
    max_chunk_frames: Whole = 0       # each step draws T between chunk_frames and this; 0: always chunk_frames
    valid_batch_frames: Count = 20000  # padded frames per batch when whole utterances are embedded
    precision: Literal["bf16", "fp32"] = "bf16"  # of the products; sums, logits and losses are always fp32
    clip: NotNegative = 5.0           # maximum norm of the gradient; 0: no limit
    patience: Whole = 0               # epochs without a better validation EER before stopping; 0: never
    keep: Literal["best", "last"] = "best"  # the epoch whose weights become the model
    checkpoint_steps: Count = 1000    # steps between checkpoints; the end of each epoch has one, too
    accumulate: Count = 1             # parts of a batch whose gradients are summed; batch norm sees one part at a time
    shuffle_mb: Whole = 0             # shuffle within a buffer of this many MB, read in blocks; 0: the whole epoch
    mask_frames: Whole = 0            # SpecAugment: longest mask in time
    mask_bands: Whole = 0             # SpecAugment: widest mask in frequency

    def __post_init__(self) -> None:
        if self.max_chunk_frames and self.max_chunk_frames < self.chunk_frames:
            raise ValueError(f"max_chunk_frames is {self.max_chunk_frames} and chunk_frames {self.chunk_frames}; "
                             "wanted 0 or a number that is not smaller")


@dataclass(frozen=True)
class OnlineOptions:
    """Cut chunks from the wav files, augment each one afresh, and compute its features on the device.

    utils/features/augment.py defines the kinds; command-line options name MUSAN and RIRS_NOISES.
    """

    kinds: tuple[Literal["noise", "music", "babble", "reverb", "telephone"], ...]  # equally likely
    share: Share = 0.6                # share of the chunks that are augmented

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError("kinds is empty; wanted one kind or more")


@dataclass(frozen=True)
class InitOptions:
    """Start from a trained model. Of its classifier, only the rows of speakers known to both are taken over."""

    model: str                        # its folder; a bare name is a folder next to the new model's
    freeze: tuple[Literal["frontend", "encoder", "pooling", "head"], ...] = ()  # parts that stay as they are
    head_epochs: Whole = 0            # the first of train.epochs: the classifier alone is trained, at optimizer.lr
    rate: Positive = 1.0              # factor of optimizer.lr in the other epochs; the schedule begins with them


@dataclass(frozen=True)
class DistilOptions:
    """Learn from trained networks, too: nnet/training/distillation.py."""

    models: tuple[str, ...]  # their folders; a bare name is a folder next to the new model's
    weight: Positive = 2.5   # of the loss, beside that over the speakers

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models is empty; wanted the names of one system or more")


@dataclass(frozen=True)
class NetworkConfig:
    """One system's YAML file. A part with a `type` takes the options of that type; each kind has its table of types."""

    kind: Literal["network"]
    features: str
    encoder: dict[str, Any]
    pooling: dict[str, Any]
    head: HeadOptions
    train: TrainOptions
    train_set: Literal["train_net", "train_net_sp"] = "train_net"
    frontend: Any = choice(FRONTENDS, DEFAULT_TYPES["frontend"])
    loss: LossOptions = choice(LOSSES, DEFAULT_TYPES["loss"])
    optimizer: OptimizerOptions = choice(OPTIMIZERS, DEFAULT_TYPES["optimizer"])
    schedule: ScheduleOptions = choice(SCHEDULES, DEFAULT_TYPES["schedule"])
    average: AverageOptions = choice(AVERAGES, DEFAULT_TYPES["average"])
    online: OnlineOptions | None = None
    init: InitOptions | None = None
    distil: DistilOptions | None = None
    backend: Any = None  # chains: read by steps/backend
    # Written by training into the model's own configuration.
    vad_options: dict[str, Any] | None = None  # of the training data's voice activity, if frontend.vad uses it
    feature_dim: Count | None = None
    speakers: Count | None = None
    feature_options: dict[str, Any] | None = None  # of the training data, with defaults filled in; None: unknown

    @property
    def options(self) -> Options:
        """Options of the features and of the voice activity that a trained network takes."""
        return Options(self.feature_options, self.vad_options if self.vad else {})

    @property
    def vad(self) -> bool:
        """Whether the front end keeps voiced frames only."""
        return getattr(self.frontend, "vad", False)

    def __post_init__(self) -> None:
        train, stored = self.train, FRONTENDS[self.frontend.type][0].stored
        if self.init and self.init.head_epochs >= train.epochs:
            raise ValueError(f"init: head_epochs is {self.init.head_epochs} and train: epochs {train.epochs}; wanted "
                             "fewer than those")
        if self.online and (self.vad or train.shuffle_mb):
            raise ValueError("online: frontend.vad and train.shuffle_mb are for stored features; leave them out")
        if self.online and getattr(self.frontend, "cmn", "") == "utterance":
            raise ValueError("online: frontend.cmn is utterance, but training computes the features of chunks only; "
                             "wanted chunk, sliding or none")
        if not stored and (train.shuffle_mb or train.mask_frames or train.mask_bands):
            raise ValueError(f"frontend: type {self.frontend.type} takes audio; train.shuffle_mb, mask_frames and "
                             "mask_bands are for features; leave them out")
        if not self.loss.utterances:
            return
        if self.train.batch_size % self.loss.utterances:
            raise ValueError(f"train: batch_size is {self.train.batch_size}, not a multiple of the "
                             f"{self.loss.utterances} utterances per speaker (loss: utterances)")
        if self.train.accumulate > 1 or self.train.shuffle_mb:
            raise ValueError(f"train: accumulate is {self.train.accumulate} and shuffle_mb {self.train.shuffle_mb}; "
                             f"loss: {self.loss.type} needs whole batches drawn by speaker; wanted 1 and 0")


def network_config(mapping: dict[str, Any], where: str) -> NetworkConfig:
    """Build and check a network's configuration; raises InputError with `where` and the key."""
    return build(NetworkConfig, mapping, where)


def settable_keys(mapping: dict[str, Any], where: str) -> list[str]:
    """Return the dotted keys that a configuration may have, such as train.epochs, by the types of its parts.

    Raises InputError, like `network_config`, also on the options of encoder and pooling.
    """
    network_config(mapping, where)
    tables = {"encoder": ENCODERS, "pooling": POOLINGS}
    for part, table in tables.items():
        choose(table, mapping[part], f"{where}: {part}")
    return list(keys_of(NetworkConfig, mapping, tables, ("kind", *BY_TRAINING)))


def read_network_config(path: str, init: Path | None = None) -> NetworkConfig:
    """Read a resolved configuration, as `utils.config resolve` prints it; init: the model to start from."""
    mapping = read_yaml(Path(path))
    return network_config(start_from(mapping, init, path) if init else mapping, path)


def require_network(folder: Path) -> None:
    """Raise InputError unless `folder` is an unchanged bundle of a network, or the folder of a trained one."""
    if is_bundle(folder):
        check_files(folder)
    if not (folder / "config.yaml").is_file():
        if folder.is_file():
            raise InputError(f"--init: {folder} is a file; make a bundle of another toolkit's checkpoint with "
                             "utils/import_checkpoint, and name that")
        found = "an i-vector system" if (folder / "final.ie").is_file() else "no config.yaml"
        raise InputError(f"--init: no network in {folder}: {found}; name a bundle or the folder of a trained network")


def start_from(mapping: dict[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """Return a configuration that fine-tunes the network in `folder`, a bundle or exp/<system>.

    The result has the model's keys in NETWORK and the mapping's keys of training, but no warm-up, since the rate is
    small and few speakers make few steps, and no `distil`, whose models may be elsewhere. `init` gets the folder and,
    where it has none, head_epochs and rate. Raises InputError if `folder` holds no network, a damaged bundle, or a
    network of another type.
    """
    require_network(folder)
    theirs = plain(read_network_config(str(folder / "config.yaml")))
    ours = plain(network_config({key: value for key, value in mapping.items() if key != "init"}, where))
    for part in ("frontend", "encoder", "pooling"):
        if ours[part]["type"] != theirs[part]["type"]:
            raise InputError(f"{where}: {part}.type is {ours[part]['type']}, {folder} has {theirs[part]['type']}; "
                             "choose the system whose network it is, or start from another model")
    init = mapping.get("init") or {}
    if not isinstance(init, dict):
        raise InputError(f"{where}: init: expected keys, found {init!r}")
    head_epochs = min(HEAD_EPOCHS, ours["train"]["epochs"] - 1)
    init = {"head_epochs": head_epochs, "rate": RATE} | init | {"model": str(folder.resolve())}
    schedule = {key: 0 if key.startswith("warmup") else value for key, value in (mapping.get("schedule") or {}).items()}
    kept = {key: value for key, value in mapping.items() if key != "distil"}
    return kept | {part: theirs[part] for part in NETWORK} | {"schedule": schedule, "init": init}


def network_difference(ours: NetworkConfig, theirs: NetworkConfig) -> tuple[str, Any, Any] | None:
    """Return the first key of the network in which two configurations differ, with both values; dropout may differ."""
    one, other = (dict(_flat(_network_of(config))) for config in (ours, theirs))
    for key in [*one, *other]:
        if one.get(key) != other.get(key) and key.split(".")[-1] != "dropout":
            return key, one.get(key), other.get(key)
    return None


def _network_of(config: NetworkConfig) -> dict[str, Any]:
    """Return the parts of a network with the defaults of their options."""
    tables = {"encoder": ENCODERS, "pooling": POOLINGS}
    parts = {name: choose(table, getattr(config, name), name)[1] for name, table in tables.items()}
    return {name: dataclasses.asdict(part) for name, part in
            {"frontend": config.frontend, **parts, "head": config.head}.items()}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings and lists with their dotted keys; items of a list are numbered from 1."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        items = enumerate(value, start=1)
    else:
        yield key, list(value) if isinstance(value, tuple) else value
        return
    for name, item in items:
        yield from _flat(item, f"{key}.{name}" if key else str(name))


def plain(config: NetworkConfig) -> dict[str, Any]:
    """Return a configuration as YAML writes it: mappings, lists, numbers and text."""
    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        return [convert(item) for item in value] if isinstance(value, tuple | list) else value

    return convert(dataclasses.asdict(config))


def training_part(config: NetworkConfig) -> dict[str, Any]:
    """Return the keys that the weights depend on: configurations with equal ones train the same network."""
    found = {key: value for key, value in plain(config).items() if key not in ("backend", "vad_options")}
    if found["distil"] is None:
        del found["distil"]  # as before this key existed: models that were trained then are not trained again
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", help="resolved configuration, as `utils.config resolve` prints it")
    parser.add_argument("out", help="YAML file")
    parser.add_argument("--init", type=Path, help="bundle, or folder of a trained network, to start from")
    arguments = parser.parse_args()
    config = read_network_config(arguments.config, arguments.init)
    text = yaml.safe_dump(training_part(config), sort_keys=False, width=100)
    write_if_changed(arguments.out, f"{SCALE_LINE}{scale_of(Path(arguments.config))}\n{text}")


if __name__ == "__main__":
    run_main(main)
