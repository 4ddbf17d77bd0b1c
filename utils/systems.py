"""Resolve the configurations of the chosen systems; print their names, each after those whose models it needs.

The resolved configuration is written to <exp>/<name>/system.yaml, only if it has changed. Its first line, a comment,
names the scale. Beside it, facts.sh holds the facts that the recipe's shell scripts need, as variables:

    kind=network
    features=fbank80
    train_set=train_net_sp_aug
    sets='train test train_sp train_aug'
    vad=false
    online=false
    after=''
    chains='cosine plda'
    segments=''
    copies=false
"""

import argparse
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from utils.config import SCALES, load_config
from utils.errors import InputError
from utils.files import write_if_changed
from utils.settings import KeysOf, change, parse_settings
from utils.strict_yaml import parse_yaml

KINDS = ("ivector", "network")
SCALE_LINE = "# scale: "
TRAINING = ("init", "schedule", "distil")  # of a second stage, also where the first starts from a given model
SystemOf = Callable[[Path], str]  # of a model: see steps/systems.py
FromModel = Callable[[dict[str, Any], Path, Path], dict[str, Any]]  # of a configuration, a model and a file
FactsOfChains = Callable[[dict[str, Any], str], dict[str, str]]  # of a configuration and its file: see steps/systems.py


def names_of(words: list[str], conf: Path) -> list[str]:
    """Return the chosen names, with `all` expanded; raises InputError on one without a configuration."""
    known = sorted(path.stem for path in conf.glob("*.yaml"))
    names = known if words == ["all"] else words
    for name in names:
        if name not in known:
            raise InputError(f"no system {name!r} in {conf}; available: {', '.join(known)}")
    if not names:
        raise InputError(f"no system chosen; --systems takes names from {conf}: {', '.join(known)}")
    return list(dict.fromkeys(names))


def scale_of(path: Path) -> str:
    """Return the scale of a resolved configuration, `-` if its first line does not name it."""
    with path.open(encoding="utf-8") as stream:
        first = stream.readline()
    return first.removeprefix(SCALE_LINE).strip() if first.startswith(SCALE_LINE) else "-"


def facts_of(config: dict[str, Any], path: Path, augmented: bool, of_chains: FactsOfChains) -> dict[str, str]:
    """Return the facts that a recipe needs about a system, as listed above.

    path: of its configuration; augmented: whether stored augmented copies exist for training networks.
    sets: the data directories whose features the system reads. Raises InputError, naming the file, on values that
    the recipe cannot handle.
    """
    kind, features, folder = config.get("kind"), config.get("features"), path.parent / "features"
    if kind not in KINDS:
        raise InputError(f"{path}: kind is {kind!r}, wanted {' or '.join(KINDS)}")
    if not isinstance(features, str) or not re.fullmatch(r"[\w.-]+", features):
        raise InputError(f"{path}: features is {features!r}, wanted the name of a file in {folder}, without .conf")
    if not (folder / f"{features}.conf").is_file():
        raise InputError(f"{path}: no features {features!r} in {folder}")
    for name in ("frontend", "init", "distil"):
        if not isinstance(config.get(name, {}), dict):
            raise InputError(f"{path}: {name}: expected keys, found {config[name]!r}")
    teachers = config.get("distil", {}).get("models", [])
    if not isinstance(teachers, list):
        raise InputError(f"{path}: distil: models is {teachers!r}, wanted a list of systems")
    frontend, train_set = config.get("frontend", {}), config.get("train_set", "train_net")
    chains = of_chains(config, str(path))
    online = bool(config.get("online"))
    reads_audio = online or frontend.get("type", "kaldi") != "kaldi"  # augmented copies hold features only
    augmented = augmented and kind == "network" and not reads_audio
    copies = train_set == "train_net_sp" or chains["copies"] == "true"
    sets = ["train", "test", *["train_sp"] * copies, *["train_aug"] * augmented]
    return {"kind": kind, "features": features, "train_set": f"{train_set}{'_aug' * augmented}", "sets": " ".join(sets),
            "vad": str(bool(frontend.get("vad"))).lower(), "online": str(online).lower(),
            "after": " ".join(models_of(config)), **chains}


