"""Back-ends: chains of parts that turn embeddings into scores of trials.

A chain is a list of words, in a system's configuration or on the command line:

    backend: [center, lda200, length, plda, asnorm300]

    [copies]                          train on copies at other speeds, too, as further speakers
    [parts<N>]                        the vectors have N parts of equal size; each is treated apart, and all are scored
    center, lda<N>, wccn, length      transforms, in any order, each as often as wanted but for those that learn: once
    cosine, plda[<N>], gplda[<N>],    how two vectors are compared
    pldacosine[<N>]
    [znorm, tnorm, snorm, asnorm<N>]  normalise scores with the speakers that the chain is trained on

Several chains have names: `backend: {cosine: [center, length, cosine], plda: [center, lda200, length, plda]}`; one
chain without a name has that of its comparison. The chain [segments] stands for scores that a network computes from
segments of utterances (steps/score_segments.sh).

To add a part: write a module with a class (steps/backend/interface.py) and enter it in TRANSFORMS or COMPARISONS.
"""

import re
from typing import Any, NamedTuple

from steps.backend.cosine import Cosine
from steps.backend.interface import Comparison, Part, Transform
from steps.backend.plda_scoring import Gaussian, TwoCovariance, WithCosine
from steps.backend.transforms import Center, Lda, Length, Wccn
from utils.errors import InputError

TRANSFORMS: dict[str, type[Transform]] = {"center": Center, "lda": Lda, "wccn": Wccn, "length": Length}
COMPARISONS: dict[str, type[Comparison]] = {"cosine": Cosine, "plda": TwoCovariance, "gplda": Gaussian,
                                           "pldacosine": WithCosine}
NORMS = ("znorm", "tnorm", "snorm", "asnorm")
PERCENT = ("plda", "pldacosine")  # whose number is a share of the covariance
COPIES, PARTS, SEGMENTS = "copies", "parts", "segments"
NAME = re.compile(r"[A-Za-z0-9_]{1,60}")
EXAMPLE = "backend: {cosine: [center, length, cosine], plda: [center, lda200, length, plda]}"


class Word(NamedTuple):
    """A word of a chain: `lda200` is ("lda", 200)."""

    name: str
    number: int | None

    def __str__(self) -> str:
        return self.name + ("" if self.number is None else str(self.number))


class Words(NamedTuple):
    """A chain that has been checked."""

    copies: bool
    transforms: tuple[Word, ...]
    comparison: Word
    norm: Word | None
    parts: int = 1

    def __str__(self) -> str:
        words = [*[COPIES] * self.copies, *[Word(PARTS, self.parts)] * (self.parts > 1), *self.transforms,
                 self.comparison, *[self.norm] * (self.norm is not None)]
        return " ".join(map(str, words))


def parse_chain(words: Any, where: str, trained: bool = False) -> Words:
    """Return a chain that is given as a list of words; raises InputError, naming `where` and the word.

    trained: numbers that matter in training alone may be missing.
    """
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise InputError(f"{where}: a chain is {words!r}, wanted words such as [center, lda200, length, plda]")
    rest = list(words)
    copies = rest[0] == COPIES
    found = [parse_word(word, where, trained) for word in rest[copies:]]
    parts = found.pop(0).number if found[:1] and found[0].name == PARTS else 1
    places = [place for place, word in enumerate(found) if word.name in COMPARISONS]
    if len(places) != 1:
        raise InputError(f"{where}: the chain {' '.join(words)} has {len(places)} of {', '.join(COMPARISONS)}; wanted "
                         "one")
    transforms, (comparison, *norm) = tuple(found[:places[0]]), found[places[0]:]
    learning = [word.name for word in transforms if word.name in TRANSFORMS and TRANSFORMS[word.name].FILE]
    for word, allowed in [*((word, TRANSFORMS) for word in transforms), *((word, NORMS) for word in norm)]:
        if word.name not in allowed or learning.count(word.name) > 1 or len(norm) > 1:
            raise InputError(f"{where}: the chain {' '.join(words)}: {word} is out of place; wanted [{COPIES}] and "
                             f"[{PARTS}<N>], then {', '.join(TRANSFORMS)} (those that learn once), one of "
                             f"{', '.join(COMPARISONS)}, and perhaps one of {', '.join(NORMS)}")
    return Words(copies, transforms, comparison, norm[0] if norm else None, parts)


def parse_word(word: str, where: str, trained: bool) -> Word:
    """Return a word and its number; raises InputError if it is not known, or its number is missing or out of place."""
    name, number = re.fullmatch(r"(.*?)([0-9]{0,9})", word, re.DOTALL).groups()
    parts: dict[str, type[Part]] = {**TRANSFORMS, **COMPARISONS}
    if word == COPIES:
        raise InputError(f"{where}: {COPIES} is out of place; put it first in the chain")
    if name not in parts and name not in (*NORMS, PARTS):
        raise InputError(f"{where}: no part {word!r} of a chain; available: "
                         f"{', '.join([COPIES, PARTS, *parts, *NORMS])}, or [{SEGMENTS}] alone for a network")
    wanted = parts[name].NUMBER if name in parts else "wanted" if name in (PARTS, "asnorm") else ""
    if (number and not wanted) or (not number and wanted == "wanted" and not (trained and name in parts)):
        raise InputError(f"{where}: the part {word!r} {'takes no number' if number else f'wants a number: {name}200'}")
    if number and name in PERCENT and int(number) > 99:
        raise InputError(f"{where}: the part {word!r}: wanted {name}1 to {name}99, in % of the covariance")
    least = 2 if name in (*NORMS, PARTS) else 1  # a mean and a deviation
    if number and int(number) < least:
        raise InputError(f"{where}: the part {word!r}: wanted at least {name}{least}")
    return Word(name, int(number) if number else None)


def chains_of(config: dict[str, Any], where: str) -> dict[str, Words | None]:
    """Return the chains of a system's configuration by name, checked; None stands for [segments].

    where: the file to name in messages, e.g. conf/xvector.yaml. A null chain, with which a configuration overrides its
    base, counts as absent. Raises InputError.
    """
    block = config.get("backend")
    if isinstance(block, list):
        words = parse_chain(block, f"{where}: backend")
        block = {"_".join(map(str, filter(None, (words.comparison, words.norm)))): block}
    if not isinstance(block, dict):
        raise InputError(f"{where}: backend is {block!r}, wanted a chain or named chains, such as {EXAMPLE}")
    block = {name: chain for name, chain in block.items() if chain is not None}
    if not block:
        raise InputError(f"{where}: backend names no chain; wanted e.g. {EXAMPLE}")
    chains: dict[str, Words | None] = {}
    for name, chain in block.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(f"{where}: backend: a chain cannot be called {name!r}; use letters, digits and _")
        if chain == [SEGMENTS]:
            if config.get("kind") != "network":
                raise InputError(f"{where}: backend: {name}: [{SEGMENTS}] is for networks")
            chains[name] = None
        else:
            chains[name] = parse_chain(chain, f"{where}: backend: {name}")
    return chains
