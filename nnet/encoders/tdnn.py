"""The x-vector's time-delay network (Snyder et al. 2018), as in the baseline of the SAEP paper."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.config import Count


@dataclass(frozen=True)
class TdnnOptions:
    """One entry per layer: its width, and the offsets of the frames that it sees."""

    type: str
    channels: tuple[Count, ...] = (512, 512, 512, 512, 1500)
    contexts: tuple[tuple[int, ...], ...] = ((-2, -1, 0, 1, 2), (-2, 0, 2), (-3, 0, 3), (0,), (0,))

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.contexts):
            raise ValueError(f"{len(self.channels)} channels but {len(self.contexts)} contexts")
        if not self.channels or not all(self.contexts):
            raise ValueError("wanted one layer or more, and one offset or more in each context")
        if any(list(context) != sorted(set(context)) for context in self.contexts):
            raise ValueError("the offsets of each context must increase, as in [-2, 0, 2]")


class TdnnLayer(nn.Module):
    """Affine map of the spliced frames, ReLU, batch norm. B x T x F -> B x (T - span) x C."""

    def __init__(self, input_dim: int, output_dim: int, context: tuple[int, ...]) -> None:
        super().__init__()
        self.offsets = [offset - context[0] for offset in context]
        self.span = self.offsets[-1]
        self.affine = nn.Linear(input_dim * len(context), output_dim)
        self.norm = nn.BatchNorm1d(output_dim)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[1] - self.span
        if len(self.offsets) > 1:  # one matrix product of spliced frames beats a dilated convolution on a CPU
            x = torch.cat([x[:, offset:offset + frames] for offset in self.offsets], dim=2)
        x = self.affine(x).relu()
        return self.norm(x.flatten(0, 1)).unflatten(0, (-1, frames))


class Tdnn(nn.Module):
    """TDNN layers without padding: each output frame sees real frames only.

    Input B x T x F and the utterances' lengths (or None), output B x (T - context) x C and lengths.
    """

    stride = 1

    def __init__(self, input_dim: int, options: TdnnOptions) -> None:
        super().__init__()
        dims = [input_dim, *options.channels]
        self.layers = nn.ModuleList(
            TdnnLayer(*pair, context)
            for pair, context in zip(zip(dims[:-1], dims[1:], strict=True), options.contexts, strict=True))
        self.output_dim = dims[-1]
        self.receptive_field = 1 + sum(layer.span for layer in self.layers)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        for layer in self.layers:
            x = layer(x)
        return x, None if lengths is None else lengths - (self.receptive_field - 1)
