"""Losses over the training speakers: softmax, and softmax of cosines with a margin.

Always float32, even under autocast. nnet/losses/__init__.py has the contract.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from utils.config import Count, NotNegative, Positive, Range, Share, Whole
from utils.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Options common to all losses, and properties that the trainer reads."""

    type: str
    diversity: NotNegative = 0.0  # weight of the penalty ||A^T A - I||_F^2 on the attention weights A, T x K
    utterances: ClassVar[int] = 0         # utterances of each speaker in a batch; 0: no requirement

    def margin_share(self, trained: float) -> float:
        """Return the share of the margin that applies after this share of all steps."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class GrowingOptions(LossOptions):
    """Losses whose margin grows to its full size."""

    margin_start: Share = 0.0   # share of all steps before it grows; until then it is 0
    margin_warmup: Share = 0.0  # share of all steps over which it grows
    # exponential: 1 - 0.001^x of the margin after the part x of that time, as in wespeaker
    margin_growth: Literal["linear", "exponential"] = "linear"

    def margin_share(self, trained: float) -> float:
        grown = trained - self.margin_start
        if grown < 0:
            return 0.0
        if grown >= self.margin_warmup:
            return 1.0
        part = grown / self.margin_warmup
        return part if self.margin_growth == "linear" else 1 - 1e-3**part


@dataclass(frozen=True, kw_only=True)
class MarginOptions(GrowingOptions):
    """Scale s and margin m, in the papers' symbols."""

    scale: Positive = 30.0
    margin: Annotated[float, Range(least=0, below=math.pi / 2)] = 0.2
    sub_centres: Count = 1        # of each speaker; the nearest counts (Deng et al. 2020)
    top_k: Whole = 0              # other speakers, the nearest ones, whose logits rise (inter-top-K, Zhao et al. 2021)
    top_k_margin: Annotated[float, Range(least=0, below=math.pi / 2)] = 0.06  # m' by which they rise
    label_smoothing: Annotated[float, Range(least=0, below=1)] = 0.0  # share of the target spread over all speakers


@dataclass(frozen=True, kw_only=True)
class ASoftmaxOptions(GrowingOptions):
    """The margin m multiplies the angle."""

    margin: float

    def __post_init__(self) -> None:
        if self.margin not in (2, 3, 4):
            raise ValueError(f"margin is {self.margin}; wanted 2, 3 or 4, by which a_softmax multiplies the angle")


