"""Masks, weights and standard deviations over the frames of a padded batch."""

from typing import Literal

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-6  # keeps the gradient of the standard deviation finite on constant frames
# Conventions of the standard deviation: ours, and those of toolkits whose weights are imported (nnet/toolkits.py).
Deviation = Literal["floored", "wespeaker", "speechbrain"]
FLOORS = {"floored": VARIANCE_FLOOR, "wespeaker": 1e-7, "speechbrain": 1e-12}  # of the variance


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


def weighted_mean(weights: Tensor, h: Tensor) -> Tensor:
    """Return sum_t weights_t h_t: B x T and B x T x d give B x d."""
    return torch.bmm(weights[:, None], h)[:, 0]


def deviation(variance: Tensor, weights: Tensor, convention: Deviation) -> Tensor:
    """Return the standard deviation over the frames, of the variance v that is divided by their number T: B x d.

    weights: those of `frame_weights`, B x T.
        floored, speechbrain   sqrt(max(v, floor))
        wespeaker              sqrt(T / (T - 1) v + floor), for T > 1
    """
    if convention == "wespeaker":
        frames = (weights > 0).sum(dim=1, keepdim=True)
        return (variance * frames / (frames - 1).clamp_min(1) + FLOORS[convention]).sqrt()
    return variance.clamp_min(FLOORS[convention]).sqrt()


def head_means(weights: Tensor, h: Tensor) -> Tensor:
    """Return sum_t w_tj h_t for every head: B x T x K and B x T x d give B x K x d."""
    return weights.transpose(1, 2) @ h


def zero_beyond(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return x (B x C x T x F) with zeros beyond each length, as a convolution's own padding."""
    if lengths is None:
        return x
    return x * inside_mask(x.shape[2], lengths)[:, None, :, None]
