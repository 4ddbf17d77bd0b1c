"""Multi-head factorised attentive pooling, of all layers of a self-supervised model."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nnet.padding import head_means, inside_mask, softmax_over_frames
from utils.config import Count, Whole
from utils.errors import InputError


@dataclass(frozen=True)
class FactorisedOptions:
    """Sizes as in the paper's experiments with models of 12 layers."""

    type: str
    layers: Count = 13  # L: layers side by side in a frame; a model of 12 layers has 13, with the first one's input
    heads: Count = 8    # K
    dim: Count = 128    # of keys and values
    context: Whole = 0  # r: frames on each side whose keys count as well


class FactorisedAttention(nn.Module):
    """MHFA (Peng, Plchot, Stafylakis, Mosner, Burget, Cernocky, SLT 2022); with a context as in CA-MHFA (ICASSP 2025).

    A frame holds the layers z_t1 .. z_tL side by side. Keys and values have layer weights of their own:
        k_t = S_k sum_l a_l z_tl + b_k,   v_t = S_v sum_l b_l z_tl + b_v,   a, b: softmax over l
        w_tj = softmax_t(sum_{i=-r..r} q_ji . k_{t+i} + g_j),   c_j = sum_t w_tj v_t,   c = [c_1 .. c_K]
    Keys beyond the utterance are 0. Readings: all heads share the values, and each has its own query.
    """

    def __init__(self, input_dim: int, options: FactorisedOptions) -> None:
        super().__init__()
        if input_dim % options.layers:
            raise InputError(f"pooling: layers is {options.layers}, which does not divide the frames' {input_dim} "
                             "values; wanted the layers of the front end, which has `layers: all`: one more than those "
                             "of its model")
        self.layers, self.context = options.layers, options.context
        self.output_dim = options.heads * options.dim
        self.key_layers, self.value_layers = (nn.Parameter(torch.zeros(options.layers)) for _ in range(2))
        self.key, self.value = (nn.Linear(input_dim // options.layers, options.dim) for _ in range(2))
        self.query = nn.Conv1d(options.dim, options.heads, 2 * options.context + 1)

    def weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights w: B x T x K."""
        keys = self.key(self._sum(h, self.key_layers))  # k_t: B x T x dim
        if lengths is not None:
            keys = keys * inside_mask(keys.shape[1], lengths)[..., None]
        keys = pad(keys.transpose(1, 2), (self.context, self.context))
        return softmax_over_frames(self.query(keys).transpose(1, 2), lengths)

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        values = self.value(self._sum(h, self.value_layers))  # v_t
        return head_means(self.weights(h, lengths), values).flatten(1)  # c

    def _sum(self, h: Tensor, weights: Tensor) -> Tensor:
        """Return the layers' mean under softmax(weights): B x T x D."""
        return torch.einsum("btld,l->btd", h.unflatten(2, (self.layers, -1)), weights.softmax(dim=0))
