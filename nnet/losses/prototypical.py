"""Metric losses over batches of N speakers with M utterances each: the first is the support, the others are queries.

With q a query's embedding and P_y the support's of speaker y, cross-entropy over the speakers of the batch of
    prototypical             -||q - P_y||^2                      (Snell, Swersky, Zemel 2017)
    normalised_prototypical  q . P_y / ||P_y||                   (Kye, Kwon, Chung 2021)
    angular_prototypical     w cos(q, P_y) + b, w > 0 learned    (Chung et al. 2020)
and, with `softmax: true`, a softmax over all training speakers on every embedding, of equal weight. Several processes
share one batch: each sees the rows of all.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from nnet.losses.softmax import LossOptions, Softmax, share_right
from nnet.training.distributed import gather
from utils.config import Range


@dataclass(frozen=True, kw_only=True)
class PrototypicalOptions(LossOptions):
    """M, and whether a softmax over all training speakers stands beside the loss."""

    utterances: Annotated[int, Range(least=2)] = 2
    softmax: bool = False


class Prototypical(nn.Module):
    """Called with B x E embeddings, speaker by speaker, and B labels; returns loss and share of queries that are right
    (with softmax: of all rows that the softmax gets right)."""

    def __init__(self, input_dim: int, speakers: int, options: PrototypicalOptions) -> None:
        super().__init__()
        self.type, self.utterances = options.type, options.utterances
        if self.type == "angular_prototypical":
            self.w, self.b = nn.Parameter(torch.tensor([10.0])), nn.Parameter(torch.tensor([-5.0]))
        self.softmax = Softmax(input_dim, speakers, options) if options.softmax else None
        self.margin_share = 1.0

    def similarity(self, q: Tensor, p: Tensor) -> Tensor:
        """Return the logits of queries and prototypes over the last axis; the others broadcast."""
        if self.type == "prototypical":
            return -(q - p).square().sum(dim=-1)
        if self.type == "normalised_prototypical":
            return (q * normalize(p, dim=-1)).sum(dim=-1)
        return self.w.clamp_min(1e-6) * (normalize(q, dim=-1) * normalize(p, dim=-1)).sum(dim=-1) + self.b

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the supports (N x ...) and queries (N (M - 1) x ...) of a batch of this process's or all rows."""
        rows = rows.unflatten(0, (-1, self.utterances))
        return rows[:, 0], rows[:, 1:].flatten(0, 1)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        support, query = self.split(gather(x))
        logits = self.similarity(query[:, None], support[None])  # queries x N
        true = torch.arange(len(support), device=x.device).repeat_interleave(self.utterances - 1)
        loss = cross_entropy(logits, true)
        if self.softmax is None:
            return loss, share_right(logits, true)
        over_all, right = self.softmax(x, labels)
        return loss + over_all, right

    def of_pairs(self, support: Tensor, query: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The same of embeddings that depend on the pair: N x queries x E of each side, and the labels of the batch.

        The softmax sees both sides of the pairs of one speaker.
        """
        count = support.shape[1]
        true = torch.arange(len(support), device=support.device).repeat_interleave(self.utterances - 1)
        logits = self.similarity(query, support).T
        loss = cross_entropy(logits, true)
        if self.softmax is None:
            return loss, share_right(logits, true)
        own = true, torch.arange(count, device=true.device)
        speakers = self.split(labels)[1]
        over_all, right = self.softmax(torch.cat([support[own], query[own]]), torch.cat([speakers, speakers]))
        return loss + over_all, right
