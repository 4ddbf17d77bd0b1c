"""The program that the recipe's shell calls: utils/systems.py, with the scores that steps/backend offers."""

from typing import Any

from steps.backend import options_of, scoring_of
from utils import systems
from utils.errors import run_main


def checked_scoring(config: dict[str, Any], where: str) -> list[str]:
    """Return the kinds of scores of a system; its back-ends' options are checked, too, long before they are used."""
    options_of(config, where)
    return scoring_of(config, where)


def main() -> None:
    systems.main(checked_scoring)


if __name__ == "__main__":
    run_main(main)
