"""No encoder: the front end's frames are pooled as they are, as with self-supervised models."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class PlainOptions:
    """Nothing to choose."""

    type: str


class Plain(nn.Module):
    """Returns its input: B x T x F and the lengths."""

    receptive_field = stride = 1

    def __init__(self, input_dim: int, options: PlainOptions) -> None:
        super().__init__()
        self.output_dim = input_dim

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return x, lengths
