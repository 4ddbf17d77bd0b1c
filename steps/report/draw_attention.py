"""The weights of attention poolings over one utterance, below its log mel spectrogram.

For each network whose pooling has several heads, the figure attention_<system> shows the spectrogram; the mean of the
heads' weights beside the weights of systems with a single head; every head's weights, with its entropy
-sum_t a_t log a_t (nats; log T for uniform weights over T frames). Weights are multiplied by T, so that uniform weights
are 1.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnet.attention import Attention, encoder_frames
from nnet.config import NetworkConfig
from nnet.embed import utterances_for
from nnet.model import Network
from steps.report.material import SHIFT, SIMULATED, Material
from steps.report.plotting import Drawn, LeftOut, line_style, new_figure
from utils.audio import SAMPLE_RATE, read_audio
from utils.errors import InputError
from utils.features.spectrogram import BANDS, log_mel
from utils.kaldi.ark import table_lines
from utils.kaldi.data_dir import read_audio_table
from utils.kaldi.segments import cut, segments_of
from utils.simulated import is_simulated


def entropies(weights: np.ndarray) -> np.ndarray:
    """Return -sum_t a_t log a_t of each column of weights (T x K), in nats: (K,). 0 log 0 is 0."""
    positive = np.where(weights > 0, weights, 1.0)
    return -(positive * np.log(positive)).sum(axis=0) + 0.0


@torch.inference_mode()
def encoded(network: Network, config: NetworkConfig, model: Path, data: Path,
            utterance: str) -> tuple[torch.Tensor, torch.Tensor | None, np.ndarray]:
    """Return the encoder's frames of an utterance: 1 x T' x d; their number; and
    the encoder's frame that each frame of the utterance belongs to, as in Attention."""
    features = utterances_for(config, model, data, remark=False)
    index = row_of(data, utterance)
    x = torch.from_numpy(features.whole(index))[None]
    x = x if x.dim() == 3 else network.frontend(x)[0]
    h, lengths = network.frames(x, torch.tensor([x.shape[1]]))
    length = int(features.rows.num_rows[index])
    voicing = features.vad.read(index)[:, 0] if config.vad else None
    return h, lengths, encoder_frames(length, voicing, h.shape[1])


@torch.inference_mode()
def attend(network: Network, config: NetworkConfig, model: Path, data: Path, utterance: str) -> Attention:
    """Return a network's weights over an utterance of a data directory with its features."""
    h, lengths, frames = encoded(network, config, model, data, utterance)
    return Attention(network.pooling.weights(h, lengths)[0].numpy(), frames)


def row_of(data: Path, utterance: str) -> int:
    """Return the index of an utterance in feats.scp; raises InputError if it is not there."""
    for row, (name, _) in enumerate(table_lines(data / "feats.scp")):
        if name == utterance:
            return row
    raise InputError(f"{data}: no utterance {utterance}; name one of its feats.scp with --utterance")


def spectrogram(data: Path, utterance: str) -> np.ndarray:
    """Return the log mel energies of an utterance, from its audio: T x BANDS."""
    ids, paths, segments = read_audio_table(data)
    row = ids.index(utterance)
    samples = read_audio(paths[row]).samples
    if segments:
        samples = cut(samples, SAMPLE_RATE, *segments_of(segments[row:row + 1]))
    return log_mel(samples)


