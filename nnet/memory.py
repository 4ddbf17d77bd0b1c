"""The memory that jobs with a network need, as the launcher's `--mem`: see utils/jobs/memory.py.

The sizes of a network's layers come from a pass through it on the device `meta`, where tensors have shapes but no
values, so that even large networks take no memory and little time.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nnet.config import NetworkConfig, read_network_config
from nnet.frontends import FRONTENDS
from nnet.model import Network
from nnet.training.workers import AHEAD, workers_for
from utils.errors import InputError, run_main
from utils.jobs.memory import ASSUMED, MB, NAME, TORCH, Data, count_of, data_of, embeddings_of, main, on_gpu
from utils.kaldi.ark import iterate

PROBE_FRAMES = 400  # of the pass on meta; sizes grow in proportion to the frames
TOGETHER = 2000     # utterances that are sorted by length at a time (nnet/embed.py)
WAITING = 6         # batches that wait for the device, and the one there
COPIES = 16         # of the weights, float32: they, gradient, two moments, best, average; five copies, and five written
PAIRED, PAIRED_CACHE = 64, 500  # trials pooled together, and utterances kept (steps/network/score_segments.py)
WORKER = 80 * MB    # a worker's own, measured
SAMPLES_A_FRAME = 160
ALIVE = 3           # of the largest layer's outputs: its input, the output and the operation between them


class Sizes(NamedTuple):
    """parameters: their number; saved: bytes per frame that the backward pass needs; largest: bytes per frame of the
    largest tensor among these and the outputs of layers."""

    parameters: int
    saved: float
    largest: float


def config_of(exp: Path) -> NetworkConfig:
    """Return the configuration of a model folder: that of the trained network, or else the system's."""
    for name in ("config.yaml", "system.yaml"):
        if (exp / name).is_file():
            return read_network_config(str(exp / name))
    raise InputError(f"{exp} has neither config.yaml nor system.yaml; train the network first")


