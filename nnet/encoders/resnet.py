"""Residual encoders: one module for the thin, wide and squeeze-and-excitation networks of the papers.

    ResNet of the multi-resolution paper (Wang et al. 2020): stem 3 x 3, 64; stages 3, 4, 6, 3 of 64 .. 512, strides
        1, 2, 2, 2 in time and 2, 2, 2, 2 in frequency; frequency: a last 3 x 3 convolution of 512 reduces the remaining
        three bands to one
    Fast ResNet (Kye, Kwon, Chung 2021): stem 7 x 7, 16, stride 2 in frequency; stages of 16 .. 128, strides 1, 2, 2, 1,
        squeeze and excitation, ReLU before the first batch norm of a block; frequency: mean
    modern reference (wespeaker's r-vector): stem 3 x 3, 32; stages of 32 .. 256; frequency: flatten
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import relu

from nnet.padding import frame_weights, zero_beyond
from utils.config import Count, Whole


@dataclass(frozen=True)
class ResNetOptions:
    """The defaults are ResNet-34 with 64 channels."""

    type: str
    stem: Count = 3                             # kernel of the first convolution; its channels are the first stage's
    stem_stride: tuple[Count, ...] = (1, 1)     # in time, in frequency
    channels: tuple[Count, ...] = (64, 128, 256, 512)
    blocks: tuple[Count, ...] = (3, 4, 6, 3)
    strides: tuple[Count, ...] = (1, 2, 2, 2)   # of each stage
    band_strides: tuple[Count, ...] = ()        # of each stage in frequency; empty: those in time
    relu_first: bool = False                    # in the first half of a block: ReLU, then batch norm
    squeeze: Whole = 0                          # reduction factor of squeeze-and-excitation; 0: none
    frequency: Literal["flatten", "mean", "convolution"] = "flatten"  # how the remaining bands are combined

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.blocks) == len(self.strides) > 0:
            raise ValueError(f"{len(self.channels)} channels, {len(self.blocks)} blocks and {len(self.strides)} "
                             "strides; wanted one of each for every stage")
        if self.band_strides and len(self.band_strides) != len(self.strides):
            raise ValueError(f"{len(self.band_strides)} band_strides and {len(self.strides)} strides; wanted as many, "
                             "or none")
        if self.stem % 2 == 0 or len(self.stem_stride) != 2:
            raise ValueError(f"stem is {self.stem} and stem_stride {list(self.stem_stride)}; wanted an odd kernel and "
                             "the strides in time and in frequency")


def mean_of_bands(x: Tensor) -> Tensor:
    """Return the mean over the bands of B x C x T x F: B x T x C.

    Channels move last first, so that the gradient has them last, too: adding gradients of two layouts is slow.
    """
    return x.permute(0, 2, 3, 1).mean(dim=2)


class SqueezeExcitation(nn.Module):
    """Scale channels by sigmoid(W_2 relu(W_1 mean(x))), the mean over time and frequency (Hu, Shen, Sun 2018)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.weigh = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels), nn.Sigmoid())

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        frames = mean_of_bands(x)
        mean = (frame_weights(frames, lengths)[..., None] * frames).sum(dim=1)
        return x * self.weigh(mean)[:, :, None, None]


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a residual connection (He et al. 2016).

    A stride goes with the shortcut: a 1 x 1 convolution where the number of channels changes, otherwise every
    stride-th frame and band.
    stride: in time, in frequency.
    """

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int], options: ResNetOptions) -> None:
        super().__init__()
        self.stride, self.relu_first = stride, options.relu_first
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.squeeze = SqueezeExcitation(outputs, options.squeeze) if options.squeeze else None
        self.around = None
        if inputs != outputs:
            self.around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        lengths_out = strided(lengths, self.stride[0])
        y = self.first(x)
        y = self.first_norm(relu(y)) if self.relu_first else relu(self.first_norm(y))
        y = self.second_norm(self.second(zero_beyond(y, lengths_out)))
        if self.squeeze is not None:
            y = self.squeeze(zero_beyond(y, lengths_out), lengths_out)
        y = relu(y + (x[:, :, ::self.stride[0], ::self.stride[1]] if self.around is None else self.around(x)))
        return zero_beyond(y, lengths_out), lengths_out


def strided(lengths: Tensor | None, stride: int) -> Tensor | None:
    """Return the lengths after a padded convolution with this stride: ceil(length / stride)."""
    return lengths if lengths is None or stride == 1 else (lengths + stride - 1) // stride


class ResNet(nn.Module):
    """B x T x F and lengths (or None) in; B x T' x d and lengths out."""

    def __init__(self, input_dim: int, options: ResNetOptions) -> None:
        super().__init__()
        width = options.channels[0]
        self.stem_stride = options.stem_stride[0]
        self.stem = nn.Conv2d(1, width, options.stem, tuple(options.stem_stride), padding=options.stem // 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.stages = nn.ModuleList()
        bands, self.stride = -(-input_dim // options.stem_stride[1]), self.stem_stride
        strides = zip(options.strides, options.band_strides or options.strides, strict=True)
        for channels, blocks, stride in zip(options.channels, options.blocks, strides, strict=True):
            self.stages.append(nn.ModuleList(
                BasicBlock(width if index == 0 else channels, channels, stride if index == 0 else (1, 1), options)
                for index in range(blocks)))
            width, bands, self.stride = channels, -(-bands // stride[1]), self.stride * stride[0]
        self.receptive_field = self.stride
        self.frequency = options.frequency
        self.last, self.output_dim = None, width * (bands if options.frequency == "flatten" else 1)
        if options.frequency == "convolution":
            if bands != 3:
                raise ValueError(f"{bands} of {input_dim} bands remain; frequency: convolution takes 3")
            self.last = nn.Sequential(nn.Conv2d(width, width, 3, padding=(1, 0), bias=False), nn.BatchNorm2d(width))

    def stage_outputs(self, x: Tensor, lengths: Tensor | None = None) -> list[tuple[Tensor, Tensor | None]]:
        """Return the output of the stem and of each stage, B x C x T x F, with its lengths."""
        x = zero_beyond(x[:, None], lengths)
        lengths = strided(lengths, self.stem_stride)
        x = zero_beyond(relu(self.stem_norm(self.stem(x))), lengths)
        outputs = [(x, lengths)]
        for stage in self.stages:
            for block in stage:
                x, lengths = block(x, lengths)
            outputs.append((x, lengths))
        return outputs

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x, lengths = self.stage_outputs(x, lengths)[-1]
        if self.last is not None:
            x = zero_beyond(relu(self.last(x)), lengths)
        if self.frequency == "mean":
            return mean_of_bands(x), lengths
        return x.permute(0, 2, 3, 1).flatten(2), lengths  # B x T' x (F' C)
