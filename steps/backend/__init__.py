"""The back-ends, which turn embeddings into scores of trials: a table by name, each with its options.

`scoring:` of a configuration lists them, and normalised scores: `plda+asnorm300` are PLDA's after adaptive s-norm with
the 300 nearest training speakers (steps/backend/score_norm.py).

To add one: write a module with the class (an `interface.Backend`) and its options, a dataclass, and enter both in
BACKENDS. Configurations (`scoring:`, `backend:`), train_backend.sh, score.sh and the report find it there.
"""

import dataclasses
import re
from typing import Any

from steps.backend.cosine import Cosine, CosineOptions
from steps.backend.lda_plda import LdaPlda, LdaPldaOptions
from utils.config import build
from utils.errors import InputError

BACKENDS = {
    "cosine": (Cosine, CosineOptions),
    "plda": (LdaPlda, LdaPldaOptions),
}
SCORING = ("cosine", "plda")  # default of a configuration without `scoring:`
# Scores without a back-end: the network computes them from segments of utterances (steps/score_segments.sh).
NETWORK_SCORES = {"segments": "the mean cosine of the 100 pairs of ten segments of 3.5 s"}


NORM = r"znorm|tnorm|snorm|asnorm(\d{1,9})"
NORMALISED = re.compile(rf"(\w+)\+({NORM})")


def describe(name: str) -> str:
    """Return a short description of a kind of scores; the name itself if it is not known."""
    if found := NORMALISED.fullmatch(name):
        kind, cohort = found[2], "the training speakers"
        if found[3]:
            kind, cohort = "asnorm", f"the {found[3]} nearest training speakers"
        return f"{describe(found[1])}, normalised by {kind} with {cohort}"
    if name in BACKENDS:
        return BACKENDS[name][0].__doc__.splitlines()[0]
    return NETWORK_SCORES.get(name, name)


def base_of(name: str) -> str:
    """Return the kind of scores that normalised scores are made of; others are their own."""
    found = NORMALISED.fullmatch(name)
    return found[1] if found else name


def scoring_of(config: dict[str, Any], where: str) -> list[str]:
    """Return the kinds of scores that a system's configuration lists in `scoring:`, after checking them.

    where: the file to name in messages, e.g. conf/xvector.yaml. Raises InputError on unknown names.
    """
    allowed = [*BACKENDS, *(NETWORK_SCORES if config.get("kind") == "network" else ())]
    scoring = config.get("scoring", list(SCORING))

    def fits(one: Any) -> bool:
        return one in allowed or (isinstance(one, str) and base_of(one) != one and base_of(one) in BACKENDS)

    if not isinstance(scoring, list) or not scoring or not all(map(fits, scoring)):
        raise InputError(f"{where}: scoring is {scoring!r}, wanted a list of {', '.join(allowed)}, or of one of them "
                         "with +znorm, +tnorm, +snorm or +asnorm<N>")
    for place, one in enumerate(scoring):
        if base_of(one) not in scoring[:place + 1]:
            raise InputError(f"{where}: scoring: {one} is made of {base_of(one)}; list {base_of(one)} before it")
        found = NORMALISED.fullmatch(one)
        if found and found[3] and int(found[3]) < 2:
            raise InputError(f"{where}: scoring: {one}: a mean and a deviation need two scores or more")
    return scoring


def options_of(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the options of each back-end in a configuration's `scoring:`, by name, from its block `backend:`.

    Back-ends share options of the same name. A null block or option, with which a configuration overrides its base,
    counts as absent. Raises InputError on an option that none of these back-ends has.
    """
    fields = {name: [field.name for field in dataclasses.fields(kind)] for name, (_, kind) in BACKENDS.items()}
    chosen = [name for name in dict.fromkeys(map(base_of, scoring_of(config, where))) if name in BACKENDS]
    known, allowed = ({option for name in names for option in fields[name]} for names in (BACKENDS, chosen))
    block = {} if config.get("backend") is None else config["backend"]
    if not isinstance(block, dict):
        raise InputError(f"{where}: backend: expected keys, found {block!r}")
    for key, value in block.items():
        if key not in known or (value is not None and key not in allowed):
            raise InputError(f"{where}: backend: {key!r} is not an option of {' or '.join(chosen) or 'any back-end'}, "
                             f"which `scoring:` asks for; allowed: {', '.join(sorted(allowed)) or 'none'}; leave it "
                             "out, or set it to null if a base configuration has it")
    given = {key: value for key, value in block.items() if value is not None}
    return {name: build(BACKENDS[name][1], {key: given[key] for key in fields[name] if key in given},
                        f"{where}: backend") for name in chosen}