def sizes_of(config: NetworkConfig, dim: int, speakers: int) -> Sizes:
    """Return the sizes of a network for features of `dim` values per frame."""
    with torch.device("meta"):
        network = Network(config, dim, speakers)
    largest, saved = 0, 0
    seen: set[int] = set()

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal largest
        for one in output if isinstance(output, tuple) else (output,):
            largest = max(largest, one.nbytes if isinstance(one, torch.Tensor) else 0)

    def keep(x: torch.Tensor) -> torch.Tensor:
        nonlocal largest, saved
        key = x.untyped_storage()._cdata
        if key not in seen and not isinstance(x, nn.Parameter):
            seen.add(key)
            kept.append(x)
            saved += x.untyped_storage().nbytes()
            largest = max(largest, x.nbytes)
        return x

    kept: list[torch.Tensor] = []  # keeps them alive: a freed storage's address may be used again
    for module in network.modules():
        module.register_forward_hook(note)
    count = 2 * (getattr(config.loss, "utterances", 0) or 1)
    stored = network.frontend.stored
    shape = (PROBE_FRAMES, network.frontend.output_dim) if stored else (PROBE_FRAMES * SAMPLES_A_FRAME,)
    x = torch.zeros(count, *shape, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        h, lengths = network.frames(x if stored else network.frontend.chunks(x))
        if not network.pairwise:
            network.head(network.pooling(h, lengths))
    frames = count * PROBE_FRAMES
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Sizes(parameters, saved / frames, largest / frames)


def _embedding(config: NetworkConfig, sizes: Sizes, data: Data, frames: int) -> float:
    """Bytes for embedding utterances in batches of `frames` frames: the weights as read and in the network, the
    utterances that are sorted by length, and a layer's input and output."""
    dim = config.frontend.output_dim(data.dim)
    together = min(TOGETHER, data.utterances) * data.frames * 4 * (data.dim + dim)
    return 8 * sizes.parameters + together + ALIVE * frames * sizes.largest


def train_network(config: str, train: str, valid: str, processes: str = "1", device: str = "cpu",
                  threads: str = "1") -> float:
    """Per process the weights and their copies, and what the backward pass needs of a chunk, times its share of the
    batch; on a GPU, only the batches that wait are on the host. Or validation, if that takes more. Some have
    workers, with batches of their own, and some teachers, of `distil`. config: in the new model's folder; threads: 0
    for all cores."""
    options = read_network_config(config)
    data, held_out = data_of(Path(train), options.features), data_of(Path(valid), options.features)
    sizes = sizes_of(options, data.dim, count_of(Path(train) / "spk2utt"))
    count, part = int(processes), options.train
    chunk = max(part.chunk_frames, part.max_chunk_frames)
    batch = part.batch_size / count * chunk
    audio = options.online or not FRONTENDS[options.frontend.type][0].stored
    sent = batch * 4 * (SAMPLES_A_FRAME if audio else options.frontend.output_dim(data.dim))
    workers = workers_for(options, int(threads) or os.cpu_count() or 1) * (WORKER + (AHEAD + 2) * sent)
    step = 0.0 if device != "cpu" else 1.5 * batch / part.accumulate * sizes.saved  # 1.5: gradients on their way
    for name in options.distil.models if options.distil else ():
        folder = Path(config).parent.parent / name
        if (folder / "config.yaml").is_file():  # a dry run asks before teachers are trained
            teacher = sizes_of(config_of(folder), data.dim, 2)
            outputs = 0.0 if device != "cpu" else ALIVE * batch / part.accumulate * teacher.largest
            step += 8 * teacher.parameters + outputs
    longest = max(part.valid_batch_frames, min(held_out.longest, 12000))
    validation = _embedding(options, sizes, held_out, 0 if device != "cpu" else longest)
    return count * (TORCH + on_gpu(device) + NAME * data.utterances + COPIES * 4 * sizes.parameters + WAITING * sent
                    + workers + max(step, validation))


def extract_embeddings(exp: str, data: str, max_frames: str = "12000", device: str = "cpu") -> float:
    """See `_embedding`; on a GPU, the layers are not on the host."""
    config = config_of(Path(exp))
    found = data_of(Path(data), config.features)
    sizes = sizes_of(config, found.dim, config.speakers or 1)
    frames = max(config.train.valid_batch_frames, min(int(max_frames), found.longest))
    return (TORCH + on_gpu(device) + NAME * found.utterances
            + _embedding(config, sizes, found, 0 if device != "cpu" else frames))


def extract_segments(exp: str, data: str, segments: str, frames: str, device: str = "cpu") -> float:
    """As `extract_embeddings`, with batches of whole utterances' segments."""
    config = config_of(Path(exp))
    found = data_of(Path(data), config.features)
    sizes = sizes_of(config, found.dim, config.speakers or 1)
    batch = max(config.train.valid_batch_frames, int(segments) * int(frames))
    layers = ALIVE * batch * sizes.largest if device == "cpu" else 0
    return (TORCH + on_gpu(device) + NAME * found.utterances + 8 * sizes.parameters
            + 8 * batch * config.frontend.output_dim(found.dim) + layers)


def score_segments(exp: str, segments: str, count: str = "10", device: str = "cpu") -> float:
    """The embeddings, and both sides of a trial. Systems that pool pairs keep the frames of some utterances, their
    projections and their matrices G (count x d x d), and the same of both sides of the trials that are pooled together,
    with G once more as columns; on a GPU, all these are there."""
    utterances, size = embeddings_of(Path(segments) / "segments.scp")
    total = TORCH + on_gpu(device) + NAME * utterances
    if config_of(Path(exp)).pooling["type"] != "cross_attentive":
        return total + 4 * size
    if device != "cpu":
        return total
    frames, dim = int(count), ASSUMED["dim"]
    with contextlib.suppress(InputError):  # not there yet, or damaged, which the job will say
        frames, dim = next((x.shape for _, x in iterate(Path(segments) / "segments.scp")), (frames, dim))
    side = 4 * int(count) * dim * dim + 2 * 4 * frames * dim
    pairs = int(count) ** 2 * dim + int(count) * frames  # values of a trial: directions or embeddings, weights
    return total + (min(PAIRED_CACHE, utterances) + 4 * PAIRED) * side + 6 * 4 * PAIRED * pairs


if __name__ == "__main__":
    run_main(lambda: main({function.__name__: function for function in (
        train_network, extract_embeddings, extract_segments, score_segments)}))