def draw(title: str, energies: np.ndarray, name: str, many: Attention, single: Mapping[str, Attention]) -> Figure:
    """Return the figure of a system with several heads, compared with systems with one."""
    figure = new_figure(9.0, 6.4)
    figure.suptitle(title, fontsize=11)
    grid = figure.add_gridspec(3, 2, height_ratios=(1.1, 0.9, 1.5), width_ratios=(5, 1))
    seconds = len(many.frames) * SHIFT
    top = figure.add_subplot(grid[0, 0])
    low, high = np.percentile(energies, (2, 99.5))
    top.imshow(energies.T, origin="lower", aspect="auto", extent=(0, seconds, 0, BANDS), cmap="magma", vmin=low,
               vmax=high)
    top.set(title="log mel spectrogram", ylabel="band")
    middle = figure.add_subplot(grid[1, 0], sharex=top)
    lines = [(f"{name}: mean of {many.heads} heads", many.over_time().mean(axis=1)),
             *((f"{other}: single head", one.over_time()[:, 0]) for other, one in single.items())]
    for number, (label, values) in enumerate(lines):
        edges = np.linspace(0, seconds, len(values) + 1)
        middle.stairs(values, edges, label=label, baseline=None, linewidth=1.4, **line_style(number))
    middle.axhline(1, color="0.6", linewidth=0.8)
    middle.set(title="attention weights against 1/T", ylabel="weight x T", ylim=(0, None))
    bottom = figure.add_subplot(grid[2, 0], sharex=top)
    over_time = many.over_time()
    image = bottom.imshow(over_time.T, aspect="auto", interpolation="nearest", cmap="cividis", vmin=0,
                          extent=(0, seconds, many.heads + 0.5, 0.5), vmax=np.percentile(over_time, 99.5))
    bottom.set(title=f"{name}: each head", ylabel="head", xlabel="seconds")
    for axis in (top, middle):
        axis.tick_params(labelbottom=False)
    legend = figure.add_subplot(grid[1, 1])
    legend.axis("off")
    legend.legend(*middle.get_legend_handles_labels(), loc="upper left", borderaxespad=0, fontsize=8)
    draw_entropies(figure.add_subplot(grid[2, 1], sharey=bottom), many, single)
    figure.colorbar(image, ax=bottom, location="bottom", aspect=60, pad=0.02, label="weight x T")
    return figure


def draw_entropies(axis: Axes, many: Attention, single: Mapping[str, Attention]) -> None:
    """Draw one bar per head, lines for systems with one head, and the entropy of uniform weights."""
    axis.barh(np.arange(1, many.heads + 1), entropies(many.weights), color="0.6", height=0.8)
    for number, one in enumerate(single.values(), start=1):
        axis.axvline(entropies(one.weights)[0], **line_style(number))
    axis.axvline(np.log(len(many.weights)), color="0.2", linewidth=0.8)
    axis.text(np.log(len(many.weights)), 1.0, " log T", transform=axis.get_xaxis_transform(), fontsize=8, va="bottom",
              ha="center")
    axis.tick_params(labelleft=False)
    axis.set(title="entropy", xlabel="nats", xlim=(0, 1.15 * np.log(len(many.weights))))


def attentive_systems(material: Material) -> dict[str, tuple[Network, NetworkConfig]]:
    """Return the networks whose pooling has weights, by name; of those to draw, if any are named."""
    return {name: pair for name, pair in material.networks.items()
            if hasattr(pair[0].pooling, "weights") and (not material.chosen or name in material.chosen)}


def attend_all(material: Material, utterance: str = "") -> dict[str, Attention]:
    """Return the weights of all attentive systems over a test utterance (empty: that of the material)."""
    exp, data = material.work / "exp", material.work / "data"
    return {name: attend(network, config, exp / name, data / config.features / "test", utterance or material.utterance)
            for name, (network, config) in attentive_systems(material).items()}


def figures(material: Material) -> Iterator[Drawn | LeftOut]:
    """Yield the figure of each network with several heads."""
    attention = attend_all(material)
    single = {name: one for name, one in attention.items() if one.heads == 1}
    many = {name: one for name, one in attention.items() if one.heads > 1}
    if not many:
        yield LeftOut("Attention over time: no network whose pooling has several heads.")
        return
    try:
        energies = spectrogram(material.work / "data/test", material.utterance)
    except InputError as error:  # the audio may be gone: only its features are needed before
        yield LeftOut(f"Attention over time: {error}.")
        return
    title = f"{material.utterance}{SIMULATED if is_simulated(material.utterance) else ''}"
    beside = f"; beside them the single heads of {', '.join(single)}" if single else ""
    for name, one in many.items():
        yield Drawn(f"attention_{name}",
                    f"Spectrogram of {material.utterance} above the attention weights of {one.heads} heads of {name}",
                    f"Attention weights of {name} over the test utterance {material.utterance}, times the number of "
                    f"frames, so that 1 is uniform{beside}.", draw(title, energies, name, one, single), image=True)
