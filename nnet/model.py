"""A network: front end, encoder, pooling, dense head with the embedding, loss over the training speakers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nnet.config import HeadOptions, LayerOptions, NetworkConfig
from nnet.encoders import ENCODERS
from nnet.encoders.side_by_side import EncodersSideBySide
from nnet.frontends import FRONTENDS
from nnet.losses import LOSSES
from nnet.poolings import POOLINGS
from nnet.poolings.cross_attention import CrossAttentive, all_with_all
from nnet.poolings.side_by_side import SideBySide
from nnet.precision import in_full_precision
from nnet.training.distributed import gather
from nnet.training.masks import mask
from utils.config import Table, choose
from utils.errors import InputError


def make_part(table: Table, part: str, mapping: dict[str, Any], input_dim: int | tuple[int, ...]) -> nn.Module:
    """Make the encoder or pooling that `mapping["type"]` names; raises InputError if the name is unknown."""
    module, options = choose(table, mapping, part)
    try:
        return module(input_dim, options)
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
    """Dense layers. `embed` stops at the embedding; `forward` continues to the input of the classifier."""

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


class Heads(nn.Module):
    """A head for each part of the pooled vector; their embeddings, and their outputs, one after the other."""

    def __init__(self, parts: tuple[int, ...], options: HeadOptions) -> None:
        super().__init__()
        self.parts = parts
        self.heads = nn.ModuleList(Head(dim, options) for dim in parts)
        self.output_dim = sum(head.output_dim for head in self.heads)
        self.embedding_dim = sum(head.embedding_dim for head in self.heads)

    def forward(self, pooled: Tensor) -> Tensor:
        return torch.cat([head(x) for head, x in zip(self.heads, pooled.split(self.parts, dim=1), strict=True)], dim=1)

    def embed(self, pooled: Tensor) -> Tensor:
        """Return the embedding: B x E, an equal share of it from each head."""
        pairs = zip(self.heads, pooled.split(self.parts, dim=1), strict=True)
        return torch.cat([head.embed(x) for head, x in pairs], dim=1)

    def modules_to_embedding(self) -> list[nn.Module]:
        """Return the modules whose parameters an embedding depends on."""
        return [module for head in self.heads for module in head.modules_to_embedding()]


class Losses(nn.Module):
    """A loss, with its own classifier, for each head: the mean of losses and accuracies."""

    def __init__(self, losses: Iterable[nn.Module]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)

    @property
    def margin_share(self) -> float:
        """The share of the margin that applies."""
        return self.losses[0].margin_share

    @margin_share.setter
    def margin_share(self, share: float) -> None:
        for loss in self.losses:
            loss.margin_share = share

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        found = [loss(part, labels) for loss, part in zip(self.losses, x.chunk(len(self.losses), dim=1), strict=True)]
        loss, accuracy = map(torch.stack, zip(*found, strict=True))
        return loss.mean(), accuracy.mean()


def diversity_penalty(weights: Tensor) -> Tensor:
    """Return ||A^T A - I||_F^2 of attention weights A (B x T x K), the mean over the batch (Lin et al. 2017)."""
    products = weights.transpose(1, 2) @ weights
    return (products - torch.eye(weights.shape[2], device=weights.device)).square().sum(dim=(1, 2)).mean()


class Network(nn.Module):
    """Samples or features in, embeddings or loss out. The encoder may run under autocast; the rest is float32.

    feature_dim: F, values per frame of the stored features.
    """

    def __init__(self, config: NetworkConfig, feature_dim: int, speakers: int) -> None:
        super().__init__()
        frontend, _ = FRONTENDS[config.frontend.type]
        self.frontend = frontend(config.frontend, config.options, feature_dim)
        rate = config.feature_options and config.feature_options["sample-frequency"]
        if rate and self.frontend.rate != rate:
            raise InputError(f"frontend: type {config.frontend.type} takes {self.frontend.rate} Hz, the features "
                             f"({config.features}) have {rate:g} Hz; wanted the same")
        self.encoder = make_part(ENCODERS, "encoder", config.encoder, self.frontend.output_dim)
        apart = bool(config.pooling.get("of_encoders"))
        if apart and not isinstance(self.encoder, EncodersSideBySide):
            raise InputError(f"pooling: of_encoders is true, but encoder: type is {config.encoder['type']}; wanted "
                             "side_by_side")
        self.pooling = make_part(POOLINGS, "pooling", config.pooling,
                                 self.encoder.dims if apart else self.encoder.output_dim)
        kind, _ = LOSSES[config.loss.type]
        if isinstance(self.pooling, SideBySide):
            self.head = Heads(self.pooling.parts, config.head)
            self.loss = Losses(kind(head.output_dim, speakers, config.loss) for head in self.head.heads)
            self.heads = len(self.head.heads)
        else:
            self.head = Head(self.pooling.output_dim, config.head)
            self.loss = kind(self.head.output_dim, speakers, config.loss)
            self.heads = 1
        self.diversity = config.loss.diversity
        self.distil = config.distil.weight if config.distil else 0.0
        if self.pairwise and not hasattr(kind, "of_pairs"):
            of_pairs = [name for name, (module, _) in LOSSES.items() if hasattr(module, "of_pairs")]
            raise InputError(f"pooling: type is {config.pooling['type']}, which pools pairs, but loss: type is "
                             f"{config.loss.type}; allowed: {', '.join(of_pairs)}")
        if self.pairwise and self.distil:
            raise InputError(f"distil: pooling: type is {config.pooling['type']}, which pools pairs of "
                             "utterances, so one utterance alone has no embedding; leave distil out")
        if self.diversity and not hasattr(self.pooling, "weights"):
            with_heads = [name for name, (module, _) in POOLINGS.items() if hasattr(module, "weights")]
            raise InputError(f"loss: diversity is {self.diversity}, but pooling: type is {config.pooling['type']}, "
                             f"which has no attention weights; allowed: {', '.join(with_heads)}")
        # Two-dimensional convolutions run much faster with the channels last; other modules are unaffected.
        self.to(memory_format=torch.channels_last)

    @property
    def pairwise(self) -> bool:
        """Whether an embedding depends on a pair of utterances."""
        return isinstance(self.pooling, CrossAttentive)

    def frames(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the encoder's frames (B x T' x d; bf16 is cast to float32) and lengths."""
        h, lengths = self.encoder(x, lengths)
        return h.float() if h.dtype == torch.bfloat16 else h, lengths

    def pool(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the pooled vector: B x P."""
        h, lengths = self.frames(x, lengths)
        with in_full_precision(x):
            return self.pooling(h, lengths)

    def chunk_frames(self, x: Tensor, spans: Tensor | None = None) -> Tensor:
        """Return the encoder's frames, B x T' x d, of a training batch: see `forward`."""
        x = self.frontend.chunks(x) if x.dim() == 2 else x
        return self.frames(x if spans is None else mask(x, spans))[0]

    def similarities(self, x: Tensor) -> Tensor:
        """Return the cosines between the chunks of a training batch, S x B x B, for each of S heads."""
        h = self.chunk_frames(x)
        with in_full_precision(h):
            return self.cosines(self.head(self.pooling(h)))

    def cosines(self, e: Tensor) -> Tensor:
        """Return the cosines, S x B x B, between the outputs e of the heads for a batch, of all processes."""
        parts = normalize(torch.stack(gather(e).chunk(self.heads, dim=1)), dim=2)
        return parts @ parts.transpose(1, 2)

    def forward(self, x: Tensor, labels: Tensor, spans: Tensor | None = None,
                targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean loss and accuracy of a training batch.

        x: chunks of samples (B x N), or of frames after the front end (B x T x F'); spans: their masks (B x 2 x 2);
        targets: the cosines that they should have (B x B), from nnet/training/distillation.py.
        """
        h = self.chunk_frames(x, spans)
        with in_full_precision(h):
            if self.pairwise:
                pairs = all_with_all(self.pooling, self.head, *self.loss.split(gather(h)))
                return self.loss.of_pairs(*pairs, gather(labels))
            e = self.head(self.pooling(h))
            loss, accuracy = self.loss(e, labels)
            if self.diversity:
                loss = loss + self.diversity * diversity_penalty(self.pooling.weights(h))
            if targets is not None:
                away = (self.cosines(e) - targets).square().sum(dim=(1, 2)).mean() / len(targets)
                loss = loss + self.distil * away
        return loss, accuracy

    def embed(self, wav: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the embeddings (B x E) of a padded batch of utterances: B x N samples, 16-bit scale.

        lengths: the number of samples of each; None: all N.
        """
        return self.embed_features(*self.frontend(wav, lengths))

    def embed_features(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the embeddings (B x E) of a padded batch of frames after the front end: B x T x F'.

        lengths: the number of frames of each; None: all T. utils/features/frontend.py makes them from stored features.
        """
        return self.head.embed(self.pool(frames, lengths))

    def parameters_to_embedding(self) -> int:
        """Return the number of parameters that an embedding depends on."""
        parts = [self.frontend, self.encoder, self.pooling, *self.head.modules_to_embedding()]
        return sum(parameter.numel() for part in parts for parameter in part.parameters())


def make_network(config: NetworkConfig, feature_dim: int, speakers: int) -> Network:
    """Return a network to be trained; raises InputError if it does not fit into this machine's memory."""
    try:
        return Network(config, feature_dim, speakers)
    except RuntimeError as error:  # from PyTorch
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the network cannot be made: {reason}; check the sizes in encoder, pooling, head") from error
