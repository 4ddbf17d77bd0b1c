"""Embeddings of whole utterances, in padded batches of similar length.

The result does not depend on the batch: encoders and poolings ignore what lies beyond an utterance's end.
An utterance longer than --max-frames is cut into equal pieces of at most that many frames, whose
embeddings are averaged; one shorter than the encoder's receptive field is repeated to reach it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from nnet.config import NetworkConfig, read_network_config
from nnet.model import Network
from nnet.training.checkpoint import read_weights
from nnet.training.data import Utterances
from utils.errors import InputError, first_five
from utils.features.model_features import check_options

BLOCK = 2000  # utterances sorted by length at a time


def load_network(folder: Path) -> tuple[Network, NetworkConfig]:
    """Return the trained network of a model folder (config.yaml, model.safetensors), ready to embed.

    Raises InputError when one of the files is damaged, or they do not fit each other.
    """
    config = read_network_config(str(folder / "config.yaml"))
    if config.feature_dim is None or config.speakers is None:
        raise InputError(f"{folder}/config.yaml was not written by training: no feature_dim and speakers")
    weights = read_weights(folder / "model.safetensors")
    with torch.device("meta"):  # shapes alone: a damaged size takes no memory
        network = Network(config, config.frontend.output_dim(config.feature_dim), config.speakers)
    wanted = {name: list(value.shape) for name, value in network.state_dict().items()}
    found = {name: list(value.shape) for name, value in weights.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise InputError(f"{folder}: {name} is {found.get(name, 'missing')} in model.safetensors, "
                             f"{wanted.get(name, 'unknown')} in config.yaml; they are of two models, train again")
    network = Network(config, config.frontend.output_dim(config.feature_dim), config.speakers)
    network.load_state_dict(weights)
    return network.eval(), config


def pieces(frames: np.ndarray, shortest: int, longest: int) -> list[np.ndarray]:
    """Cut an utterance (T x F) into equal pieces of at most `longest` frames; repeat it up to `shortest`."""
    if len(frames) < shortest:
        frames = frames[np.arange(shortest) % len(frames)]
    return np.array_split(frames, -(-len(frames) // longest))


@torch.inference_mode()
def embed_batch(network: Network, batch: list[np.ndarray], device: torch.device) -> np.ndarray:
    """Return B x E embeddings of utterances (T_b x F each), padded to the longest."""
    lengths = torch.tensor([len(frames) for frames in batch], device=device)
    x = torch.zeros(len(batch), int(lengths.max()), batch[0].shape[1])
    for row, frames in enumerate(batch):
        x[row, :len(frames)] = torch.from_numpy(frames)
    return network.embed(x.to(device), lengths).float().cpu().numpy()


def embed_utterances(network: Network, data: Utterances, chosen: range, device: torch.device, batch_frames: int,
                     max_frames: int = 12000) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of the utterance, embedding) for the utterances in `chosen`, in their order."""
    shortest = network.encoder.receptive_field
    repeated = []
    for start in range(chosen.start, chosen.stop, BLOCK):
        block = range(start, min(start + BLOCK, chosen.stop))
        parts: list[tuple[int, np.ndarray]] = []
        for index in block:
            frames = data.whole(index)
            if len(frames) < shortest:
                repeated.append(data.rows.ids[index])
            parts += [(index, piece) for piece in pieces(frames, shortest, max_frames)]
        parts.sort(key=lambda part: len(part[1]))
        sums = np.zeros((len(block), network.head.embedding_dim), np.float64)
        counts = np.zeros(len(block), np.int64)
        while parts:  # the longest first, so that a batch that does not fit memory shows at once
            size = max(1, batch_frames // len(parts[-1][1]))
            batch, parts = parts[-size:], parts[:-size]
            vectors = embed_batch(network, [frames for _, frames in batch], device)
            for (index, _), vector in zip(batch, vectors, strict=True):
                sums[index - start] += vector
                counts[index - start] += 1
        for index in block:
            yield index, (sums[index - start] / counts[index - start]).astype(np.float32)
    if repeated:
        print(f"warning: {len(repeated)} utterances are shorter than the {shortest} frames that the encoder needs and "
              f"were repeated: {first_five(repeated)}", file=sys.stderr)


def utterances_for(config: NetworkConfig, model: Path, folder: Path, remark: bool = True) -> Utterances:
    """Return the utterances of a data directory; raises InputError when its features are not those of the network.

    remark: say so where that cannot be known.
    """
    check_options(folder, config.options, model, remark)
    data = Utterances(folder, config)
    if data.feature_dim != config.feature_dim:
        raise InputError(f"{folder} has {data.feature_dim} values a frame, the network was trained on "
                         f"{config.feature_dim} ({config.features})")
    return data
