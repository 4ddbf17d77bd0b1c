"""Draw the weights of attention poolings over one utterance, below its log mel spectrogram.

For each network under <work>/exp whose pooling has several heads, <out>/attention_<system>.png shows the spectrogram;
the mean of the heads' weights beside the weights of systems with a single head; every head's weights, with its entropy
-sum_t a_t log a_t (nats; log T for uniform weights over T frames). Weights are multiplied by T, so that uniform weights
are 1. The entropies are also written to <out>/attention.tsv.
e.g.: python3 -m steps.report.draw_attention egs/voxceleb egs/voxceleb/exp/figures
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnet.config import NetworkConfig
from nnet.embed import load_network, utterances_for
from nnet.model import Network
from steps.report.plotting import line_style, new_figure, save_figure
from utils.audio import read_audio
from utils.errors import InputError, run_main
from utils.features.compute import compute_features
from utils.features.options import FeatureOptions
from utils.files import write_aside
from utils.kaldi.ark import read_matrix, table_lines
from utils.simulated import is_simulated

SHIFT = 0.01  # seconds from frame to frame
BANDS = 80    # of the spectrogram that is drawn


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


def entropies(weights: np.ndarray) -> np.ndarray:
    """Return -sum_t a_t log a_t of each column of weights (T x K), in nats: (K,). 0 log 0 is 0."""
    positive = np.where(weights > 0, weights, 1.0)
    return -(positive * np.log(positive)).sum(axis=0) + 0.0


@torch.inference_mode()
def attend(network: Network, config: NetworkConfig, model: Path, data: Path, utterance: str) -> Attention:
    """Return a network's weights over an utterance of a data directory with its features."""
    features = utterances_for(config, model, data)
    index = row_of(data, utterance)
    x = torch.from_numpy(features.whole(index))[None]
    x = x if x.dim() == 3 else network.frontend(x)[0]
    h, lengths = network.frames(x, torch.tensor([x.shape[1]]))
    weights = network.pooling.weights(h, lengths)[0].numpy()
    length = int(features.rows.num_rows[index])
    voicing = read_matrix(features.vad[index]) if config.vad else np.ones(length)
    kept = np.flatnonzero(voicing) if voicing.any() else np.arange(length)
    frames = np.full(length, -1)
    frames[kept] = np.arange(len(kept)) * len(weights) // len(kept)
    return Attention(weights, frames)


def row_of(data: Path, utterance: str) -> int:
    """Return the index of an utterance in feats.scp; raises InputError if it is not there."""
    for row, (name, _) in enumerate(table_lines(data / "feats.scp")):
        if name == utterance:
            return row
    raise InputError(f"{data}: no utterance {utterance}; name one of its feats.scp with --utterance")


def spectrogram(data: Path, utterance: str) -> np.ndarray:
    """Return the log mel energies of an utterance, from its audio: T x BANDS."""
    path = next(where for name, where in table_lines(data / "wav.scp") if name == utterance)
    kaldi = kaldi_native_fbank.FbankOptions()
    kaldi.frame_opts.dither, kaldi.frame_opts.snip_edges, kaldi.mel_opts.num_bins = 0.0, False, BANDS
    return compute_features(read_audio(path).samples, FeatureOptions("fbank", kaldi))


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


def attentive_systems(work: Path, chosen: Sequence[str]) -> dict[str, tuple[Network, NetworkConfig]]:
    """Return the trained networks whose pooling has weights, by name; chosen: only these, if any are named."""
    found = {}
    for folder in sorted(path.parent for path in work.glob("exp/*/model.safetensors")):
        if chosen and folder.name not in chosen:
            continue
        network, config = load_network(folder)
        if hasattr(network.pooling, "weights"):
            found[folder.name] = network, config
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--utterance", default="", help="utterance of the test set (default: the first)")
    parser.add_argument("--systems", default="", help="systems to draw, separated by spaces (default: all)")
    parser.add_argument("work", type=Path, help="folder with data/ and exp/")
    parser.add_argument("out", type=Path, help="folder for the figures")
    arguments = parser.parse_args()
    work = arguments.work
    networks = attentive_systems(work, arguments.systems.split())
    utterance = arguments.utterance or next(name for name, _ in table_lines(work / "data/test/wav.scp"))
    attention = {name: attend(network, config, work / "exp" / name, work / "data" / config.features / "test", utterance)
                 for name, (network, config) in networks.items()}
    single = {name: one for name, one in attention.items() if one.heads == 1}
    rows = []
    for name, one in attention.items():
        rows += [f"{name}\t{utterance}\t{head}\t{value:.4f}\t{np.log(len(one.weights)):.4f}\n"
                 for head, value in enumerate(entropies(one.weights), start=1)]
        if one.heads > 1:
            title = f"{utterance}{' (simulated, no speech)' if is_simulated(utterance) else ''}"
            path = arguments.out / f"attention_{name}.png"
            save_figure(draw(title, spectrogram(work / "data/test", utterance), name, one, single), path)
            print(path)
    with write_aside(arguments.out / "attention.tsv") as stream:
        stream.writelines(["system\tutterance\thead\tentropy\tlog_frames\n", *rows])


if __name__ == "__main__":
    run_main(main)