def share_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of rows whose label has the largest logit."""
    return (logits.detach().argmax(dim=1) == labels).float().mean()


class Softmax(nn.Module):
    """Affine layer and cross-entropy."""

    def __init__(self, input_dim: int, speakers: int, options: LossOptions) -> None:
        super().__init__()
        self.affine = nn.Linear(input_dim, speakers)
        self.margin_share = 1.0

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.affine(x.to(self.affine.weight.dtype))  # W x + b
        return cross_entropy(logits, labels), share_right(logits, labels)


class NormalisedSoftmax(nn.Module):
    """Cross-entropy of x . W_j / ||W_j||, without bias."""

    def __init__(self, input_dim: int, speakers: int, options: LossOptions) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(speakers, input_dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = linear(x.to(self.weight.dtype), normalize(self.weight))  # x . W_j / ||W_j||
        return cross_entropy(logits, labels), share_right(logits, labels)


class MarginSoftmax(nn.Module):
    """Cross-entropy of s cos(theta_j); the margin m lowers the logit of the true speaker y.

    Additive margin, AM-softmax (Wang et al. 2018):          s (cos(theta_y) - m)
    Additive angular margin, AAM-softmax (Deng et al. 2019): s cos(theta_y + m)
    Beyond theta_y = pi - m, cos(theta_y + m) would rise again. There, AAM-softmax uses s (cos(theta_y) - m sin(m)),
    which nearly joins it and keeps falling.

    With `sub_centres`, cos(theta_j) is the largest over the speaker's centres. With `top_k` K, the K largest cosines of
    other speakers are raised: by m' in AM-softmax, to cos(theta_j - m') in AAM-softmax. m' grows like m.
    """

    def __init__(self, input_dim: int, speakers: int, options: MarginOptions) -> None:
        super().__init__()
        if options.top_k >= speakers:
            raise InputError(f"loss: top_k is {options.top_k}, wanted fewer than the {speakers} training speakers")
        self.options = options
        centres = torch.empty(speakers * options.sub_centres, input_dim)
        nn.init.xavier_normal_(centres)
        if options.sub_centres > 1:  # a row per speaker: training that starts from this model finds those that it knows
            centres = centres.view(speakers, options.sub_centres, input_dim)
        self.weight = nn.Parameter(centres)
        self.margin_share = 1.0

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        options = self.options
        cosines = linear(normalize(x.to(self.weight.dtype)), normalize(self.weight, dim=-1).flatten(0, -2))
        if options.sub_centres > 1:
            cosines = cosines.unflatten(1, (-1, options.sub_centres)).amax(dim=2)  # cos(theta_j)
        true = cosines.gather(1, labels[:, None])  # cos(theta_y)
        margins = cosines.scatter(1, labels[:, None], self.lowered(true, options.margin * self.margin_share))
        if options.top_k:
            others = cosines.detach().scatter(1, labels[:, None], -math.inf)
            near = others.topk(options.top_k, dim=1).indices
            raised = self.raised(cosines.gather(1, near), options.top_k_margin * self.margin_share)
            margins = margins.scatter(1, near, raised)
        loss = cross_entropy(options.scale * margins, labels, label_smoothing=options.label_smoothing)
        return loss, share_right(cosines, labels)

    def lowered(self, cosines: Tensor, margin: float) -> Tensor:
        """Return the cosines of true speakers with the margin m."""
        if self.options.type == "am_softmax":
            return cosines - margin  # cos(theta_y) - m
        # cos(theta_y + m) = cos(theta_y) cos(m) - sin(theta_y) sin(m), while theta_y < pi - m
        return torch.where(cosines > -math.cos(margin),
                           cosines * math.cos(margin) - sines(cosines) * math.sin(margin),
                           cosines - margin * math.sin(margin))

    def raised(self, cosines: Tensor, margin: float) -> Tensor:
        """Return the cosines of the nearest other speakers with the margin m'."""
        if self.options.type == "am_softmax":
            return cosines + margin  # cos(theta_j) + m'
        return cosines * math.cos(margin) + sines(cosines) * math.sin(margin)  # cos(theta_j - m')


def sines(cosines: Tensor) -> Tensor:
    """Return the sines of angles between 0 and pi from their cosines; their slope stays finite at both ends."""
    return (1 - cosines.square()).clamp_min(1e-7).sqrt()


class ASoftmax(nn.Module):
    """A-softmax (Liu et al. 2017): logits ||x|| cos(theta_j), with the true speaker's cosine replaced by

        (lambda cos(theta_y) + psi(theta_y)) / (1 + lambda),
        psi(theta) = (-1)^k cos(m theta) - 2 k,   k = floor(m theta / pi).

    As in the published code, lambda falls hyperbolically to 5: lambda = 5 / margin_share.
    """

    def __init__(self, input_dim: int, speakers: int, options: ASoftmaxOptions) -> None:
        super().__init__()
        self.m = int(options.margin)
        self.weight = nn.Parameter(torch.empty(speakers, input_dim))
        nn.init.xavier_normal_(self.weight)
        self.margin_share = 1.0

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = x.to(self.weight.dtype)
        cosines = linear(normalize(x), normalize(self.weight))
        true = cosines.gather(1, labels[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        angle = true.acos()  # theta_y
        k = (self.m * angle.detach() / math.pi).floor()  # k = floor(m theta / pi)
        psi = (1 - 2 * (k % 2)) * (self.m * angle).cos() - 2 * k  # psi(theta) = (-1)^k cos(m theta) - 2 k
        share = self.margin_share / (self.margin_share + 5)  # 1 / (1 + lambda)
        lowered = (1 - share) * true + share * psi  # (lambda cos(theta_y) + psi(theta_y)) / (1 + lambda)
        logits = x.norm(dim=1, keepdim=True) * cosines.scatter(1, labels[:, None], lowered)  # ||x|| cos(theta_j)
        return cross_entropy(logits, labels), share_right(cosines, labels)
