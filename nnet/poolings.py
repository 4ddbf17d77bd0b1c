"""Poolings: from the frames of an encoder to one vector an utterance.

Every pooling is a module with `output_dim`, called with
    h        B x T x d   frames of the encoder
    lengths  B           frames of each utterance that count; None: all T
and returns B x output_dim. What lies beyond an utterance's length never changes its result. Equations are
those of the papers named; t runs over the frames, j over the K heads.

To add one: write the class and its options, and enter both in POOLINGS (or ATTENTION_POOLINGS).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnet.attention_poolings import ATTENTION_POOLINGS
from nnet.cross_attention import CrossAttentive, CrossOptions
from nnet.frames import VARIANCE_FLOOR, frame_weights, weighted_mean


@dataclass(frozen=True)
class NoOptions:
    """Poolings without options."""

    type: str


class TemporalPooling(nn.Module):
    """Mean over the frames: c = 1/T sum_t h_t."""

    def __init__(self, input_dim: int, options: NoOptions) -> None:
        super().__init__()
        self.output_dim = input_dim

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        return weighted_mean(frame_weights(h, lengths), h)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation (biased, over T) over the frames, concatenated."""

    def __init__(self, input_dim: int, options: NoOptions) -> None:
        super().__init__()
        self.output_dim = 2 * input_dim

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        weights = frame_weights(h, lengths)
        mean = weighted_mean(weights, h)
        # The derivative with respect to this mean is zero, so that it need not be computed.
        centred = h - mean.detach()[:, None]
        variance = weighted_mean(weights, centred * centred)
        return torch.cat([mean, variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=1)


POOLINGS = {
    "temporal": (TemporalPooling, NoOptions),
    "statistics": (StatisticsPooling, NoOptions),
    **ATTENTION_POOLINGS,
    "cross_attentive": (CrossAttentive, CrossOptions),
}
