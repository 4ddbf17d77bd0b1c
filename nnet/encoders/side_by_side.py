"""Several encoders beside each other, of the same frames. The frames of each are thinned to the rate of the slowest, so
that one pooling can take all of them, or a pooling per encoder (`pooling: side_by_side` with `of_encoders`) its own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from utils.config import choose


@dataclass(frozen=True)
class EncodersOptions:
    """Encoders with their options, as in `encoder` of a system."""

    type: str
    encoders: tuple[dict[str, Any], ...]

    def __post_init__(self) -> None:
        if len(self.encoders) < 2:
            raise ValueError(f"{len(self.encoders)} encoders; wanted two or more")


class EncodersSideBySide(nn.Module):
    """B x T x F and lengths (or None) in; B x T' x (d_1 + .. + d_K) and lengths out.

    An encoder with stride s keeps every (S / s)-th of its frames; S is the largest stride. All are cut to the shortest.
    dims: d_1, .., d_K.
    """

    def __init__(self, input_dim: int, options: EncodersOptions) -> None:
        from nnet.encoders import ENCODERS  # imported here because the table has this class, too

        super().__init__()
        self.encoders = nn.ModuleList()
        for number, mapping in enumerate(options.encoders, start=1):
            module, its_options = choose(ENCODERS, mapping, f"encoder: encoders, number {number}")
            encoder = None if its_options.type == "side_by_side" else module(input_dim, its_options)
            if encoder is None or encoder.stride is None:
                raise ValueError(f"encoders, number {number}, has type {its_options.type}, which cannot stand beside "
                                 "others")
            self.encoders.append(encoder)
        self.dims = tuple(encoder.output_dim for encoder in self.encoders)
        self.output_dim = sum(self.dims)
        self.receptive_field = max(encoder.receptive_field for encoder in self.encoders)
        self.stride = max(encoder.stride for encoder in self.encoders)
        for number, encoder in enumerate(self.encoders, start=1):
            if self.stride % encoder.stride:
                raise ValueError(f"encoders, number {number}, returns a frame for {encoder.stride} of its input, "
                                 f"another one for {self.stride}; wanted a multiple of it")

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        outputs = []
        for encoder in self.encoders:
            h, its_lengths = encoder(x, lengths)
            step = self.stride // encoder.stride
            outputs.append((h[:, ::step], None if its_lengths is None else (its_lengths + step - 1) // step))
        frames = min(h.shape[1] for h, _ in outputs)
        h = torch.cat([h[:, :frames] for h, _ in outputs], dim=2)
        if lengths is None:
            return h, None
        return h, torch.stack([its_lengths for _, its_lengths in outputs]).amin(dim=0)