def models_of(config: dict[str, Any]) -> list[str]:
    """Return the models that the training of a system needs: the one that it starts from, and its teachers."""
    init, teachers = config.get("init", {}).get("model"), config.get("distil", {}).get("models", [])
    return [str(model) for model in (*([init] if init else []), *teachers)]


def starting(configs: dict[str, dict[str, Any]], model: Path, conf: Path, from_model: FromModel,
             ) -> dict[str, dict[str, Any]]:
    """Return the configurations as ones that start from a model. One that starts from another system of these still
    does, and has its layers, which are the model's."""
    def own(init: Any) -> bool:
        return isinstance(init, dict) and init.get("model") in configs

    found = {name: from_model(config, model, conf / f"{name}.yaml") for name, config in configs.items()}
    return {name: found[name] | {key: config[key] for key in TRAINING if key in config and own(config.get("init"))}
            for name, config in configs.items()}


def in_order(configs: dict[str, dict[str, Any]]) -> list[str]:
    """Return the systems' names, each after those whose models it needs; raises InputError on a circle."""
    ordered: list[str] = []

    def add(name: str, waiting: tuple[str, ...] = ()) -> None:
        if name in waiting:
            raise InputError(f"init.model, distil.models: {' <- '.join((*waiting, name))}: each needs the next one's "
                             "model; change one of them")
        for before in models_of(configs[name]):
            if before in configs:
                add(before, (*waiting, name))
        if name not in ordered:
            ordered.append(name)

    for name in configs:
        add(name)
    return ordered


def as_shell(facts: dict[str, str]) -> str:
    """Return facts as lines that a shell can source, with quoted values."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in facts.items())


def main(of_chains: FactsOfChains, keys_of: KeysOf, system_of: SystemOf, from_model: FromModel) -> None:
    """Run the program. of_chains: returns the facts of a configuration's chains, or raises InputError; keys_of: see
    utils/settings.py; system_of, from_model: for --init, return a model's system, and a configuration that starts from
    the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, required=True)
    parser.add_argument("--conf", type=Path, required=True)
    parser.add_argument("--exp", type=Path, required=True)
    parser.add_argument("--backend", help="chains in place of those of every configuration, as YAML")
    parser.add_argument("--set", default="", help="keys of the configurations to change: train.epochs=20 ...")
    parser.add_argument("--picked", default="", help="settings like --set, for the systems that have their keys")
    parser.add_argument("--quiet", action="store_true", help="do not name the systems that lack a key of --set")
    parser.add_argument("--init", type=Path, help="bundle, or folder of a trained network, that the systems start from")
    parser.add_argument("--augmented", action="store_true", help="augmented copies exist for training")
    parser.add_argument("systems", nargs="*")
    arguments = parser.parse_args()
    chosen = arguments.systems
    if arguments.init and not chosen:
        chosen = [system_of(arguments.init)]
        if not (arguments.conf / f"{chosen[0]}.yaml").is_file():
            raise InputError(f"--init: {arguments.init} is of the system {chosen[0]!r}, which is not in "
                             f"{arguments.conf}; name one with the same network with --systems")
    names = names_of(chosen, arguments.conf)
    given = {"backend": parse_yaml(arguments.backend, "--backend")} if arguments.backend else {}
    configs = {name: load_config(arguments.conf / f"{name}.yaml", arguments.scale) | given for name in names}
    if arguments.init:
        configs = starting(configs, arguments.init, arguments.conf, from_model)
    picked, settings = parse_settings(arguments.picked), parse_settings(arguments.set)
    if picked or settings:
        configs, remarks = change(configs, settings, keys_of, picked)
        for remark in [] if arguments.quiet else remarks:
            print(remark, file=sys.stderr)
    for name, config in configs.items():
        facts = facts_of(config, arguments.conf / f"{name}.yaml", arguments.augmented, of_chains)
        path = arguments.exp / name / "system.yaml"
        text = f"{SCALE_LINE}{arguments.scale}\n{yaml.safe_dump(config, sort_keys=False, width=100)}"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # a wrong key must not wait for stage 3
            keys_of(config, str(arguments.conf / f"{name}.yaml"))
        write_if_changed(path, text)
        write_if_changed(arguments.exp / name / "facts.sh", as_shell(facts))
    print(*in_order(configs))
