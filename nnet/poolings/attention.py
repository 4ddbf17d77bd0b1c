"""Attention poolings with learned scores over whole or split frames; nnet/poolings/__init__.py has the contract.

In all of them, head j has weights w_tj = softmax_t(score) and returns the mean of the frames under these weights. They
differ in the score, in the part of the frame that a head sees, and in how they combine the heads' vectors. SAEP's
pooling (Safari, India, Hernando 2020), C = softmax(W_c H^T) H, is self_attentive with `hidden: false`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnet.padding import (
    FLOORS,
    VARIANCE_FLOOR,
    Deviation,
    deviation,
    frame_weights,
    head_means,
    softmax_over_frames,
)
from utils.config import Count, Probability
from utils.errors import InputError


def split_width(input_dim: int, heads: int) -> int:
    """Return the width d/K of a head; raises InputError when K does not divide d."""
    if input_dim % heads:
        fit = ", ".join(str(k) for k in range(1, input_dim + 1) if input_dim % k == 0)
        raise InputError(f"pooling: heads is {heads}, which does not divide the encoder's width {input_dim}; "
                         f"allowed: {fit}")
    return input_dim // heads


@dataclass(frozen=True)
class HeadsOptions:
    """Self multi-head attention."""

    type: str
    heads: Count = 1      # K; must divide d
    scaled: bool = False  # divide the scores by sqrt(K), as in the authors' later code


class MultiHeadAttention(nn.Module):
    """Self multi-head attention pooling (India, Safari, Hernando, Interspeech 2019, section 2).

    h_t is split into K sub-vectors h_tj of size d/K, one per head. With one u_j in R^(d/K) per head,
        w_tj = softmax_t(h_tj . u_j),   c_j = sum_t w_tj h_tj,   c = [c_1 .. c_K].
    It has d parameters for any K. K = 1 is the paper's single-head attention.
    """

    def __init__(self, input_dim: int, options: HeadsOptions) -> None:
        super().__init__()
        size = split_width(input_dim, options.heads)
        self.output_dim = input_dim
        self.scale = options.heads**-0.5 if options.scaled else 1.0
        self.u = nn.Parameter(torch.empty(options.heads, size))
        nn.init.normal_(self.u, std=size**-0.5)

    def weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights w: B x T x K."""
        split = h.unflatten(2, self.u.shape)  # h_tj: B x T x K x d/K
        return softmax_over_frames((split * self.u).sum(dim=3) * self.scale, lengths)  # w_tj = softmax_t(h_tj . u_j)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        w = self.weights(h, lengths)
        split = h.unflatten(2, self.u.shape)  # h_tj
        # Frames beyond an utterance have weight 0 and finite values, so they add nothing.
        return (w[..., None] * split).sum(dim=1).flatten(1)  # c_j = sum_t w_tj h_tj, c = [c_1 .. c_K]: B x d


@dataclass(frozen=True)
class SelfAttentiveOptions:
    """Self-attentive pooling."""

    type: str
    hidden: bool = True  # h_t = tanh(W x_t + b); false: h_t = x_t


