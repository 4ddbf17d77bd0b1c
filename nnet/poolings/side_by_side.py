"""Several poolings beside each other. Each has a head and a classifier of its own (nnet/model.py), so that an embedding
consists of one part per pooling, which a back-end that begins with `parts` compares apart."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from utils.config import choose


@dataclass(frozen=True)
class SideBySideOptions:
    """Poolings with their options, as in `pooling` of a system."""

    type: str
    poolings: tuple[dict[str, Any], ...]
    of_encoders: bool = False  # each pooling takes the frames of one of the encoders side by side; otherwise of all

    def __post_init__(self) -> None:
        if len(self.poolings) < 2:
            raise ValueError(f"{len(self.poolings)} poolings; wanted two or more")


class SideBySide(nn.Module):
    """The results of K poolings of the same frames, or of K shares of each frame, one after the other.

    input_dim: d; or, with `of_encoders`, d_1, .., d_K. parts: the dimension of each result.
    """

    def __init__(self, input_dim: int | tuple[int, ...], options: SideBySideOptions) -> None:
        from nnet.poolings import POOLINGS  # imported here because the table has this class, too

        super().__init__()
        self.shares = input_dim if isinstance(input_dim, tuple) else None
        count = len(options.poolings)
        if self.shares and len(self.shares) != count:
            raise ValueError(f"of_encoders is true with {count} poolings, but encoder: type side_by_side has "
                             f"{len(self.shares)} encoders; wanted as many")
        self.poolings = nn.ModuleList()
        for number, mapping in enumerate(options.poolings, start=1):
            module, its_options = choose(POOLINGS, mapping, f"pooling: poolings, number {number}")
            if its_options.type in ("side_by_side", "cross_attentive"):
                raise ValueError(f"poolings, number {number}, has type {its_options.type}, which cannot stand beside "
                                 "others")
            self.poolings.append(module(self.shares[number - 1] if self.shares else input_dim, its_options))
        self.parts = tuple(pooling.output_dim for pooling in self.poolings)
        self.output_dim = sum(self.parts)

    def with_frames(self, h: Tensor) -> list[tuple[nn.Module, Tensor]]:
        """Return each pooling with its frames."""
        shares = h.split(self.shares, dim=2) if self.shares else [h] * len(self.poolings)
        return list(zip(self.poolings, shares, strict=True))

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        return torch.cat([pooling(share, lengths) for pooling, share in self.with_frames(h)], dim=1)

    @property
    def weights(self) -> Callable[..., Tensor]:
        """The function that returns the attention weights of the poolings that have some, head after head: B x T x K.

        Raises AttributeError if none has, as any pooling without attention.
        """
        if not any(hasattr(pooling, "weights") for pooling in self.poolings):
            raise AttributeError("no pooling has attention weights")
        return self._weights

    def _weights(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        pairs = [(pooling, share) for pooling, share in self.with_frames(h) if hasattr(pooling, "weights")]
        return torch.cat([pooling.weights(share, lengths) for pooling, share in pairs], dim=2)
