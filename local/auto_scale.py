"""Sizes and epochs for an amount of training data: the rule of `--scale auto`, shown as a table in docs/own_corpus.md.

The rule keeps two figures of minivox (110 speakers, 2.4 hours), on which the settings of `mini` were chosen: about
4,000 voiced frames per Gaussian, and about 1,100 batches for a network.
"""

import math
from typing import NamedTuple

FULL_HOURS, FULL_SPEAKERS = 100, 500
GAUSSIANS_PER_HOUR = 54      # 360,000 frames per hour, 60 % of them voiced, 4,000 per Gaussian
GAUSSIANS = 32, 2048
FACTORS = {32: 40, 64: 60, 128: 100, 256: 150, 512: 200, 1024: 300, 2048: 400}  # by the number of Gaussians
BATCHES, BATCH, COPIES = 1100, 64, 3  # of utterances at three speeds
EPOCHS = 10, 60
FRAMES = 2400                # per Gaussian, drawn for the background model
VALID = 2, 40                # speakers who validate: a tenth of the training speakers, within these limits


class Picked(NamedTuple):
    """What suits an amount of data. settings: as --set takes them; empty: those of the scale."""

    scale: str
    settings: str
    valid_speakers: int


def pick(speakers: int, hours: float, recordings: int) -> Picked:
    """Return the scale, further settings and the number of validation speakers for training data of this size."""
    valid = max(VALID[0], min(VALID[1], round(speakers / 10)))
    if hours >= FULL_HOURS and speakers >= FULL_SPEAKERS:
        return Picked("full", "", valid)
    gaussians = 2 ** math.floor(math.log2(min(max(GAUSSIANS_PER_HOUR * hours, GAUSSIANS[0]), GAUSSIANS[1])))
    trained = recordings * (1 - valid / max(speakers, valid + 1))
    epochs = max(EPOCHS[0], min(EPOCHS[1], round(BATCHES * BATCH / (COPIES * max(trained, 1)))))
    frames = max(300_000, FRAMES * gaussians)
    return Picked("mini", f"ubm.num_gaussians={gaussians} ubm.num_frames={frames} extractor.dim={FACTORS[gaussians]} "
                          f"train.epochs={epochs}", valid)
