"""Augmentation of training chunks as they are read, for `online:` (utils/features/augment.py defines the kinds)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnet.config import OnlineOptions
from utils.audio import Recording
from utils.errors import InputError
from utils.features.augment import Sources, augment, make_plan


class Augmentation:
    """Augments a share of the chunks. paths, labels: audio and speaker of the training utterances, for babble.

    rate: Hz; musan, rirs: corpora of noises and of room responses; None: both are synthetic.
    """

    def __init__(self, options: OnlineOptions, paths: Sequence[str], labels: np.ndarray, rate: int,
                 musan: Path | None, rirs: Path | None) -> None:
        self.options, self.rate = options, rate
        self.sources = Sources.find(musan, rirs, paths, labels)
        if "music" in options.kinds and not self.sources.music:
            raise InputError("online: kinds: music needs MUSAN; name its folder or leave music out")

    def __call__(self, samples: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
        """Return a chunk of a speaker (N samples), augmented or not."""
        if rng.random() >= self.options.share:
            return samples
        kind = self.options.kinds[int(rng.integers(len(self.options.kinds)))]
        plan = make_plan(kind, self.sources, label, rng)
        return augment(samples, plan, self.rate, lambda path: Recording(path, self.rate))
