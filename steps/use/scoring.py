"""From embeddings to scores and log-likelihood ratios, with the chains and the calibration of a model folder."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from steps.backend.chain import Chain
from steps.backend.interface import Enrolment
from utils.errors import InputError

CALIBRATION = "calibration.json"


class Histogram(NamedTuple):
    """How many scores of targets and of non-targets lie in each bin; bins of equal width from `low` to `high`."""

    low: float
    high: float
    targets: tuple[int, ...]
    nontargets: tuple[int, ...]

    @classmethod
    def read(cls, value: Any, where: str) -> Self:
        """Return a histogram from its JSON object; raises InputError, with `where`, if it is damaged."""
        try:
            low, high = (float(value[key]) for key in ("low", "high"))
            counts = [tuple(int(one) for one in value[key]) for key in ("targets", "nontargets")]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where}: no histogram of scores: {error!r}; train it again") from error
        if not (np.isfinite([low, high]).all() and low < high and len(counts[0]) == len(counts[1]) > 0
                and all(min(one) >= 0 for one in counts)):
            raise InputError(f"{where}: a histogram of scores without bins, or with negative counts; train it again")
        return cls(low, high, *counts)


class Calibration(NamedTuple):
    """A score's log-likelihood ratio is weight * score + offset (natural logarithm).

    prior: the probability of targets that it was trained for; trials: of held-out speakers, which it was trained on;
    eer: of these, in %; histogram: of their scores (None: it was trained by an older version).
    """

    weight: float
    offset: float
    prior: float
    trials: int
    eer: float
    cllr: float
    histogram: Histogram | None = None

    @classmethod
    def read(cls, value: Any, where: str) -> Self:
        """Return a calibration from its JSON object; raises InputError, with `where`, if it is damaged."""
        try:
            weight, = value["weights"]
            numbers = [float(one) for one in (weight, *(value[key] for key in (
                "offset", "prior", "trials", "eer", "cllr")))]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: no calibration of one chain: {error!r}; train it again") from error
        if not np.isfinite(numbers).all() or not 0 < numbers[2] < 1:
            raise InputError(f"{where}: numbers that are not finite, or a prior outside 0 to 1; train it again")
        histogram = Histogram.read(value["histogram"], where) if "histogram" in value else None
        return cls(*numbers[:3], int(numbers[3]), *numbers[4:], histogram)


def calibrations_of(folder: Path) -> dict[str, Calibration]:
    """Return the calibrations of a model folder by chain; none if it is not calibrated."""
    path = folder / CALIBRATION
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: damaged: {error}; train it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not an object; train it again")
    return {name: Calibration.read(value, f"{path}: {name}") for name, value in found.items()}


class Scoring(NamedTuple):
    """A chain with its name and its calibration, if it has one."""

    name: str
    chain: Chain
    calibration: Calibration | None

    @classmethod
    def load(cls, folder: Path, name: str = "") -> Self:
        """Return a chain of a model folder.

        name: empty for the one with the best calibrated ratios on held-out speakers (the lowest Cllr), or for the first
        by name if none is calibrated. Raises InputError if there is none.
        """
        chains = sorted(path.parent.name for path in folder.glob("backend/*/chain"))
        calibrations = calibrations_of(folder)
        if not chains:
            raise InputError(f"{folder} has no back-end; train one with stages 4 and 5 of the recipe, or "
                             "steps/train_backend.sh")
        if name and name not in chains:
            raise InputError(f"{folder} has no chain {name!r}; available: {', '.join(chains)}")
        calibrated = [chain for chain in chains if chain in calibrations]
        name = name or min(calibrated, key=lambda chain: calibrations[chain].cllr, default=chains[0])
        return cls(name, Chain.load(folder / "backend" / name), calibrations.get(name))

    def scores(self, enrolment: Enrolment, test: np.ndarray) -> np.ndarray:
        """Return the scores of all models with all test embeddings (T x E): M x T."""
        shape = len(enrolment), len(test)
        i, j = (index.reshape(-1) for index in np.indices(shape))
        return self.chain.scorer(enrolment, test).scores(i, j).reshape(shape)

    def ratios(self, scores: np.ndarray) -> np.ndarray:
        """Return log-likelihood ratios of scores; raises InputError without a calibration."""
        if self.calibration is None:
            raise InputError(f"the chain {self.name} is not calibrated, so its scores give no log-likelihood ratios; "
                             f"train {CALIBRATION} with stage 6 of the recipe, or steps/train_calibration.sh")
        return self.calibration.weight * scores + self.calibration.offset


def probability(ratio: float, prior: float) -> float:
    """Return the probability of one speaker, given a log-likelihood ratio and the probability before."""
    log_odds = ratio + math.log(prior / (1 - prior))
    return 1 / (1 + math.exp(-log_odds)) if log_odds > 0 else math.exp(log_odds) / (1 + math.exp(log_odds))
