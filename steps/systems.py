"""The program that the recipe's shell calls: utils/systems.py, with chains and the keys of each kind."""

from typing import Any

from steps.backend import chains_of
from utils import systems
from utils.errors import run_main


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


def main() -> None:
    systems.main(facts_of_chains, settable_keys)


if __name__ == "__main__":
    run_main(main)
