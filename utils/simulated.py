"""Recognise simulated speakers by their ids, which every list, score and embedding carries."""

from pathlib import Path

PREFIX = "simulated"  # the ids of simulated speakers and of their utterances start with it


def is_simulated(name: str) -> bool:
    """Whether the id of a speaker or utterance belongs to a simulated speaker."""
    return name.startswith(PREFIX)


def has_simulated(trials: Path) -> bool:
    """Whether a trial list begins with a simulated speaker."""
    with open(trials, encoding="utf-8", errors="replace") as lines:
        return is_simulated(lines.readline())
