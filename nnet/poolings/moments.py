"""Poolings without attention: mean, and mean with standard deviation, over the frames."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnet.padding import Deviation, deviation, frame_weights, weighted_mean


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
        return weighted_mean(frame_weights(h, lengths), h)  # c = 1/T sum_t h_t


@dataclass(frozen=True)
class StatisticsOptions:
    """Statistics pooling."""

    type: str
    deviation: Deviation = "floored"  # how sigma is computed from its square (nnet/padding.py)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over the frames: [m, sigma], m = 1/T sum_t h_t, sigma^2 = 1/T sum_t (h_t - m)^2."""

    def __init__(self, input_dim: int, options: StatisticsOptions) -> None:
        super().__init__()
        self.output_dim, self.deviation = 2 * input_dim, options.deviation

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        weights = frame_weights(h, lengths)
        mean = weighted_mean(weights, h)  # m
        # The variance's derivative with respect to m is zero: detach it, and save computing it.
        centred = h - mean.detach()[:, None]
        variance = weighted_mean(weights, centred * centred)  # sigma^2
        return torch.cat([mean, deviation(variance, weights, self.deviation)], dim=1)  # [m, sigma]: B x 2d
