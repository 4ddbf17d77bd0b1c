"""Audio or features in, embeddings out: `load` takes any trained system, network or i-vector.

    from nnet.embed import load
    model = load("egs/voxceleb/exp/vgg_mha")
    model.embed("a.wav")                    # E float32
    model.embed(["a.wav", "b.flac"])        # 2 x E
    model.embed(samples, rate=8000)         # an array of floats, 1 at full scale

Networks embed whole utterances in padded batches of similar length. The result does not depend on the batch: encoders
and poolings ignore what lies beyond an utterance's end. An utterance longer than MAX_FRAMES is cut into equal pieces of
at most that many frames, whose embeddings are averaged; one shorter than the encoder's receptive field is repeated to
reach it.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnet.config import NetworkConfig, read_network_config
from nnet.device import find_device
from nnet.model import Network
from nnet.training.checkpoint import read_weights
from nnet.training.data import Utterances
from utils.audio import SOUNDLESS, read_audio, read_samples
from utils.errors import InputError, first_five
from utils.features.compute import compute_features
from utils.features.frontend import FrontendOptions, apply_frontend
from utils.features.model_features import Options, check_options, kept_options
from utils.features.options import as_written_out
from utils.features.vad import energy_vad, vad_options
from utils.kaldi.objects import read_vector

BLOCK = 2000  # utterances sorted by length at a time
LOADED = 256  # utterances of a list whose features are in memory at a time
MAX_FRAMES = 12000
Embedder = Callable[[Sequence[np.ndarray]], np.ndarray]  # utterances after the front end, T x F' each -> N x E


class Model:
    """A trained system. rate: the sampling rate of its features, Hz (None: not known); dim: E."""

    def __init__(self, folder: Path, options: Options, frontend: FrontendOptions, frames_dim: int, dim: int,
                 embedder: Embedder, shortest: int = 1) -> None:
        self.folder, self.frontend, self.frames_dim, self.dim = folder, frontend, frames_dim, dim
        self.embedder, self.shortest = embedder, shortest
        self.features = None if options.features is None else as_written_out(options.features, f"{folder}: features")
        self.rate = self.features.rate if self.features else None
        if self.features and (found := frontend.output_dim(self.features.dim)) != frames_dim:
            raise InputError(f"{folder}: its features have {self.features.dim} values a frame, {found} after the front "
                             f"end, the model takes {frames_dim}; train it again")
        self.vad = vad_options(options.vad, f"{folder}: voice activity") if options.vad else None

    @property
    def mean(self) -> np.ndarray:
        """The mean of the training embeddings (E), which scoring subtracts: backend/mean.vec of the model folder.

        Raises InputError where the back-end is not trained, or was on other embeddings.
        """
        path = self.folder / "backend/mean.vec"
        if not path.is_file():
            raise InputError(f"{path} is missing; run steps/train_backend.sh on the training embeddings")
        mean = read_vector(path, np.float32)
        if mean.shape != (self.dim,):
            raise InputError(f"{path} has {len(mean)} values, an embedding of {self.folder} {self.dim}; train the "
                             "back-end again")
        return mean

    def embed(self, audio: Any, rate: float | None = None) -> np.ndarray:
        """Return the embedding (E, float32) of a file or an array, or the embeddings (N x E) of a list of them.

        An array holds one channel, floats (1 at full scale) or int16, at `rate` Hz; files say their rate. Any rate is
        brought to the model's. Raises InputError, one line with the file or the place in the list, for what is missing,
        not audio, empty, shorter than a frame, or holds NaN.
        """
        if self.features is None:
            raise InputError(f"{self.folder} does not say the options of its features, so that none can be computed; "
                             "use embed_features, or train on features of steps/make_feats.sh")
        return self._each(audio, lambda one, name: self._computed(one, rate, name))

    def embed_features(self, frames: Any) -> np.ndarray:
        """Return the embedding (E, float32) of stored features (T x F), or the embeddings (N x E) of a list of them."""
        return self._each(frames, lambda one, name: np.asarray(one))

    def _each(self, items: Any, read: Callable[[Any, str], np.ndarray]) -> np.ndarray:
        if not isinstance(items, list | tuple):
            return self._each([items], read)[0]
        found = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(items), LOADED):
            names = [os.fspath(item) if isinstance(item, str | os.PathLike) else f"input {place}"
                     for place, item in enumerate(items[start:start + LOADED], start + 1)]
            found.append(self.embedder([self._after_frontend(read(item, name), name) for item, name in zip(
                items[start:start + LOADED], names, strict=True)]))
        return np.concatenate(found)

    def _computed(self, audio: Any, rate: float | None, name: str) -> np.ndarray:
        """Return the features of a file or an array: T x F."""
        is_file = isinstance(audio, str | os.PathLike)
        if is_file == (rate is not None):
            raise InputError(f"{name}: " + (f"rate is {rate}, but a file says its own; leave it out" if is_file else
                                            "an array without its sampling rate; give rate=, in Hz"))
        audio = read_audio(audio, self.rate) if is_file else read_samples(audio, rate, self.rate, name)
        if soundless := [note for note in audio.notes if note in SOUNDLESS]:
            print(f"warning: {name}: {soundless[0]}; its embedding tells nothing", file=sys.stderr)
        try:
            if len(audio.samples) * 1000 < self.features.kaldi.frame_opts.frame_length_ms * self.rate:
                # Without snip-edges, mirroring the ends would still give a frame.
                raise InputError(f"{len(audio.samples)} samples at {self.rate} Hz are too short for one frame")
            return compute_features(audio.samples, self.features)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    def _after_frontend(self, features: np.ndarray, name: str) -> np.ndarray:
        """Return the frames that the model sees: T' x F'."""
        if features.ndim != 2 or not len(features) or self.frontend.output_dim(features.shape[1]) != self.frames_dim:
            raise InputError(f"{name}: features of shape {list(features.shape)}; wanted T x "
                             f"{self.frames_dim // self.frontend.output_dim(1)}, as {self.folder} was trained on")
        if not np.isfinite(features).all():
            raise InputError(f"{name}: NaN or infinite features; compute them again")
        voicing = None
        if self.frontend.vad:
            if self.vad is None:
                raise InputError(f"{self.folder} uses voice activity but does not say its options; run "
                                 "steps/compute_vad.sh and train it again")
            voicing = energy_vad(features, self.vad)
            if not voicing.any():
                print(f"warning: {name}: no voiced frame; all frames are used", file=sys.stderr)
        found = apply_frontend(features, voicing, self.frontend)
        if len(found) < self.shortest:
            print(f"warning: {name}: {len(found)} frames, fewer than the {self.shortest} that the encoder needs: they "
                  "are repeated", file=sys.stderr)
        return found


def load(folder: str | os.PathLike, device: str = "cpu") -> Model:
    """Return the trained system of a model folder, network or i-vector; device: cpu, cuda or cuda:N.

    Raises InputError when there is none, or a file is damaged or fits no other.
    """
    folder, where = Path(folder), find_device(device)
    if (folder / "final.ie").is_file():
        from steps.ivector.model import IvectorModel  # here alone: nnet does not need steps otherwise

        ivectors = IvectorModel(folder, where)
        frontend = ivectors.config.frontend
        return Model(folder, kept_options(folder, frontend.vad), frontend, ivectors.frames_dim, ivectors.dim, ivectors)
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder}: no trained system: neither model.safetensors nor final.ie; name the folder of one "
                         "under exp, or train it")
    network, config = load_network(folder)
    network.to(where)

    def embedder(utterances: Sequence[np.ndarray]) -> np.ndarray:
        return embed_block(network, utterances, where, config.train.valid_batch_frames, MAX_FRAMES)

    return Model(folder, config.options, config.frontend, network.input_dim, network.head.embedding_dim, embedder,
                 network.encoder.receptive_field)


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


def embed_block(network: Network, utterances: Sequence[np.ndarray], device: torch.device, batch_frames: int,
                max_frames: int) -> np.ndarray:
    """Return the embeddings (N x E, float32) of utterances after the front end (T x F' each)."""
    shortest = network.encoder.receptive_field
    parts = [(place, piece) for place, frames in enumerate(utterances)
             for piece in pieces(frames, shortest, max_frames)]
    parts.sort(key=lambda part: len(part[1]))
    sums = np.zeros((len(utterances), network.head.embedding_dim), np.float64)
    counts = np.zeros((len(utterances), 1), np.int64)
    while parts:  # the longest first, so that a batch that does not fit memory shows at once
        size = max(1, batch_frames // len(parts[-1][1]))
        batch, parts = parts[-size:], parts[:-size]
        vectors = embed_batch(network, [frames for _, frames in batch], device)
        for (place, _), vector in zip(batch, vectors, strict=True):
            sums[place] += vector
            counts[place] += 1
    return (sums / counts).astype(np.float32)


def embed_utterances(network: Network, data: Utterances, chosen: range, device: torch.device, batch_frames: int,
                     max_frames: int = MAX_FRAMES) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of the utterance, embedding) for the utterances in `chosen`, in their order."""
    shortest = network.encoder.receptive_field
    repeated = []
    for start in range(chosen.start, chosen.stop, BLOCK):
        block = range(start, min(start + BLOCK, chosen.stop))
        utterances = [data.whole(index) for index in block]
        repeated += [data.rows.ids[index] for index, frames in zip(block, utterances, strict=True)
                     if len(frames) < shortest]
        yield from zip(block, embed_block(network, utterances, device, batch_frames, max_frames), strict=True)
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
