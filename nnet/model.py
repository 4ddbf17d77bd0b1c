"""A network: encoder, pooling, dense head with the embedding, loss over the training speakers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nnet.config import HeadOptions, LayerOptions, NetworkConfig
from nnet.losses import LOSSES
from nnet.mcsae import ScResNet, ScResNetOptions
from nnet.poolings import POOLINGS
from nnet.resnet import ResNet, ResNetOptions
from nnet.saep import Saep, SaepOptions
from nnet.tdnn import Tdnn, TdnnOptions
from nnet.vgg import Vgg, VggOptions
from utils.config import build
from utils.errors import InputError

ENCODERS = {
    "tdnn": (Tdnn, TdnnOptions),
    "vgg": (Vgg, VggOptions),
    "resnet": (ResNet, ResNetOptions),
    "saep": (Saep, SaepOptions),
    "sc_resnet": (ScResNet, ScResNetOptions),
}


def make_part(table: dict[str, Any], part: str, mapping: dict[str, Any], input_dim: int) -> nn.Module:
    """Make the encoder or pooling that `mapping["type"]` names; raises InputError on an unknown one."""
    if mapping.get("type") not in table:
        raise InputError(f"{part}: type is {mapping.get('type')!r}; allowed: {', '.join(table)}")
    module, options = table[mapping["type"]]
    try:
        return module(input_dim, build(options, mapping, part))
    except ValueError as error:
        raise InputError(f"{part}: {error}") from error


def operations(names: Iterable[str], dim: int) -> nn.Sequential:
    """Return the operations that follow an affine layer."""
    return nn.Sequential(*(nn.ReLU() if name == "relu" else nn.BatchNorm1d(dim) for name in names))


class Dense(nn.Module):
    """One dense layer of the head."""

    def __init__(self, input_dim: int, options: LayerOptions) -> None:
        super().__init__()
        self.affine = nn.Linear(input_dim, options.dim)
        self.then = operations(options.then, options.dim)
        self.embedding = options.embedding

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.affine(x))


class Head(nn.Module):
    """Dense layers; `embed` stops at the embedding, forward hands on to the classifier."""

    def __init__(self, input_dim: int, options: HeadOptions) -> None:
        super().__init__()
        self.before = operations(options.before, input_dim)
        self.layers = nn.ModuleList()
        for layer in options.layers:
            self.layers.append(Dense(input_dim, layer))
            input_dim = layer.dim
        self.dropout = nn.Dropout(options.dropout)
        self.output_dim = input_dim
        self.embedding_dim = next(layer.dim for layer in options.layers if layer.embedding)

    def forward(self, pooled: Tensor) -> Tensor:
        x = self.before(pooled)
        for layer in self.layers:
            x = layer(x)
        return self.dropout(x)

    def embed(self, pooled: Tensor) -> Tensor:
        """Return the embedding: B x E."""
        x = self.before(pooled)
        for layer in self.layers:
            if layer.embedding:
                return layer.affine(x) if layer.embedding == "affine" else layer(x)
            x = layer(x)
        raise AssertionError("HeadOptions has made sure of an embedding")

    def modules_to_embedding(self) -> list[nn.Module]:
        """Return the modules whose parameters an embedding depends on."""
        found: list[nn.Module] = [self.before]
        for layer in self.layers:
            found.append(layer.affine if layer.embedding == "affine" else layer)
            if layer.embedding:
                break
        return found


class Network(nn.Module):
    """Frames in (B x T x F), embeddings or loss out. Encoder under autocast, the rest in float32."""

    def __init__(self, config: NetworkConfig, input_dim: int, speakers: int) -> None:
        super().__init__()
        self.encoder = make_part(ENCODERS, "encoder", config.encoder, input_dim)
        self.pooling = make_part(POOLINGS, "pooling", config.pooling, self.encoder.output_dim)
        self.head = Head(self.pooling.output_dim, config.head)
        self.loss = LOSSES[config.loss.type](self.head.output_dim, speakers, config.loss)
        self.input_dim = input_dim
        # Two-dimensional convolutions run much faster with the channels last; other modules do not change.
        self.to(memory_format=torch.channels_last)

    def pool(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the pooled vector: B x P."""
        h, lengths = self.encoder(x, lengths)
        with torch.autocast(x.device.type, enabled=False):
            return self.pooling(h.float() if h.dtype == torch.bfloat16 else h, lengths)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean loss and logits of a training batch."""
        pooled = self.pool(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.loss(self.head(pooled), labels)

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the embeddings of a padded batch: B x E."""
        return self.head.embed(self.pool(x, lengths))

    def parameters_to_embedding(self) -> int:
        """Return the number of parameters that an embedding depends on."""
        parts = [self.encoder, self.pooling, *self.head.modules_to_embedding()]
        return sum(parameter.numel() for part in parts for parameter in part.parameters())
