"""Resolve the configurations of the chosen systems; print one line a system for the recipe's shell.

    name kind features train_set vad online scoring
    xvector network fbank80 train_net_sp no-vad stored cosine,plda

The resolved configuration goes to <exp>/<name>/system.yaml, rewritten only when it changed.
"""

import argparse
from pathlib import Path

import yaml

from utils.config import SCALES, get, load_config
from utils.errors import InputError, run_main
from utils.files import write_if_changed

KINDS = ("ivector", "network")
SCORING = ["cosine", "plda"]


def names_of(words: list[str], conf: Path) -> list[str]:
    """Return the chosen names, `all` spelt out; raises InputError on one without a configuration."""
    known = sorted(path.stem for path in conf.glob("*.yaml"))
    names = known if words == ["all"] else words
    for name in names:
        if name not in known:
            raise InputError(f"no system {name!r} in {conf}; there are: {', '.join(known)}")
    if not names:
        raise InputError(f"no system chosen; --systems takes names in {conf}: {', '.join(known)}")
    return list(dict.fromkeys(names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, required=True)
    parser.add_argument("--conf", type=Path, required=True)
    parser.add_argument("--exp", type=Path, required=True)
    parser.add_argument("systems", nargs="*")
    arguments = parser.parse_args()
    for name in names_of(arguments.systems, arguments.conf):
        path = arguments.conf / f"{name}.yaml"
        config = load_config(path, arguments.scale)
        kind, features = get(config, "kind"), get(config, "features")
        if kind not in KINDS:
            raise InputError(f"{path}: kind is {kind!r}, wanted {' or '.join(KINDS)}")
        if not (arguments.conf / "features" / f"{features}.conf").is_file():
            raise InputError(f"{path}: no features {features!r} in {arguments.conf / 'features'}")
        text = yaml.safe_dump(config, sort_keys=False, width=100)
        write_if_changed(arguments.exp / name / "system.yaml", text)
        vad = "vad" if config.get("frontend", {}).get("vad") else "no-vad"
        online = "online" if config.get("online") else "stored"
        scoring = config.get("scoring", SCORING)
        if not isinstance(scoring, list) or not set(scoring) <= {*SCORING, "segments"}:
            raise InputError(f"{path}: scoring is {scoring!r}, wanted a list of cosine, plda, segments")
        if kind == "ivector" and "segments" in scoring:
            raise InputError(f"{path}: scoring is {scoring!r}; segments is for networks")
        print(name, kind, features, config.get("train_set", "train_net"), vad, online, ",".join(scoring))


if __name__ == "__main__":
    run_main(main)
