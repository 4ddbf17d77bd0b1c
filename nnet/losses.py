"""Losses over the training speakers: softmax, and softmax of cosines with a margin. In the precision of
their weights, float32, whatever the encoder ran in.

Each is a module called with B x E embeddings (what the head hands on) and B labels; it returns the mean
loss and the B x N logits without margin, from which the accuracy is counted. `margin_share`, set by the
trainer from 0 to 1, is how much of the margin applies (margin warm-up).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize


@dataclass(frozen=True)
class LossOptions:
    """scale s and margin m are those of the papers; margin_warmup is a share of all steps."""

    type: Literal["softmax", "am_softmax", "aam_softmax"] = "softmax"
    scale: float = 30.0
    margin: float = 0.2
    margin_warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.margin < math.pi / 2 or self.scale <= 0 or not 0 <= self.margin_warmup <= 1:
            raise ValueError("wanted 0 <= margin < pi/2, scale > 0 and margin_warmup from 0 to 1")


class Softmax(nn.Module):
    """Affine layer and cross-entropy."""

    def __init__(self, input_dim: int, speakers: int, options: LossOptions) -> None:
        super().__init__()
        self.affine = nn.Linear(input_dim, speakers)
        self.margin_share = 1.0

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.affine(x.to(self.affine.weight.dtype))
        return cross_entropy(logits, labels), logits.detach()


class MarginSoftmax(nn.Module):
    """Cross-entropy of s cos(theta_j), where the true speaker's logit is lowered by the margin m.

    Additive margin, AM-softmax (Wang et al. 2018):          s (cos(theta_y) - m)
    Additive angular margin, AAM-softmax (Deng et al. 2019): s cos(theta_y + m); beyond theta_y = pi - m,
    where that would rise again, s (cos(theta_y) - m sin(m)), which joins it nearly and keeps falling.
    """

    def __init__(self, input_dim: int, speakers: int, options: LossOptions) -> None:
        super().__init__()
        self.options = options
        self.weight = nn.Parameter(torch.empty(speakers, input_dim))
        nn.init.xavier_normal_(self.weight)
        self.margin_share = 1.0

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        cosines = linear(normalize(x.to(self.weight.dtype)), normalize(self.weight))
        true = cosines.gather(1, labels[:, None])
        margin = self.options.margin * self.margin_share
        if self.options.type == "am_softmax":
            lowered = true - margin
        else:
            sine = (1 - true.square()).clamp_min(1e-7).sqrt()
            lowered = torch.where(true > -math.cos(margin), true * math.cos(margin) - sine * math.sin(margin),
                                  true - margin * math.sin(margin))
        logits = self.options.scale * cosines.scatter(1, labels[:, None], lowered)
        return cross_entropy(logits, labels), cosines.detach()


LOSSES = {"softmax": Softmax, "am_softmax": MarginSoftmax, "aam_softmax": MarginSoftmax}
