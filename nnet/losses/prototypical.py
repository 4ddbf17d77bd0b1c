"""Metric losses over batches of N speakers with M utterances each: the first is the support, the others are queries.

The loss is a cross-entropy over the speakers y of the batch. With q the embedding of a query and P_y that of the
support of speaker y, the logits are
    prototypical             -||q - P_y||^2                      (Snell, Swersky, Zemel 2017)
    normalised_prototypical  q . P_y / ||P_y||                   (Kye, Kwon, Chung 2021)
    angular_prototypical     w cos(q, P_y) + b, w > 0 learned    (Chung et al. 2020)
`softmax: true` adds, with equal weight, a softmax over all training speakers on every embedding x: of W x + b, or, with
`normalised_weights`, of x . W_j / ||W_j||. Several processes share one batch, and each sees all rows.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from nnet.losses.softmax import LossOptions, NormalisedSoftmax, Softmax, share_right
from nnet.training.distributed import gather
from utils.config import Range


@dataclass(frozen=True, kw_only=True)
class PrototypicalOptions(LossOptions):
    """Prototypical losses."""

    utterances: Annotated[int, Range(least=2)] = 2  # M
    softmax: bool = False  # add a softmax over all training speakers
    normalised_weights: bool = False  # of that softmax, which then has no bias

    def __post_init__(self) -> None:
        if self.normalised_weights and not self.softmax:
            raise ValueError("normalised_weights is true and softmax false; wanted softmax true, or neither")


class Prototypical(nn.Module):
    """Called with B x E embeddings, grouped by speaker, and B labels; returns the loss and the accuracy.

    The accuracy is the share of queries classified correctly; with `softmax: true`, that of the softmax over all rows.
    """

    def __init__(self, input_dim: int, speakers: int, options: PrototypicalOptions) -> None:
        super().__init__()
        self.type, self.utterances = options.type, options.utterances
        if self.type == "angular_prototypical":
            self.w, self.b = nn.Parameter(torch.tensor([10.0])), nn.Parameter(torch.tensor([-5.0]))
        self.softmax = None
        if options.softmax:
            self.softmax = (NormalisedSoftmax if options.normalised_weights else Softmax)(input_dim, speakers, options)
        self.margin_share = 1.0

    def similarity(self, q: Tensor, p: Tensor) -> Tensor:
        """Return the logits of queries q and prototypes p, whose last axis is E; the other axes broadcast."""
        if self.type == "prototypical":
            return -(q - p).square().sum(dim=-1)  # -||q - P_y||^2
        if self.type == "normalised_prototypical":
            return (q * normalize(p, dim=-1)).sum(dim=-1)  # q . P_y / ||P_y||
        # w cos(q, P_y) + b
        return self.w.clamp_min(1e-6) * (normalize(q, dim=-1) * normalize(p, dim=-1)).sum(dim=-1) + self.b

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the supports (N x ...) and queries (N (M - 1) x ...) of a batch, or of this process's part."""
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
        """Return loss and accuracy for embeddings that depend on the pair.

        support, query: N x queries x E; labels: those of the batch. The softmax sees both sides of same-speaker pairs.
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
