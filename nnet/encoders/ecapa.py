"""ECAPA-TDNN (Desplanques, Thienpondt, Demuynck 2020), a modern reference: c512 and c1024 by `channels`.

Convolutions over time are padded to keep T: with zeros, for which frames beyond an utterance's end are set to 0 before
each one; or, as in speechbrain, with the frames beside its ends, mirrored.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nnet.padding import frame_weights, inside_mask, weighted_mean
from utils.config import Count


@dataclass(frozen=True)
class EcapaOptions:
    """One SE-Res2 block per dilation; the paper has three."""

    type: str
    channels: Count = 512
    dilations: tuple[Count, ...] = (2, 3, 4)
    groups: Count = 8       # of the Res2 convolutions; must divide channels
    squeeze: Count = 128    # width of the squeeze-and-excitation bottleneck
    output: Count = 1536    # channels of the output frames
    padding: Literal["zeros", "reflect"] = "zeros"  # reflect: as in speechbrain
    output_norm: bool = False  # batch norm on the output frames, as in speechbrain

    def __post_init__(self) -> None:
        if self.channels % self.groups or self.groups < 2:
            raise ValueError(f"groups is {self.groups} and channels {self.channels}; wanted a divisor of it, 2 or more")
        if not self.dilations:
            raise ValueError("dilations is empty; wanted one or more")


def zero_frames(x: Tensor, inside: Tensor | None) -> Tensor:
    """Return B x C x T with zeros beyond each utterance's end; inside: B x 1 x T."""
    return x if inside is None else x * inside


def mirrored(x: Tensor, reach: int, lengths: Tensor | None) -> Tensor:
    """Return B x C x (T + 2 reach): `reach` frames more at both ends of each utterance, mirrored at its outermost ones.

    The utterances must be longer than that.
    """
    if lengths is None:
        return nn.functional.pad(x, (reach, reach), mode="reflect")
    place, last = torch.arange(-reach, x.shape[2] + reach, device=x.device).abs(), lengths[:, None] - 1
    place = torch.minimum(place, 2 * last - place).clamp_min(0)  # B x (T + 2 reach); what follows an utterance is free
    return x.gather(2, place[:, None].expand(-1, x.shape[1], -1))


class ConvolutionNorm(nn.Module):
    """Convolution over time that keeps T, ReLU, batch norm: B x C x T."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, padding: str = "zeros") -> None:
        super().__init__()
        reach = kernel // 2 * dilation
        self.mirrored = reach if padding == "reflect" else 0
        self.convolution = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=reach - self.mirrored)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor, inside: Tensor | None, lengths: Tensor | None = None) -> Tensor:
        x = mirrored(x, self.mirrored, lengths) if self.mirrored else x
        return zero_frames(self.norm(self.convolution(x).relu()), inside)


class SeRes2Block(nn.Module):
    """1 x 1 convolution; Res2: y_1 = x_1, y_2 = conv(x_2), y_i = conv(x_i + y_{i-1}); 1 x 1; SE; residual sum."""

    def __init__(self, options: EcapaOptions, dilation: int) -> None:
        super().__init__()
        width = options.channels // options.groups
        self.groups = options.groups
        self.first = ConvolutionNorm(options.channels, options.channels)
        self.parts = nn.ModuleList(ConvolutionNorm(width, width, 3, dilation, options.padding)
                                   for _ in range(options.groups - 1))
        self.last = ConvolutionNorm(options.channels, options.channels)
        self.weigh = nn.Sequential(nn.Linear(options.channels, options.squeeze), nn.ReLU(),
                                   nn.Linear(options.squeeze, options.channels), nn.Sigmoid())

    def forward(self, x: Tensor, inside: Tensor | None, weights: Tensor, lengths: Tensor | None = None) -> Tensor:
        """weights: B x T, 1 / length on the frames of each utterance."""
        groups = self.first(x, inside).chunk(self.groups, dim=1)
        found = [groups[0]]
        for group, part in zip(groups[1:], self.parts, strict=True):
            y = group if len(found) == 1 else group + found[-1]
            found.append(part(y, inside, lengths))  # y_i = conv(x_i + y_{i-1})
        y = self.last(torch.cat(found, dim=1), inside)
        return x + y * self.weigh(weighted_mean(weights.to(y.dtype), y.transpose(1, 2)))[:, :, None]


class Ecapa(nn.Module):
    """B x T x F and lengths (or None) in; B x T x output and the same lengths out."""

    stride = 1

    def __init__(self, input_dim: int, options: EcapaOptions) -> None:
        super().__init__()
        self.first = ConvolutionNorm(input_dim, options.channels, 5, padding=options.padding)
        self.blocks = nn.ModuleList(SeRes2Block(options, dilation) for dilation in options.dilations)
        self.aggregate = nn.Conv1d(len(options.dilations) * options.channels, options.output, 1)
        self.output_norm = nn.BatchNorm1d(options.output) if options.output_norm else None
        self.output_dim = options.output
        self.receptive_field = 1 + max([self.first.mirrored, *(block.parts[0].mirrored for block in self.blocks)])

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        weights = frame_weights(x, lengths)
        inside = None if lengths is None else inside_mask(x.shape[1], lengths)[:, None].to(x.dtype)
        x = zero_frames(x.transpose(1, 2), inside)
        x = self.first(x, inside, lengths)
        outputs = []
        for block in self.blocks:
            x = block(x, inside, weights, lengths)
            outputs.append(x)
        h = self.aggregate(torch.cat(outputs, dim=1)).relu()
        return (h if self.output_norm is None else self.output_norm(h)).transpose(1, 2), lengths
