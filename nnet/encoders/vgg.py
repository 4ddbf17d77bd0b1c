"""The VGG encoder of self multi-head attention pooling (India, Safari, Hernando, Interspeech 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from nnet.padding import zero_beyond
from utils.config import Count


@dataclass(frozen=True)
class VggOptions:
    """One entry per block; the paper has three."""

    type: str
    channels: tuple[Count, ...] = (128, 256, 512)
    batch_norm: bool = False  # after each convolution; the paper uses none

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("channels is empty; wanted one width or more")


class Vgg(nn.Module):
    """Blocks of two 3 x 3 convolutions (stride 1, ReLU) and a 2 x 2 max pool with stride 2.

    Input B x T x F and lengths (or None). With three blocks, the output is B x T/8 x (C F/8) and lengths / 8, rounded
    down; for 128 bands the paper writes it as 16 x T/8 x 512, flattened to h_t in R^8192. h_t lists all bands of
    channel 1, then of channel 2, ..., so that each head of a split pooling sees some channels in all bands.
    """

    def __init__(self, input_dim: int, options: VggOptions) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        channels = 1
        for width in options.channels:
            for _ in range(2):
                self.convolutions.append(nn.Conv2d(channels, width, 3, padding=1, bias=not options.batch_norm))
                self.norms.append(nn.BatchNorm2d(width) if options.batch_norm else nn.Identity())
                channels = width
        # Kept with the weights: models that listed the bands first have weights of the same shapes, and are refused.
        self.register_buffer("channels_first", torch.tensor(True))
        self.receptive_field = self.stride = 2 ** len(options.channels)
        self.output_dim = input_dim // self.receptive_field * channels
        if self.output_dim == 0:
            raise ValueError(f"{input_dim} bands are fewer than the encoder's stride {self.receptive_field}")

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x = zero_beyond(x[:, None], lengths)  # B x 1 x T x F
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = zero_beyond(norm(convolution(x)).relu(), lengths)
            if index % 2:
                x = max_pool2d(x, 2)
                lengths = None if lengths is None else lengths // 2
                x = zero_beyond(x, lengths)
        return x.transpose(1, 2).flatten(2), lengths  # B x T/8 x C F/8
