"""The program that the recipe's shell calls: utils/systems.py, with chains and the keys of each kind."""

from pathlib import Path
from typing import Any

from nnet.bundle import is_bundle, read_manifest
from steps.backend import chains_of
from utils import systems
from utils.errors import InputError, run_main
from utils.features.model_features import compare_options
from utils.features.options import read_feature_options, written_out
from utils.features.vad import read_vad_options, vad_written_out


def facts_of_chains(config: dict[str, Any], where: str) -> dict[str, str]:
    """Return what the recipe needs to know of a system's chains, after checking them, long before they are used.

    chains: the names of those that are trained; segments: the name of the one that scores segments, or nothing; copies:
    whether one is trained on copies at other speeds.
    """
    chains = chains_of(config, where)
    return {"chains": " ".join(name for name, words in chains.items() if words),
            "segments": " ".join(name for name, words in chains.items() if not words),
            "copies": str(any(words.copies for words in chains.values() if words)).lower()}


def settable_keys(config: dict[str, Any], where: str) -> list[str]:
    """Return the dotted keys that --set may change in a configuration; raises InputError if one has a wrong value."""
    if config.get("kind") == "network":
        from nnet import config as kind  # imports torch: seconds, only spent on --set
    else:
        from steps.ivector import config as kind
    return kind.settable_keys(config, where)


def system_of(model: Path) -> str:
    """Return the name of the system that a bundle or the folder of a trained network is of.

    Raises InputError if it holds no network, or if a bundle is damaged.
    """
    from nnet.config import require_network  # imports torch: seconds, only spent on --init

    require_network(model)
    return read_manifest(model)["system"] if is_bundle(model) else model.resolve().name


def from_model(config: dict[str, Any], model: Path, path: Path) -> dict[str, Any]:
    """Return the configuration in `path` as one that fine-tunes a model.

    Raises InputError if the system is not a network, or if its layers or its feature options differ from the model's.
    """
    from nnet.config import read_network_config, start_from

    if config.get("kind") != "network":
        raise InputError(f"{path}: kind is {config.get('kind')}; --init is for networks, choose some with --systems")
    config = start_from(config, model, str(path))
    theirs = read_network_config(str(model / "config.yaml")).options
    features, vad = (path.parent / f"features/{name}.conf" for name in (config["features"], "vad"))
    # Other options would stop the training, after hours of features.
    if theirs.features is not None and features.is_file():
        compare_options(features, "features", written_out(read_feature_options(features)), theirs.features, model)
    if theirs.vad and vad.is_file():
        compare_options(vad, "vad", vad_written_out(read_vad_options(vad)), theirs.vad, model)
    return config


def main() -> None:
    systems.main(facts_of_chains, settable_keys, system_of, from_model)


if __name__ == "__main__":
    run_main(main)
