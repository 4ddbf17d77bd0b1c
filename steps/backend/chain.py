"""A trained chain: from embeddings to scores. steps/backend/__init__.py says what its words mean.

Its folder holds the file `chain` with the words, one file per part that has learnt something (Kaldi's mean.vec,
transform.mat, plda; wccn.mat), the cohort for normalised scores, and `speakers`, the names of those trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from steps.backend import COMPARISONS, PARTS, TRANSFORMS, Words, parse_chain
from steps.backend.interface import Comparison, Enrolment, Part, Scorer, Transform
from steps.backend.score_norm import Normalised, normals
from steps.backend.speaker_stats import in_blocks, speaker_means
from steps.backend.transforms import Length
from utils.errors import InputError
from utils.files import write_aside
from utils.kaldi.ark import ArkWriter, read_vectors
from utils.kaldi.shared_speakers import trained_speakers, write_speakers

P = TypeVar("P", bound=Part)
WORDS, COHORT = "chain", "cohort"
KALDI = "center lda length plda"  # of a folder with Kaldi's mean.vec, transform.mat and plda


@dataclass(frozen=True)
class Chain:
    """words: checked; transforms, comparison: its parts; cohort: S x D, the mean embedding of each speaker of the
    training (None without normalisation); speakers: their names; dim: D, or None if any D will do."""

    words: Words
    transforms: tuple[Transform, ...]
    comparison: Comparison
    cohort: np.ndarray | None = None
    speakers: tuple[str, ...] = ()
    dim: int | None = None

    @classmethod
    def fit(cls, words: Words, x: np.ndarray, speakers: Sequence[str]) -> Self:
        """Train on N x D embeddings (float32) with the speaker of each, part after part.

        Raises InputError when there are too few speakers or utterances.
        """
        names, dim = tuple(np.unique(np.asarray(speakers)).tolist()), x.shape[1]
        cohort = speaker_means(x, speakers)[1].astype(np.float32) if words.norm else None
        if cohort is not None and len(cohort) < 2:
            raise InputError(f"all {len(x)} training vectors are of speaker {names[0]}: {words.norm} needs a cohort of "
                             "two speakers or more")
        transforms: list[Transform] = []
        if x.shape[1] % words.parts:
            raise InputError(f"the training vectors have {x.shape[1]} dimensions, which {PARTS}{words.parts} cannot "
                             "split evenly; wanted as many parts as the network's pooling has")

        def fit(kind: type[P], number: int | None) -> P:
            if words.parts == 1:
                return kind.fit(x, speakers, number)
            return kind.joined([kind.fit(part, speakers, number) for part in np.split(x, words.parts, axis=1)])

        for word in words.transforms:
            transforms.append(fit(TRANSFORMS[word.name], word.number))
            x = apply(transforms[-1:], x)
        comparison = fit(COMPARISONS[words.comparison.name], words.comparison.number)
        return cls(words, tuple(transforms), comparison, cohort, names, dim)

    def save(self, folder: Path) -> None:
        """Write the folder; files of another chain in it are deleted, and `chain` is written last."""
        folder.mkdir(parents=True, exist_ok=True)
        parts = {**TRANSFORMS, **COMPARISONS}.values()
        for name in {WORDS, f"{COHORT}.ark", *(part.FILE for part in parts)} - {""}:
            (folder / name).unlink(missing_ok=True)
        for part in (*self.transforms, self.comparison):
            part.save(folder)
        if self.cohort is not None:
            with ArkWriter(folder / COHORT) as writer:
                for name, vector in zip(self.speakers, self.cohort, strict=True):
                    writer.write(name, vector)
            (folder / f"{COHORT}.scp").unlink()  # it names a place, and a chain may move
        write_speakers(folder, self.speakers)
        with write_aside(folder / WORDS) as stream:
            stream.write(f"{self.words}\n")

    @classmethod
    def load(cls, folder: Path, words: str = "") -> Self:
        """Read a folder; its scores are bit-identical to those before.

        words: the chain, for a folder without the file `chain`, such as Kaldi's. Raises InputError, naming the file, if
        the folder lacks one.
        """
        words = words or chain_in(folder)
        chain = parse_chain(words.split(), str(folder), trained=True)
        transforms = [TRANSFORMS[word.name] for word in chain.transforms]
        comparison = COMPARISONS[chain.comparison.name]
        wanted = [part.FILE for part in (*transforms, comparison) if part.FILE]
        for name in [*wanted, *["cohort.ark"] * (chain.norm is not None)]:
            if not (folder / name).is_file() or not (folder / name).stat().st_size:
                raise InputError(f"{folder / name} is missing or empty, but the chain {words} needs it; train the "
                                 "back-end again")
        # Relative paths in the script would depend on the current folder: read the archive beside it.
        names, cohort = read_vectors(folder / "cohort.ark") if chain.norm else (sorted(trained_speakers(folder)), None)
        parts = tuple(Length(chain.parts) if part is Length else part.load(folder) for part in transforms)
        comparing = comparison.load(folder)
        # Our matrices tell D. Those of a folder without `chain` may have a last column for the offset, or none.
        first = next(part for part in (*parts, comparing) if type(part) is not Length)  # which keeps D
        dim = first.dim if (folder / WORDS).is_file() else None
        dim = cohort.shape[1] if cohort is not None else dim
        return cls(chain, parts, comparing, cohort, tuple(names), dim)

    def process(self, x: np.ndarray) -> np.ndarray:
        """Return the vectors that are compared, float32, of N x D embeddings. Raises InputError if D is another."""
        if self.dim not in (None, x.shape[1]) or x.shape[1] % self.words.parts:
            raise InputError(f"embeddings of dimension {x.shape[1]}, back-end of dimension "
                             f"{self.dim or f'{self.words.parts} x n'}; name embeddings of the model that it is for")
        return apply(self.transforms, x)

    def plain_scorer(self, enrolment: Enrolment, test: np.ndarray) -> Scorer:
        """Return the scorer before normalisation: a model is the mean of its utterances' processed vectors."""
        vectors = self.process(test)
        enrolled = vectors if enrolment.x is test else self.process(enrolment.x)
        return self.comparison.scorer(enrolment.average(enrolled), enrolment.num_utts, vectors)

    def scorer(self, enrolment: Enrolment, test: np.ndarray, threads: int = 1) -> Scorer:
        """Return the scorer of an enrolment side and M x D test embeddings; threads: for scores with the cohort."""
        scorer = self.plain_scorer(enrolment, test)
        if self.words.norm is None or self.cohort is None:
            return scorer
        return Normalised(scorer, *normals(self.plain_scorer, self.words.norm, self.cohort, enrolment, test, threads))


def apply(transforms: Sequence[Transform], x: np.ndarray) -> np.ndarray:
    """Return float32 vectors after some transforms, each computed in float64, of N x D vectors."""
    def of_block(block: slice) -> np.ndarray:
        y = x[block].astype(np.float64)
        for transform in transforms:
            y = transform(y)
        return y.astype(np.float32)

    return in_blocks(of_block, x)


def chain_in(folder: Path) -> str:
    """Return the words in the file `chain` of a folder; raises InputError if there is none."""
    if not (folder / WORDS).is_file():
        inside = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{WORDS}")))
        raise InputError(f"{folder / WORDS} is missing; " + (
            f"name the folder of one chain inside: {inside}" if inside else
            f'name the folder of one chain, or give the chain of Kaldi\'s files there: --chain "{KALDI}"'))
    return (folder / WORDS).read_text(encoding="utf-8").strip()
