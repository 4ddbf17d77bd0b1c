"""A batch of training data."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Chunks (B x T x F' frames or B x N samples), speakers' numbers (B), masks (B x 2 x 2) if any."""

    x: Tensor
    labels: Tensor
    spans: Tensor | None
