"""Poolings: from the frames of an encoder to one vector an utterance.

Every pooling is a module with `output_dim`, called with
    h        B x T x d   frames of the encoder
    lengths  B           frames of each utterance that count; None: all T
and returns B x output_dim. What lies beyond an utterance's length never changes its result. Equations are
those of the papers named; t runs over the frames, j over the K heads.

To add one: write the class and its options, and enter both in POOLINGS.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.errors import InputError

VARIANCE_FLOOR = 1e-6  # keeps the gradient of the standard deviation finite on constant frames


def frame_weights(h: Tensor, lengths: Tensor | None) -> Tensor:
    """Return B x T: 1 / length on the frames of an utterance, 0 beyond them."""
    if lengths is None:
        return h.new_full(h.shape[:2], 1 / h.shape[1])
    inside = inside_mask(h.shape[1], lengths)
    return inside.to(h.dtype) / lengths[:, None].to(h.dtype)


def inside_mask(frames: int, lengths: Tensor) -> Tensor:
    """Return B x frames, true where a frame belongs to the utterance."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def softmax_over_frames(scores: Tensor, lengths: Tensor | None) -> Tensor:
    """Return softmax_t of B x T x K scores, zero beyond each utterance's length."""
    if lengths is not None:
        scores = scores.masked_fill(~inside_mask(scores.shape[1], lengths)[..., None], float("-inf"))
    return scores.softmax(dim=1)


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


def weighted_mean(weights: Tensor, h: Tensor) -> Tensor:
    """Return sum_t weights_t h_t: B x T and B x T x d give B x d."""
    return torch.bmm(weights[:, None], h)[:, 0]


@dataclass(frozen=True)
class HeadsOptions:
    """Self multi-head attention."""

    type: str
    heads: int = 1        # K; must divide d
    scaled: bool = False  # divide the scores by sqrt(d/K), as the authors' later code does

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise ValueError(f"heads is {self.heads}, wanted 1 or more")


class MultiHeadAttention(nn.Module):
    """Self multi-head attention pooling (India, Safari, Hernando, Interspeech 2019, section 2).

    h_t is split into K sub-vectors h_tj of size d/K; with one u_j in R^(d/K) a head,
        w_tj = softmax_t(h_tj . u_j),   c_j = sum_t w_tj h_tj,   c = [c_1 .. c_K].
    d parameters whatever K is; K = 1 is the paper's single-head attention.
    """

    def __init__(self, input_dim: int, options: HeadsOptions) -> None:
        super().__init__()
        if input_dim % options.heads:
            fit = ", ".join(str(k) for k in range(1, input_dim + 1) if input_dim % k == 0)
            raise InputError(f"pooling: heads is {options.heads}, which does not divide the encoder's width "
                             f"{input_dim}; allowed: {fit}")
        self.output_dim = input_dim
        self.scale = (input_dim // options.heads) ** -0.5 if options.scaled else 1.0
        self.u = nn.Parameter(torch.empty(options.heads, input_dim // options.heads))
        nn.init.normal_(self.u, std=self.u.shape[1] ** -0.5)

    def weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights w: B x T x K."""
        split = h.unflatten(2, self.u.shape)  # B x T x K x d/K
        return softmax_over_frames((split * self.u).sum(dim=3) * self.scale, lengths)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        w = self.weights(h, lengths)
        split = h.unflatten(2, self.u.shape)
        # The frames beyond an utterance weigh 0; what stands there is finite, so it does not count.
        return (w[..., None] * split).sum(dim=1).flatten(1)


POOLINGS = {
    "temporal": (TemporalPooling, NoOptions),
    "statistics": (StatisticsPooling, NoOptions),
    "multi_head": (MultiHeadAttention, HeadsOptions),
}
