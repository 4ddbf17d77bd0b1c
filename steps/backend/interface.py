"""The interfaces of a chain's parts: steps/backend/__init__.py has the tables of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np


@dataclass(frozen=True)
class Enrolment:
    """The models of the enrolment side. x: N x D embeddings; models: the rows of x of each of M models; None: each row
    is a model."""

    x: np.ndarray
    models: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.x) if self.models is None else len(self.models)

    @property
    def num_utts(self) -> np.ndarray | int:
        """Utterances behind each model: M numbers, or 1 for all."""
        return 1 if self.models is None else np.array([len(rows) for rows in self.models])

    def average(self, vectors: np.ndarray) -> np.ndarray:
        """Return the mean of each model's rows of `vectors`, which were computed from x row by row: M x K."""
        return vectors if self.models is None else np.stack([vectors[rows].mean(axis=0) for rows in self.models])


class Scorer(Protocol):
    """Scores of trials."""

    def scores(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the scores (float32) of trials of enrolment models `i` with test rows `j`; called from threads."""


class Part(Protocol):
    """What both kinds of parts have. A part keeps what it has learnt in one file of the chain's folder.

    NUMBER says whether its word ends in a number, as in `lda200`: "wanted", "allowed", or "" for none.
    """

    FILE: ClassVar[str]  # "" for a part that learns nothing
    NUMBER: ClassVar[str]

    @property
    def dim(self) -> int | None:
        """D of the vectors that the part takes; None if any will do."""

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], number: int | None) -> Self:
        """Train on N x D vectors (float32), as the parts before leave them, with the speaker of each."""

    @classmethod
    def joined(cls, apart: Sequence[Self]) -> Self:
        """Return one part that does with vectors side by side what each of these does with its own."""

    def save(self, folder: Path) -> None:
        """Write the part's file."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the file; the scores are bit-identical."""


class Transform(Part, Protocol):
    """Turns vectors into vectors."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return N x D' vectors of N x D vectors (float64). Raises InputError if D is not that of the training."""


class Comparison(Part, Protocol):
    """Compares two vectors: the last part of a chain."""

    def scorer(self, enrolment: np.ndarray, num_utts: np.ndarray | int, test: np.ndarray) -> Scorer:
        """Return the scorer of M x D models, means of `num_utts` utterances, and N x D test vectors."""
