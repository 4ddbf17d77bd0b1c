"""Cosine of two vectors. Center them first: raw cosines of i-vectors and of ReLU outputs crowd together."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from steps.backend.lda import normalise_length
from steps.backend.scoring import Sides
from steps.backend.speaker_stats import in_blocks


class Cosine:
    """the cosine"""

    FILE: ClassVar[str] = ""
    NUMBER: ClassVar[str] = ""
    dim: ClassVar[None] = None

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], number: int | None = None) -> Self:
        """Learn nothing."""
        return cls()

    @classmethod
    def joined(cls, apart: Sequence[Self]) -> Self:
        """Compare whole vectors: the mean of the parts' cosines, where each part has been given the same length."""
        return cls()

    def save(self, folder: Path) -> None:
        """Write nothing."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read nothing."""
        return cls()

    def scorer(self, enrolment: np.ndarray, num_utts: np.ndarray | int, test: np.ndarray) -> Sides:
        """Return the scorer; the number of utterances does not matter."""
        return cosine_sides(enrolment, test)


def cosine_sides(enrolment: np.ndarray, test: np.ndarray) -> Sides:
    """Return the sides of the cosine of N x D and M x D vectors: x . y of their unit vectors."""
    rows = _unit(enrolment)
    return Sides(rows, rows if test is enrolment else _unit(test))


def _unit(x: np.ndarray) -> np.ndarray:
    return in_blocks(lambda block: (normalise_length(x[block]) / x.shape[1] ** 0.5).astype(np.float32), x)
