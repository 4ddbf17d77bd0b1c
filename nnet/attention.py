"""The weights that an attention pooling gives the frames of an utterance."""

from dataclasses import dataclass

import numpy as np
import torch

from nnet.embed import Model
from utils.features.compute import compute_features
from utils.features.frontend import apply_frontend


@dataclass(frozen=True)
class Attention:
    """A system's weights over an utterance: T' frames of its encoder, K heads."""

    weights: np.ndarray  # T' x K; each column sums to 1
    frames: np.ndarray   # (T,) the encoder's frame that each frame of the utterance belongs to, -1 for none

    @property
    def heads(self) -> int:
        """K."""
        return self.weights.shape[1]

    def over_time(self) -> np.ndarray:
        """Return the weights times T' at every frame of the utterance: T x K, 0 where frames were left out."""
        relative = np.concatenate([self.weights * len(self.weights), np.zeros((1, self.heads))])
        return relative[self.frames]


def encoder_frames(length: int, voicing: np.ndarray | None, encoded: int) -> np.ndarray:
    """Return the encoder's frame that each of `length` frames belongs to, as in Attention.

    voicing: 0 where a frame was left out (None, or without any voiced frame: all were used); encoded: T'.
    """
    kept = np.arange(length) if voicing is None or not voicing.any() else np.flatnonzero(voicing)
    frames = np.full(length, -1)
    frames[kept] = np.arange(len(kept)) * encoded // len(kept)
    return frames


@torch.inference_mode()
def attention_of(model: Model, samples: np.ndarray) -> Attention | None:
    """Return the weights of a system over N samples at its rate, 16-bit scale.

    None if it has none: no network, a pooling without weights, or fewer frames than the encoder needs.
    """
    network = model.network
    if network is None or not hasattr(network.pooling, "weights"):
        return None
    device = next(network.parameters()).device
    voicing = None
    if model.takes_audio:
        x, _ = network.frontend(torch.from_numpy(samples)[None].to(device))
        length = x.shape[1]
    else:
        features = compute_features(samples, model.features)
        voicing, length = model.voicing(features), len(features)
        x = torch.from_numpy(apply_frontend(features, voicing, model.frontend))[None].to(device)
    if x.shape[1] < network.encoder.receptive_field:
        return None
    h, lengths = network.frames(x, torch.tensor([x.shape[1]], device=device))
    weights = network.pooling.weights(h, lengths)[0].float().cpu().numpy()
    return Attention(weights, encoder_frames(length, voicing, len(weights)))
