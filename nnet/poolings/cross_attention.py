"""Cross attentive pooling, CAP (Kye, Kwon, Chung, SLT 2021): the frames of two utterances weight each other.

With s_t and q_t the frames of a pair,
    S = ReLU(W s + b), Q = ReLU(W q + b),   R^S_ij = cos(S_i, Q_j),   R^Q = (R^S)^T,
    mu_s = mean over the rows of R^S (one value per frame of q),   w^s_t = softmax_t(mu_s . R^S_t / tau),
    e_s = 1/T_s sum_t (1 + w^s_t) s_t,   and e_q in the same way.

The code never forms R. With S and Q of unit length and m the mean of S, R^S_t = (S_t . Q_j)_j and mu_s = (m . Q_j)_j:
    mu_s . R^S_t = sum_j (m . Q_j) (Q_j . S_t) = m^T G S_t,   G = sum_j Q_j Q_j^T  (d x d, once per utterance).
For T and U frames, a pair takes d (d + T) products instead of d T U.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nnet.padding import inside_mask
from utils.config import Positive


@dataclass(frozen=True)
class CrossOptions:
    """Cross attentive pooling."""

    type: str
    temperature: Positive = 0.05  # tau, as in the authors' code


class Side(NamedTuple):
    """One side of the pairs: A utterances, prepared once for all partners. Further axes may come first."""

    frames: Tensor  # s: A x T x d
    inside: Tensor  # A x T: 1 on an utterance's frames, 0 beyond
    unit: Tensor    # S scaled to unit length, 0 beyond the utterance: A x T x d
    mean: Tensor    # m: A x d
    gram: Tensor    # G: A x d x d


class CrossAttentive(nn.Module):
    """`pairs` pools all utterances of A with all of B. The usual call pairs each utterance with itself."""

    def __init__(self, input_dim: int, options: CrossOptions) -> None:
        super().__init__()
        self.output_dim, self.temperature = input_dim, options.temperature
        self.project = nn.Linear(input_dim, input_dim)

    def side(self, h: Tensor, lengths: Tensor | None = None) -> Side:
        """Prepare utterances for their pairs: ... x T x d, with ... lengths."""
        inside = h.new_ones(h.shape[:-1])
        if lengths is not None:
            inside = inside_mask(h.shape[-2], lengths.reshape(-1)).reshape(h.shape[:-1]).to(h.dtype)
        unit = normalize(self.project(h).relu(), dim=-1) * inside[..., None]  # S = ReLU(W s + b), to unit length
        mean = unit.sum(dim=-2) / inside.sum(dim=-1, keepdim=True)  # m = 1/T_s sum_t S_t
        return Side(h, inside, unit, mean, unit.transpose(-1, -2) @ unit)  # G = sum_t S_t S_t^T

    def pairs(self, s: Side, q: Side) -> tuple[Tensor, Tensor]:
        """Return e_s and e_q of all pairs: A and B utterances give twice A x B x d, after any further axes."""
        return self._pool(s, q), self._pool(q, s).transpose(-2, -3)

    def pair_weights(self, s: Side, q: Side) -> Tensor:
        """Return w^s of all pairs: A x B x T, 0 beyond an utterance."""
        count, dim = q.gram.shape[-3:-1]
        columns = q.gram.transpose(-2, -3).flatten(-2)  # d x (B d): G is symmetric
        directions = (s.mean @ columns).unflatten(-1, (count, dim))  # m^T G: A x B x d
        scores = directions @ s.unit.transpose(-1, -2) / self.temperature  # m^T G S_t / tau: A x B x T
        return scores.masked_fill(s.inside[..., None, :] == 0, float("-inf")).softmax(dim=-1)  # w^s_t

    def _pool(self, s: Side, q: Side) -> Tensor:
        """Return e_s: A x B x d."""
        weights = self.pair_weights(s, q)
        inside = s.inside[..., None, :]
        return (1 + weights) * inside @ s.frames / inside.sum(dim=-1, keepdim=True)  # e_s = 1/T_s sum_t (1 + w^s_t) s_t

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        side = self.side(h[:, None], None if lengths is None else lengths[:, None])  # groups of one utterance
        return self._pool(side, side)[:, 0, 0]


def all_with_all(module: CrossAttentive, head: nn.Module, s: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Return the head's output for both sides of all pairs of A x T x d and B x U x d: twice A x B x E."""
    e_s, e_q = module.pairs(module.side(s), module.side(q))
    both = head(torch.cat([e_s.flatten(0, 1), e_q.flatten(0, 1)])).unflatten(0, (2, *e_s.shape[:2]))
    return both[0], both[1]
