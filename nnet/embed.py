"""Audio or features in, embeddings out: `load` takes any trained system, network or i-vector, and any bundle.

    from nnet.embed import load
    model = load("egs/voxceleb/exp/vgg_mha")
    model.embed("a.wav")                    # E float32
    model.embed(["a.wav", "b.flac"])        # 2 x E
    model.embed(samples, rate=8000)         # an array of floats, 1 at full scale
    model.embed_each(paths)                 # an iterator, for more files than memory holds

Networks embed whole utterances in padded batches of similar length. The result does not depend on the batch: encoders
and poolings ignore what lies beyond an utterance's end. An utterance longer than MAX_FRAMES is cut into equal pieces of
at most that many frames, whose embeddings are averaged; one shorter than the encoder's receptive field is repeated to
reach it.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.overrides import TorchFunctionMode

from nnet.bundle import check_embedding, check_files, is_bundle
from nnet.config import NetworkConfig, read_network_config
from nnet.device import moved, one_at_a_time
from nnet.model import Network
from nnet.training.checkpoint import read_weights
from nnet.utterances import Utterances, open_utterances
from utils.ahead import Item, in_order
from utils.audio import SOUNDLESS, read_audio, read_samples
from utils.device import find_device
from utils.errors import InputError, first_five
from utils.features.compute import compute_features
from utils.features.frontend import apply_frontend
from utils.features.model_features import Options, check_options, kept_options
from utils.features.options import as_written_out
from utils.features.vad import energy_vad, vad_options
from utils.kaldi.objects import read_vector

BLOCK = 2000  # utterances sorted by length at a time
LOADED = 256  # utterances of a list, or of audio, in memory at a time
BLOCK_FILES, BLOCK_VALUES = 32, 1 << 23  # files, or values of features or audio, that a thread of `embed_each` takes
MAX_FRAMES = 12000
CPU_BATCH_FRAMES = 2000  # on CPUs, larger batches are not faster; small sets need more padding in them
Embedder = Callable[[Sequence[np.ndarray]], np.ndarray]  # utterances, T x F' or N samples each -> their number x E
Warn = Callable[[str, str], None]  # called with the name of what is embedded, and a remark


def print_warning(name: str, remark: str) -> None:
    """Print a remark on what is embedded."""
    print(f"warning: {name}: {remark}", file=sys.stderr)


class Model:
    """A trained system. rate: sampling rate of its training data, Hz (None: unknown); dim: E.

    Threads may share it: embedding changes nothing in it.
    frontend: its options; frames_dim: F'; shortest: the frames or samples that the encoder needs; takes_audio: whether
    `embedder` takes samples instead of frames after the front end; network: None for i-vectors.
    """

    def __init__(self, folder: Path, options: Options, frontend: Any, frames_dim: int, dim: int, embedder: Embedder,
                 shortest: int = 1, takes_audio: bool = False, network: Network | None = None) -> None:
        self.folder, self.frontend, self.frames_dim, self.dim = folder, frontend, frames_dim, dim
        self.embedder, self.shortest, self.takes_audio, self.network = embedder, shortest, takes_audio, network
        self.kept_features = options.features  # by Kaldi's names; None: unknown
        self.features = None if options.features is None else as_written_out(options.features, f"{folder}: features")
        self.rate = self.features.rate if self.features else None
        if self.features and not takes_audio and (found := frontend.output_dim(self.features.dim)) != frames_dim:
            raise InputError(f"{folder}: its features have {self.features.dim} values per frame, {found} after the "
                             f"front end, the model takes {frames_dim}; train it again")
        self.vad = vad_options(options.vad, f"{folder}: voice activity") if options.vad else None

    @property
    def mean(self) -> np.ndarray:
        """The mean of the training embeddings (E), which scoring subtracts, from the back-end's folder.

        Raises InputError if no chain of the back-end has one, or it was trained on other embeddings.
        """
        # The means of chains that are trained on copies, too, are of other embeddings.
        found = [path for path in sorted(self.folder.glob("backend/*/mean.vec"))
                 if not (path.parent / "chain").read_text(encoding="utf-8").startswith("copies")]
        if not found:
            raise InputError(f"{self.folder}/backend has no chain with `center`; run steps/train_backend.sh on the "
                             "training embeddings")
        mean = read_vector(found[0], np.float32)
        if mean.shape != (self.dim,):
            raise InputError(f"{found[0]} has {len(mean)} values, an embedding of {self.folder} {self.dim}; train the "
                             "back-end again")
        return mean

    def embed(self, audio: Any, rate: float | None = None) -> np.ndarray:
        """Return the embedding (E, float32) of a file or an array, or the embeddings (N x E) of a list of them.

        An array holds one channel, floats (1 at full scale) or int16, at `rate` Hz; files state their rate. Audio is
        resampled to the model's rate. Prints a warning for silence, for a lower rate than the model's, and for audio
        that is too short for the encoder. Raises InputError, one line with the file or the place in the list, if audio
        is missing, in no known format, empty, shorter than a frame, or holds NaN.
        """
        self.require_features()
        return self._each(audio, lambda one, name: self._read(one, rate, name))

    def embed_each(self, files: Iterable[str | os.PathLike], threads: int = 0,
                   failed: Callable[[str, InputError], None] | None = None,
                   warn: Warn = print_warning) -> Iterator[np.ndarray | None]:
        """Yield the embedding (E, float32) of each file, in order.

        threads: that read and embed, each with a block of files; 0: as many as PyTorch uses. failed: called with a file
        that cannot be embedded, and the reason; its embedding is None. Without it, the first such file raises its
        InputError. Both functions are called from the threads.
        """
        self.require_features()

        def read(path: str | os.PathLike) -> np.ndarray | None:
            try:
                return self._read(path, None, os.fspath(path), warn)
            except InputError as error:
                if failed is None:
                    raise
                failed(os.fspath(path), error)
                return None

        def of_block(paths: list[str | os.PathLike]) -> list[np.ndarray | None]:
            vectors: list[np.ndarray | None] = []
            for utterances in _blocks(map(read, paths)):
                found = iter(self.embedder([utterance for utterance in utterances if utterance is not None]))
                vectors += [None if utterance is None else next(found) for utterance in utterances]
            return vectors

        # Threads with a core each need not wait for each other, as those that share a product do.
        for vectors in in_order(of_block, batched(files, BLOCK_FILES), threads or torch.get_num_threads(),
                                start=partial(torch.set_num_threads, 1)):
            yield from vectors

    def require_features(self) -> None:
        """Raise InputError if the model's feature options are not known, so that it takes no recordings."""
        if self.features is None:
            raise InputError(f"{self.folder} does not state its feature options, so features cannot be computed; use "
                             "embed_features, or train on features of steps/make_feats.sh")

    def embed_features(self, frames: Any) -> np.ndarray:
        """Return the embedding (E, float32) of stored features (T x F), or the embeddings (N x E) of a list of them."""
        if self.takes_audio:
            raise InputError(f"{self.folder} takes audio, not features (frontend: type {self.frontend.type}); use "
                             "embed")
        return self._each(frames, lambda one, name: self._frames(np.asarray(one), name))

    def _each(self, items: Any, read: Callable[[Any, str], np.ndarray]) -> np.ndarray:
        if not isinstance(items, list | tuple):
            return self._each([items], read)[0]
        found = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(items), LOADED):
            names = [os.fspath(item) if isinstance(item, str | os.PathLike) else f"input {place}"
                     for place, item in enumerate(items[start:start + LOADED], start + 1)]
            found.append(self.embedder([read(item, name) for item, name in zip(
                items[start:start + LOADED], names, strict=True)]))
        return np.concatenate(found)

    def _read(self, audio: Any, rate: float | None, name: str, warn: Warn = print_warning) -> np.ndarray:
        """Return what the embedder takes, of a file or an array."""
        samples = self._samples(audio, rate, name, warn)
        if self.takes_audio:
            return self._long_enough(samples, name, warn)
        return self._frames(self._computed(samples, name), name, warn)

    def _samples(self, audio: Any, rate: float | None, name: str, warn: Warn) -> np.ndarray:
        """Return the samples of a file or an array, N at the model's rate, 16-bit scale."""
        is_file = isinstance(audio, str | os.PathLike)
        if is_file == (rate is not None):
            raise InputError(f"{name}: " + (f"rate is {rate}, but files state their own; leave it out" if is_file else
                                            "an array without its sampling rate; give rate=, in Hz"))
        audio = read_audio(audio, self.rate) if is_file else read_samples(audio, rate, self.rate, name)
        if soundless := [note for note in audio.notes if note in SOUNDLESS]:
            warn(name, f"{soundless[0]}; its embedding is meaningless")
        if audio.rate < self.rate:
            warn(name, f"{audio.rate} Hz, the model was trained at {self.rate} Hz: it misses what lies above "
                       f"{audio.rate / 2:g} Hz")
        if len(audio.samples) < self.features.length:  # without snip-edges, mirrored ends would still give a frame
            raise InputError(f"{name}: {len(audio.samples)} samples at {self.rate} Hz are too short for one frame")
        return audio.samples

    def _computed(self, samples: np.ndarray, name: str) -> np.ndarray:
        """Return the features of samples: T x F."""
        try:
            return compute_features(samples, self.features)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    def _frames(self, features: np.ndarray, name: str, warn: Warn = print_warning) -> np.ndarray:
        """Return the frames that the model sees: T' x F'."""
        if features.ndim != 2 or not len(features) or self.frontend.output_dim(features.shape[1]) != self.frames_dim:
            raise InputError(f"{name}: features of shape {list(features.shape)}; wanted T x "
                             f"{self.frames_dim // self.frontend.output_dim(1)}, as {self.folder} was trained on")
        if not np.isfinite(features).all():
            raise InputError(f"{name}: NaN or infinite features; compute them again")
        voicing = self.voicing(features)
        if voicing is not None and not voicing.any():
            warn(name, "no voiced frame; all frames are used")
        return self._long_enough(apply_frontend(features, voicing, self.frontend), name, warn)

    def voicing(self, features: np.ndarray) -> np.ndarray | None:
        """Return which of T frames (T x F) are voiced, 1 or 0; None if the system uses all."""
        if not self.frontend.vad:
            return None
        if self.vad is None:
            raise InputError(f"{self.folder} uses voice activity but does not state its options; run "
                             "steps/compute_vad.sh and train it again")
        return energy_vad(features, self.vad)

    def _long_enough(self, found: np.ndarray, name: str, warn: Warn) -> np.ndarray:
        """Return the frames or samples; warns if the encoder needs more."""
        if len(found) < self.shortest:
            warn(name, f"{len(found)} {'samples' if self.takes_audio else 'frames'}, fewer than the {self.shortest} "
                       "that the encoder needs: they are repeated")
        return found


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield items in lists of `size`; the last may be shorter."""
    rest = iter(items)
    while block := list(islice(rest, size)):
        yield block


def _blocks(utterances: Iterable[np.ndarray | None]) -> Iterator[list[np.ndarray | None]]:
    """Yield utterances in lists that fit into memory."""
    block, values = [], 0
    for utterance in utterances:
        block.append(utterance)
        values += 0 if utterance is None else utterance.size
        if values >= BLOCK_VALUES:
            yield block
            block, values = [], 0
    if block:
        yield block


def load(folder: str | os.PathLike, device: str = "cpu") -> Model:
    """Return the trained system of a model folder or bundle, network or i-vector; device: cpu, cuda or cuda:N.

    Raises InputError if the folder has no system, a file is damaged, or the files do not match; and for a bundle if a
    file has changed, the system no longer gives the embedding of the bundle's self-check, or its features cannot be
    computed (utils/import_checkpoint).
    """
    folder, where = Path(folder), find_device(device)
    if not is_bundle(folder):
        return _load(folder, where)
    check_files(folder)
    model = _load(folder, where)
    if model.features is None:
        raise InputError(f"{folder}: its network takes features that cannot be computed here, so it embeds no audio; "
                         "only a training can start from it (--init)")
    check_embedding(model)
    return model


def _load(folder: Path, where: torch.device) -> Model:
    if (folder / "final.ie").is_file():
        from steps.ivector.model import IvectorModel  # here, because nnet does not need steps otherwise

        ivectors = IvectorModel(folder, where)
        frontend = ivectors.config.frontend
        return Model(folder, kept_options(folder, frontend.vad), frontend, ivectors.frames_dim, ivectors.dim,
                     one_at_a_time(ivectors, where))
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder}: no trained system: neither model.safetensors nor final.ie; name the folder of one "
                         "under exp, or a bundle")
    network, config = load_network(folder)
    network.to(where)

    batch_frames = config.train.valid_batch_frames
    if where.type == "cpu":
        batch_frames = min(batch_frames, CPU_BATCH_FRAMES)

    def embedder(utterances: Sequence[np.ndarray]) -> np.ndarray:
        return embed_block(network, utterances, where, batch_frames, MAX_FRAMES)

    sees, frontend = network.encoder.receptive_field, network.frontend
    return Model(folder, config.options, config.frontend, frontend.output_dim, network.head.embedding_dim,
                 one_at_a_time(embedder, where),
                 sees if frontend.stored else frontend.samples_of(sees), not frontend.stored, network)


class NoRandomNumbers(TorchFunctionMode):
    """Leaves new parameters without values: those of a file follow.

    On the device "meta", drawing them would also import PyTorch's compiler, which takes two seconds.
    """

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(function, "__name__", "") in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def load_network(folder: Path) -> tuple[Network, NetworkConfig]:
    """Return the trained network of a model folder (config.yaml, model.safetensors), ready to embed.

    Raises InputError if a file is damaged or the files do not match.
    """
    config = read_network_config(str(folder / "config.yaml"))
    if config.feature_dim is None or config.speakers is None:
        raise InputError(f"{folder}/config.yaml was not written by training: no feature_dim and speakers")
    weights = read_weights(folder / "model.safetensors")
    try:
        with torch.device("meta"), NoRandomNumbers():  # only shapes: a damaged size allocates no memory
            network = Network(config, config.feature_dim, config.speakers)
    except InputError as error:
        raise InputError(f"{folder}/config.yaml: {error}") from error
    wanted = {name: list(value.shape) for name, value in network.state_dict().items()}
    found = {name: list(value.shape) for name, value in weights.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise InputError(f"{folder}: {name} is {found.get(name, 'missing')} in model.safetensors, "
                             f"{wanted.get(name, 'unknown')} in config.yaml; they are from two models; train again")
    with NoRandomNumbers():
        network = Network(config, config.feature_dim, config.speakers)
    network.load_state_dict(weights)
    return network.eval(), config


def pieces(utterance: np.ndarray, shortest: int, longest: int) -> list[np.ndarray]:
    """Cut an utterance (frames or samples) into equal pieces of at most `longest`, or a little more where they would be
    shorter than `shortest`; repeat a shorter utterance up to that."""
    if len(utterance) < shortest:
        utterance = utterance[np.arange(shortest) % len(utterance)]
    return np.array_split(utterance, min(-(-len(utterance) // longest), len(utterance) // shortest))


@torch.inference_mode()
def embed_batch(network: Network, batch: list[np.ndarray], device: torch.device) -> np.ndarray:
    """Return B x E embeddings of utterances, padded to the longest: frames after the front end, or samples."""
    lengths = torch.tensor([len(utterance) for utterance in batch])
    x = pad_sequence([torch.from_numpy(utterance) for utterance in batch], batch_first=True)
    embed = network.embed if x.dim() == 2 else network.embed_features
    return embed(moved(x, device), moved(lengths, device)).float().cpu().numpy()


def embed_block(network: Network, utterances: Sequence[np.ndarray], device: torch.device, batch_frames: int,
                max_frames: int) -> np.ndarray:
    """Return the embeddings (number x E, float32) of utterances: frames after the front end, or samples."""
    shortest = network.encoder.receptive_field
    if utterances and utterances[0].ndim == 1:  # from frames to samples
        shortest = network.frontend.samples_of(shortest)
        batch_frames, max_frames = (count * network.frontend.shift for count in (batch_frames, max_frames))
    parts = [(place, piece) for place, utterance in enumerate(utterances)
             for piece in pieces(utterance, shortest, max_frames)]
    parts.sort(key=lambda part: len(part[1]))
    sums = np.zeros((len(utterances), network.head.embedding_dim), np.float64)
    counts = np.zeros((len(utterances), 1), np.int64)
    while parts:  # the longest first, so that a batch that does not fit memory shows at once
        size = max(1, batch_frames // len(parts[-1][1]))
        batch, parts = parts[-size:], parts[:-size]
        vectors = embed_batch(network, [piece for _, piece in batch], device)
        for (place, _), vector in zip(batch, vectors, strict=True):
            sums[place] += vector
            counts[place] += 1
    return (sums / counts).astype(np.float32)


def embed_utterances(network: Network, data: Utterances, chosen: range, device: torch.device, batch_frames: int,
                     max_frames: int = MAX_FRAMES) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of the utterance, embedding) for the utterances in `chosen`, in their order."""
    shortest, frontend = network.encoder.receptive_field, network.frontend
    shortest = shortest if frontend.stored else frontend.samples_of(shortest)
    repeated = []
    together = BLOCK if frontend.stored else LOADED  # samples take more memory than frames
    for start in range(chosen.start, chosen.stop, together):
        block = range(start, min(start + together, chosen.stop))
        utterances = [data.whole(index) for index in block]
        repeated += [data.rows.ids[index] for index, utterance in zip(block, utterances, strict=True)
                     if len(utterance) < shortest]
        yield from zip(block, embed_block(network, utterances, device, batch_frames, max_frames), strict=True)
    if repeated:
        print(f"warning: {len(repeated)} utterances are shorter than the {network.encoder.receptive_field} frames that "
              f"the encoder needs and were repeated: {first_five(repeated)}", file=sys.stderr)


def utterances_for(config: NetworkConfig, model: Path, folder: Path, remark: bool = True) -> Utterances:
    """Return the utterances of a data directory; raises InputError if its features differ from the network's.

    remark: print a message if that cannot be checked.
    """
    check_options(folder, config.options, model, remark)
    data = open_utterances(folder, config)
    if data.feature_dim != config.feature_dim:
        raise InputError(f"{folder} has {data.feature_dim} values per frame, the network was trained on "
                         f"{config.feature_dim} ({config.features})")
    return data
