"""The cosine back-end.

The training mean is subtracted first: raw cosines of i-vectors and of ReLU outputs crowd together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from steps.backend.interface import Enrolment
from steps.backend.lda import normalise_length, process
from steps.backend.scoring import Sides
from steps.backend.speaker_stats import speaker_means
from utils.kaldi.objects import read_vector, write_vector


@dataclass(frozen=True)
class CosineOptions:
    """No options."""


@dataclass(frozen=True)
class Cosine:
    """the cosine of centred embeddings

    mean: D, of the training embeddings.
    """

    mean: np.ndarray
    files: ClassVar[tuple[str, ...]] = ("mean.vec",)

    @classmethod
    def fit(cls, x: np.ndarray, speakers: Sequence[str], options: CosineOptions) -> Self:
        """Compute the mean; one speaker is enough."""
        counts, means, _ = speaker_means(x, speakers)
        return cls((counts @ means / len(x)).astype(np.float32))

    def save(self, folder: Path) -> None:
        """Write Kaldi's mean.vec."""
        write_vector(folder / "mean.vec", self.mean)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read Kaldi's mean.vec or ours."""
        return cls(read_vector(folder / "mean.vec"))

    def scorer(self, enrolment: Enrolment, test: np.ndarray) -> Sides:
        """Return the scorer: a model is the mean of its utterances' vectors, centred and of unit length."""
        vectors = process(test, self.mean)
        enrolled = vectors if enrolment.x is test else process(enrolment.x, self.mean)
        return cosine_sides(enrolment.average(enrolled), vectors)


def cosine_sides(enrolment: np.ndarray, test: np.ndarray) -> Sides:
    """Return the sides of the cosine of N x D and M x D vectors: x . y of their unit vectors."""
    rows = _unit(enrolment)
    return Sides(rows, rows if test is enrolment else _unit(test))


def _unit(x: np.ndarray) -> np.ndarray:
    return (normalise_length(x) / x.shape[1] ** 0.5).astype(np.float32)
