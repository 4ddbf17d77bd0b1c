"""Validation of a network on the trials of speakers held out from training."""

from pathlib import Path

import numpy as np
import torch

from nnet.config import NetworkConfig
from nnet.embed import embed_utterances
from nnet.model import Network
from nnet.utterances import open_utterances
from utils.kaldi.trials import row_blocks
from utils.metrics import measure


class Validation:
    """EER of cosine scores on the trials of a data directory (trials/valid), whole utterances."""

    def __init__(self, data: Path, config: NetworkConfig) -> None:
        self.utterances = open_utterances(data, config)
        self.batch_frames = config.train.valid_batch_frames
        found = zip(*row_blocks(data / "trials/valid", self.utterances.rows.ids), strict=True)
        self.first, self.second, self.is_target = map(np.concatenate, found)

    def eer(self, network: Network, device: torch.device) -> float:
        """Return the equal error rate in %."""
        was_training = network.training
        network.eval()
        found = embed_utterances(network, self.utterances, range(len(self.utterances.rows)), device,
                                 self.batch_frames)
        vectors = np.stack([vector for _, vector in found])
        network.train(was_training)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = np.einsum("ne,ne->n", vectors[self.first], vectors[self.second])
        return measure(scores[self.is_target], scores[~self.is_target]).eer
