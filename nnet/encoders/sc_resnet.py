"""SC-ResNet with masked cross self-attention encoding, MCSAE (Seo, Rim, Oh, Kim 2020): an utterance-level encoder.

It returns one frame per utterance, which `pooling: {type: temporal}` passes on. Its options are the steps of the
paper's ablation: attention none (GAP), self, cross; masking.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nnet.encoders.resnet import ResNet, ResNetOptions, mean_of_bands
from nnet.padding import frame_weights, weighted_mean
from nnet.precision import in_full_precision
from utils.config import Count


@dataclass(frozen=True)
class ScResNetOptions:
    """The defaults are SC-ResNet-18; blocks 3, 4, 6, 3 make SC-ResNet-34."""

    type: str
    stem: Count = 7
    channels: tuple[Count, ...] = (64, 128, 256, 512)
    blocks: tuple[Count, ...] = (2, 2, 2, 2)
    strides: tuple[Count, ...] = (1, 2, 2, 2)
    attention: Literal["none", "self", "cross"] = "cross"  # none: only [p_1 .. p_5]
    masking: bool = True                                   # of the keys, in training

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("channels is empty; wanted one width or more")
        if self.masking and self.attention == "none":
            raise ValueError("masking is true and attention none; wanted attention self or cross, or masking false")


class AdaptiveMask(nn.Module):
    """A 0/1 map drawn in training. A learned vector s, clamped to [0, 1], holds each dimension's probability of a 0.

    Gradients pass straight through the draw, as if the map were its mean 1 - s.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scaling = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, p: Tensor) -> Tensor:
        if not self.training:
            return p
        mean = 1 - self.scaling.clamp(0, 1)
        drawn = (torch.rand_like(p) < mean).to(p.dtype)
        return p * (drawn + mean - mean.detach())


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(Q^T K / sqrt(d_k)) V^T of row vectors, over the last axis of Q^T K: B x d_q."""
    scores = q[:, :, None] * k[:, None, :] * k.shape[1] ** -0.5  # Q^T K / sqrt(d_k): B x d_q x d_k
    return (scores.softmax(dim=2) @ v[:, :, None])[:, :, 0]  # softmax(..) V^T: B x d_q


class AttentionBlock(nn.Module):
    """z_i = attention(p_i, mask(p_{i+1}), p_{i+1}) x attention(p_{i+1}, mask(p_i), p_i)^T, d_i x d_{i+1}.

    Without cross-attention, each attends to itself: attention(p_i, mask(p_i), p_i), and the same for p_{i+1}.
    """

    def __init__(self, first: int, second: int, options: ScResNetOptions) -> None:
        super().__init__()
        self.cross = options.attention == "cross"
        self.first_mask = AdaptiveMask(first) if options.masking else nn.Identity()
        self.second_mask = AdaptiveMask(second) if options.masking else nn.Identity()

    def forward(self, row: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return row x z_i, B x d_{i+1}, for a row vector of B x d_i. z_i has rank one and is never formed."""
        first_key, second_key = self.first_mask(first), self.second_mask(second)
        if self.cross:
            # attention(p_i, mask(p_{i+1}), p_{i+1}) and attention(p_{i+1}, mask(p_i), p_i)
            left, right = attention(first, second_key, second), attention(second, first_key, first)
        else:
            left, right = attention(first, first_key, first), attention(second, second_key, second)
        return (row * left).sum(dim=1, keepdim=True) * right  # row x z_i = (row . left) right^T


class ScResNet(nn.Module):
    """B x T x F and lengths (or None) in; B x 1 x d and lengths of one frame out.

    p_1 .. p_5 are the means over frequency and time after conv-1 .. conv-5. The result is [p_1 .. p_5] with
    `attention: none`, and otherwise [Z, p_5] with Z = p_1 z_1 z_2 z_3 z_4.
    """

    stride = None

    def __init__(self, input_dim: int, options: ScResNetOptions) -> None:
        super().__init__()
        self.resnet = ResNet(input_dim, ResNetOptions(
            type="resnet", stem=options.stem, channels=options.channels, blocks=options.blocks,
            strides=options.strides, frequency="mean"))
        widths = [options.channels[0], *options.channels]
        self.receptive_field = self.resnet.receptive_field
        self.output_dim = sum(widths) if options.attention == "none" else 2 * widths[-1]
        self.blocks = None
        if options.attention != "none":
            self.blocks = nn.ModuleList(AttentionBlock(*pair, options)
                                        for pair in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        stages = self.resnet.stage_outputs(x, lengths)
        with in_full_precision(x):
            p = [mean_of(stage, theirs) for stage, theirs in stages]  # p_1 .. p_5
            if self.blocks is None:
                y = torch.cat(p, dim=1)
            else:
                z = p[0]
                for block, first, second in zip(self.blocks, p[:-1], p[1:], strict=True):
                    z = block(z, first, second)  # Z = p_1 z_1 .. z_i
                y = torch.cat([z, p[-1]], dim=1)  # [Z, p_5]
        return y[:, None], None if lengths is None else torch.ones_like(lengths)


def mean_of(stage: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the mean over frequency and time of B x C x T x F: B x C."""
    frames = mean_of_bands(stage)
    frames = frames.float() if frames.dtype == torch.bfloat16 else frames
    return weighted_mean(frame_weights(frames, lengths), frames)
