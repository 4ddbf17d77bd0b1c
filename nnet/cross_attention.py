"""Cross attentive pooling, CAP (Kye, Kwon, Chung, SLT 2021): how the frames of two utterances weigh one another.

With s_t and q_t the frames of a pair,
    S = ReLU(W s + b), Q = ReLU(W q + b),   R^S_ij = cos(S_i, Q_j),   R^Q = (R^S)^T,
    mu_s = mean over the rows of R^S (a value for each frame of q),   w^s_t = softmax_t(mu_s . R^S_t / tau),
    e_s = 1/T_s sum_t (1 + w^s_t) s_t,   and likewise e_q.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nnet.frames import inside_mask


@dataclass(frozen=True)
class CrossOptions:
    """tau as in the authors' code."""

    type: str
    temperature: float = 0.05

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, wanted more than 0")


def cross_weights(r: Tensor, inside: Tensor, temperature: float) -> Tensor:
    """Return the weights w^s of ... x T x U similarities, whose rows count where `inside` (... x T) is 1: ... x T.

    Columns beyond the other utterance's end must be 0.
    """
    mu = (r * inside[..., None]).sum(dim=-2) / inside.sum(dim=-1, keepdim=True)  # ... x U
    scores = (r @ mu[..., None])[..., 0] / temperature
    return scores.masked_fill(inside == 0, float("-inf")).softmax(dim=-1)


class CrossAttentive(nn.Module):
    """`pairs` pools all utterances of A with all of B. Called as other poolings, it pairs each with itself."""

    def __init__(self, input_dim: int, options: CrossOptions) -> None:
        super().__init__()
        self.output_dim, self.temperature = input_dim, options.temperature
        self.project = nn.Linear(input_dim, input_dim)

    def pairs(self, s: Tensor, q: Tensor, s_lengths: Tensor | None = None, q_lengths: Tensor | None = None,
              ) -> tuple[Tensor, Tensor]:
        """Return e_s and e_q of all pairs: ... x A x T x d and ... x B x U x d give twice ... x A x B x d."""
        s_inside, q_inside = ones_inside(s, s_lengths), ones_inside(q, q_lengths)
        s_unit = normalize(self.project(s).relu(), dim=-1) * s_inside[..., None]
        q_unit = normalize(self.project(q).relu(), dim=-1) * q_inside[..., None]
        r = s_unit[..., :, None, :, :] @ q_unit[..., None, :, :, :].transpose(-1, -2)  # ... x A x B x T x U
        of_s = cross_weights(r, s_inside[..., :, None, :].expand(r.shape[:-1]), self.temperature)
        of_q = cross_weights(r.transpose(-1, -2), q_inside[..., None, :, :].expand(*r.shape[:-2], r.shape[-1]),
                             self.temperature)
        # 1/T sum_t (1 + w_t) s_t, for each of A all B weights in one product
        return (weighted(1 + of_s, s, s_inside),
                weighted(1 + of_q.transpose(-2, -3), q, q_inside).transpose(-2, -3))

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        pair = h[:, None], h[:, None], *(2 * [None if lengths is None else lengths[:, None]])
        return self.pairs(*pair)[0][:, 0, 0]


def ones_inside(h: Tensor, lengths: Tensor | None) -> Tensor:
    """Return ... x T: 1 on the frames of each utterance of ... x T x d, 0 beyond its length."""
    if lengths is None:
        return h.new_ones(h.shape[:-1])
    return inside_mask(h.shape[-2], lengths.reshape(-1)).reshape(h.shape[:-1]).to(h.dtype)


def weighted(weights: Tensor, h: Tensor, inside: Tensor) -> Tensor:
    """Return 1/T sum_t weights_t h_t: ... x A x B x T and ... x A x T x d give ... x A x B x d."""
    return (weights * inside[..., None, :]) @ h / inside.sum(dim=-1)[..., None, None]


def all_with_all(module: CrossAttentive, head: nn.Module, s: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embeddings of both sides of all pairs of A x T x d and B x U x d: twice A x B x E."""
    e_s, e_q = module.pairs(s, q)
    both = head(torch.cat([e_s.flatten(0, 1), e_q.flatten(0, 1)])).unflatten(0, (2, *e_s.shape[:2]))
    return both[0], both[1]
