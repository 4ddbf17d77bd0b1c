"""Differences of the systems from the best one of each trial list and back-end, by the paired bootstrap over speakers.

As in steps/compare_scores.sh (utils/bootstrap.py): both systems are measured on the same draws of speakers.
"""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.bootstrap import chance, interval

LEVEL = 0.05  # a difference whose probability is lower is marked
Key = tuple[str, str, str]  # list, back-end, system


class Difference(NamedTuple):
    """The EER of a system minus that of the best one, in %, its 95 % interval, and the probability of such a difference
    by the choice of speakers alone. The best system has zeros and the probability 1."""

    list: str
    backend: str
    system: str
    best: str
    difference: float
    low: float
    high: float
    p: float

    def cells(self) -> tuple[str, ...]:
        """Return the values as text."""
        return (*self[:4], *(f"{value:.3f}" for value in self[4:]))


def differences(eers: Mapping[Key, float], replicates: Mapping[Key, np.ndarray]) -> list[Difference]:
    """Return the differences of the systems whose replicates are known.

    eers: in %; replicates: the EERs of the draws of speakers (utils.bootstrap.equal_error_rates), of one seed.
    """
    found = []
    for (name, backend), some in groupby(sorted(replicates), key=lambda key: key[:2]):
        keys = list(some)
        best = min(keys, key=eers.__getitem__)
        for key in keys:
            low, high, p = 0.0, 0.0, 1.0
            between = replicates[key] - replicates[best]
            if key != best and np.isfinite(between).any():
                (low, high), p = interval(between), chance(between)
            found.append(Difference(name, backend, key[2], best[2], eers[key] - eers[best], low, high, p))
    return found


def read_differences(path: Path) -> dict[Key, Difference]:
    """Return the differences in a file that steps/report/results.py wrote."""
    _, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return {(row[0], row[1], row[2]): Difference(*row[:4], *map(float, row[4:])) for row in rows}