class SelfAttentivePooling(nn.Module):
    """SAP (Cai, Chen, Li 2018; as in Kye, Kwon, Chung 2021).

    h_t = tanh(W x_t + b), w_t = softmax_t(h_t . mu), e = sum_t w_t x_t. The argument `h` below is the paper's x.
    """

    def __init__(self, input_dim: int, options: SelfAttentiveOptions) -> None:
        super().__init__()
        self.output_dim = input_dim
        self.hidden = nn.Sequential(nn.Linear(input_dim, input_dim), nn.Tanh()) if options.hidden else nn.Identity()
        self.mu = nn.Parameter(torch.empty(input_dim))
        nn.init.normal_(self.mu, std=input_dim**-0.5)

    def weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights: B x T x 1."""
        return softmax_over_frames((self.hidden(h) @ self.mu)[..., None], lengths)  # w_t = softmax_t(h_t . mu)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        return head_means(self.weights(h, lengths), h)[:, 0]  # e = sum_t w_t x_t


class MlpScore(nn.Module):
    """s_j(x) = V_j^T f(W x + g) + b_j with W in R^(d x d), f = ReLU, for K heads that share W and g."""

    def __init__(self, input_dim: int, heads: int) -> None:
        super().__init__()
        self.w = nn.Linear(input_dim, input_dim)
        self.v = nn.Linear(input_dim, heads)

    def forward(self, h: Tensor) -> Tensor:
        return self.v(self.w(h).relu())


@dataclass(frozen=True)
class PlainOptions:
    """Poolings without options."""

    type: str


class AttentiveStatistics(nn.Module):
    """Weighted mean and standard deviation under one set of weights (Okabe, Koshinaka, Shinoda 2018).

    w_t = softmax_t(s(h_t)), m = sum_t w_t h_t, sigma = sqrt(sum_t w_t h_t^2 - m^2); [m, sigma].
    """

    def __init__(self, input_dim: int, options: PlainOptions) -> None:
        super().__init__()
        self.output_dim = 2 * input_dim
        self.score = MlpScore(input_dim, 1)

    def weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights: B x T x 1."""
        return softmax_over_frames(self.score(h), lengths)  # w_t = softmax_t(s(h_t))

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        weights = self.weights(h, lengths)
        mean = head_means(weights, h)  # m = sum_t w_t h_t: B x 1 x d
        # sigma^2 = sum_t w_t (h_t - m)^2, equal to sum_t w_t h_t^2 - m^2, without its cancellation
        variance = head_means(weights, (h - mean).square())[:, 0]
        return torch.cat([mean[:, 0], variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=1)  # [m, sigma]


@dataclass(frozen=True)
class ChannelOptions:
    """Channel- and context-dependent statistics; the defaults are the paper's."""

    type: str
    hidden: Count = 128
    context: bool = True   # false: the attention sees h_t alone, as in wespeaker's networks without GLOB in their names
    norm: bool = False     # ReLU and batch norm before tanh, as in speechbrain
    deviation: Deviation = "floored"  # of sigma and of the result (nnet/padding.py)


class ChannelAttentiveStatistics(nn.Module):
    """ECAPA-TDNN's pooling (Desplanques, Thienpondt, Demuynck 2020): one weight per frame and channel.

    With m and sigma the mean and standard deviation over the frames, a_t = V tanh(W [h_t, m, sigma] + g) + b in R^d and
    w_tc = softmax_t(a_tc). The result is each channel's weighted mean and standard deviation: [mean, deviation].
    """

    def __init__(self, input_dim: int, options: ChannelOptions) -> None:
        super().__init__()
        self.output_dim, self.context, self.deviation = 2 * input_dim, options.context, options.deviation
        seen = 3 * input_dim if options.context else input_dim
        self.w, self.v = nn.Linear(seen, options.hidden), nn.Linear(options.hidden, input_dim)
        self.norm = nn.BatchNorm1d(options.hidden) if options.norm else None

    def weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights: B x T x d."""
        hidden = self.w(self.seen(h, lengths) if self.context else h)
        if self.norm is not None:
            hidden = self.norm(hidden.relu().transpose(1, 2)).transpose(1, 2)
        return softmax_over_frames(self.v(hidden.tanh()), lengths)  # w_tc = softmax_t(a_tc)

    def seen(self, h: Tensor, lengths: Tensor | None) -> Tensor:
        """Return what the attention sees, [h_t, m, sigma]: B x T x 3d."""
        uniform = frame_weights(h, lengths)
        mean = (uniform[..., None] * h).sum(dim=1, keepdim=True)  # m: B x 1 x d
        variance = (uniform[..., None] * (h - mean).square()).sum(dim=1)
        sigma = deviation(variance, uniform, self.deviation)[:, None]
        return torch.cat([h, mean.expand_as(h), sigma.expand_as(h)], dim=2)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        weights = self.weights(h, lengths)
        mean = (weights * h).sum(dim=1, keepdim=True)
        variance = (weights * (h - mean).square()).sum(dim=1)
        return torch.cat([mean[:, 0], variance.clamp_min(FLOORS[self.deviation]).sqrt()], dim=1)


@dataclass(frozen=True)
class MultiHeadOptions:
    """Poolings with K heads."""

    type: str
    heads: Count = 4


class MultiHeadMlp(nn.Module):
    """Heads on sub-vectors h_tj of size d/K, each with its own MLP score (Wang et al. 2020).

    With s_j(x) = V_j^T ReLU(W_j x + g_j) + b_j and W_j in R^(d/K x d/K): w_tj = softmax_t(s_j(h_tj)),
    c_j = sum_t w_tj h_tj, c = [c_1 .. c_K] in R^d.
    """

    def __init__(self, input_dim: int, options: MultiHeadOptions) -> None:
        super().__init__()
        size = split_width(input_dim, options.heads)
        self.output_dim = input_dim
        self.w = nn.Parameter(torch.empty(options.heads, size, size))
        self.g = nn.Parameter(torch.zeros(options.heads, size))
        self.v = nn.Parameter(torch.empty(options.heads, size))
        self.b = nn.Parameter(torch.zeros(options.heads))
        for part in (self.w, self.v):
            nn.init.normal_(part, std=size**-0.5)

    def weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights: B x T x K."""
        split = h.unflatten(2, self.v.shape)  # h_tj: B x T x K x d/K
        hidden = (torch.einsum("btki,kji->btkj", split, self.w) + self.g).relu()  # ReLU(W_j h_tj + g_j)
        return softmax_over_frames((hidden * self.v).sum(3) + self.b, lengths)  # w_tj = softmax_t(s_j(h_tj))

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        split = h.unflatten(2, self.v.shape)
        return torch.einsum("btk,btki->bki", self.weights(h, lengths), split).flatten(1)  # c_j = sum_t w_tj h_tj


class HeadScores(nn.Module):
    """s_i(x) = V_i^T f(W_i x + g_i) + b_i, f = ReLU: K heads with a W_i in R^(d x d) of their own (Wang et al. 2020).

    It has K d (d + 2) + K parameters.
    """

    def __init__(self, input_dim: int, heads: int) -> None:
        super().__init__()
        self.w = nn.Linear(input_dim, heads * input_dim)  # W_1 .. W_K, one below the other, and g_1 .. g_K
        self.v = nn.Parameter(torch.empty(heads, input_dim))
        self.b = nn.Parameter(torch.zeros(heads))
        nn.init.uniform_(self.v, -input_dim**-0.5, input_dim**-0.5)

    def forward(self, h: Tensor) -> Tensor:
        hidden = self.w(h).relu().unflatten(2, self.v.shape)  # f(W_i x + g_i): B x T x K x d
        return (hidden * self.v).sum(dim=3) + self.b


@dataclass(frozen=True)
class GlobalOptions:
    """Global and multi-resolution multi-head attention."""

    type: str
    heads: Count = 5
    resolutions: bool = False  # one temperature per head: 1, 1, 5, 5, 10, 10, ...
    shared: bool = False       # one W and g for all heads, as in Zhu et al. 2018


class GlobalMultiHead(nn.Module):
    """Global and multi-resolution multi-head attention (Wang, Yao, Li, Fang, ICASSP 2020).

    Every head sees the whole h_t: w_ti = softmax_t(s_i(h_t) / T_i), e = [e_1 .. e_K] in R^(K d), e_i = sum_t w_ti h_t.
    Global: T_i = 1. Multi-resolution: T_i = max(1, 5 floor((i - 1) / 2)), so 1, 1, 5, 5, 10, 10 for i = 1..6.
    With `shared`, A = softmax_t(V^T f(W h_t + g) + b) for all heads together: the rival (Zhu et al. 2018) whose heads a
    penalty keeps apart (`loss: diversity`).
    """

    def __init__(self, input_dim: int, options: GlobalOptions) -> None:
        super().__init__()
        self.output_dim = input_dim * options.heads
        self.score = (MlpScore if options.shared else HeadScores)(input_dim, options.heads)
        # T_i = max(1, 5 floor((i - 1) / 2)); here heads count from 0
        temperatures = [max(1, 5 * (i // 2)) if options.resolutions else 1 for i in range(options.heads)]
        self.register_buffer("temperatures", torch.tensor(temperatures, dtype=torch.float32), persistent=False)

    def weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights: B x T x K."""
        return softmax_over_frames(self.score(h) / self.temperatures, lengths)  # w_ti = softmax_t(s_i(h_t) / T_i)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        return head_means(self.weights(h, lengths), h).flatten(1)  # e_i = sum_t w_ti h_t, e = [e_1 .. e_K]: B x K d


@dataclass(frozen=True)
class DoubleOptions:
    """Double multi-head attention."""

    type: str
    heads: Count = 4
    mask: Probability = 0.2  # probability that a head is left out in training
    scaled: bool = False     # divide the first attention's scores by sqrt(K), as in the authors' code


class DoubleMultiHead(nn.Module):
    """Double multi-head attention (India, Safari, Hernando, arXiv 2007.13199).

    Self multi-head attention gives c_1 .. c_K of size d/K. A second attention weighs the heads, with one u' in R^(d/K):
    w'_j = softmax_j(c_j . u'), c = sum_j w'_j c_j in R^(d/K). In training, each head's score is set to minus infinity
    with probability `mask`, except that an utterance whose heads would all be masked keeps them all.
    """

    def __init__(self, input_dim: int, options: DoubleOptions) -> None:
        super().__init__()
        size = split_width(input_dim, options.heads)
        self.output_dim, self.mask = size, options.mask
        self.scale = options.heads**-0.5 if options.scaled else 1.0
        self.u = nn.Parameter(torch.empty(options.heads, size))
        self.u_heads = nn.Parameter(torch.empty(size))
        for part in (self.u, self.u_heads):
            nn.init.normal_(part, std=size**-0.5)

    def weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the first attention's weights: B x T x K."""
        scores = (h.unflatten(2, self.u.shape) * self.u).sum(dim=3) * self.scale
        return softmax_over_frames(scores, lengths)  # softmax_t(h_tj . u_j)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        # c_j = sum_t w_tj h_tj: B x K x d/K
        heads = torch.einsum("btk,btki->bki", self.weights(h, lengths), h.unflatten(2, self.u.shape))
        scores = heads @ self.u_heads  # c_j . u': B x K
        if self.training and self.mask:
            masked = torch.rand_like(scores) < self.mask
            masked &= ~masked.all(dim=1, keepdim=True)
            scores = scores.masked_fill(masked, float("-inf"))
        return (scores.softmax(dim=1)[..., None] * heads).sum(dim=1)  # w'_j = softmax_j(c_j . u'), c = sum_j w'_j c_j
