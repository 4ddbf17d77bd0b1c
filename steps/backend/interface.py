"""The interface of back-ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np


@dataclass(frozen=True)
class Enrolment:
    """The models of the enrolment side. x: N x D embeddings; models: the rows of x of each of M models; None: each row
    is a model."""

    x: np.ndarray
    models: list[np.ndarray] | None = None

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


class Backend(Protocol):
    """Turns embeddings into scores. The first line of a class's docstring describes it in usage texts and the report.

    The back-ends of a system share one folder: a file name means the same in all of them (mean.vec is the mean of the
    training embeddings).
    """

    files: ClassVar[tuple[str, ...]]  # that `save` writes and `load` reads

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], options: Any) -> Self:
        """Train on N x D embeddings (float32) with the speaker of each; options: of the table's class."""

    def save(self, folder: Path) -> None:
        """Write the files."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the files of `save`; the scores are bit-identical."""

    def scorer(self, enrolment: Enrolment, test: np.ndarray) -> Scorer:
        """Return the scorer of an enrolment side and M x D test embeddings."""
