"""The program that the recipe's shell calls: utils/systems.py, with chains and the keys of each kind."""

from pathlib import Path
from typing import Any

from steps.backend import chains_of
from utils import systems
from utils.errors import InputError, run_main
from utils.features.model_features import compare_options
from utils.features.options import read_feature_options, written_out


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


def from_model(config: dict[str, Any], model: Path, path: Path) -> dict[str, Any]:
    """Return the configuration in `path` as one that fine-tunes a model; one that names a model of its own stays as it is.

    Raises InputError if the system is no network or not the model's, or its file of features is.
    """
    from nnet.config import read_network_config, start_from  # imports torch: seconds, only spent on --init

    if config.get("kind") != "network":
        raise InputError(f"{path}: kind is {config.get('kind')}; --init is for networks, choose some with --systems")
    if (config.get("init") or {}).get("model"):
        return config
    config = start_from(config, model, str(path))
    kept = read_network_config(str(model / "config.yaml")).feature_options
    features = path.parent / f"features/{config['features']}.conf"
    if kept is not None and features.is_file():  # another option would stop the training, after hours of features
        compare_options(features, "features", written_out(read_feature_options(features)), kept, model)
    return config


def main() -> None:
    systems.main(facts_of_chains, settable_keys, from_model)


if __name__ == "__main__":
    run_main(main)
