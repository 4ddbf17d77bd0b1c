"""The weights of cross attentive pooling (CAP) for one target and one non-target pair: cap_<system>.

Both pairs share their first utterance where the list allows it, so that its weights show what the partner changes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from matplotlib.figure import Figure

from nnet.attention import Attention
from nnet.config import NetworkConfig
from nnet.model import Network
from steps.report.draw_attention import encoded, spectrogram
from steps.report.material import SHIFT, SIMULATED, Material
from steps.report.plotting import COLOURS, Drawn, LeftOut, new_figure
from utils.errors import InputError
from utils.features.spectrogram import BANDS
from utils.simulated import is_simulated

Pair = tuple[str, str]


def choose_pairs(trials: list[tuple[str, str, str]]) -> tuple[Pair, Pair] | None:
    """Return a target and a non-target pair of trials (id, id, label), with the same first utterance if possible."""
    targets = {first: (first, second) for first, second, label in reversed(trials) if label == "target"}
    others = [(first, second) for first, second, label in trials if label == "nontarget"]
    if not targets or not others:
        return None
    other = next((pair for pair in others if pair[0] in targets), others[0])
    return targets.get(other[0], next(reversed(targets.values()))), other


def read_pairs(material: Material) -> tuple[Pair, Pair] | None:
    """Return the pairs to draw, from the beginning of the first list."""
    with open(material.files[0].trials, encoding="utf-8") as stream:
        trials = [tuple(line.split()) for line, _ in zip(stream, range(5000), strict=False)]
    return choose_pairs(trials)


@torch.inference_mode()
def attend_pair(network: Network, config: NetworkConfig, material: Material, name: str, pair: Pair) -> list[Attention]:
    """Return the weights over both utterances of a pair."""
    data = material.work / "data" / config.features / "test"
    coded = [encoded(network, config, material.work / "exp" / name, data, utterance) for utterance in pair]
    sides = [network.pooling.side(h, lengths) for h, lengths, _ in coded]
    weights = [network.pooling.pair_weights(*sides), network.pooling.pair_weights(*sides[::-1])]
    return [Attention(one[0, 0].numpy()[:, None], frames) for one, (_, _, frames) in zip(weights, coded, strict=True)]


def draw(title: str, columns: dict[str, list[tuple[str, np.ndarray, Attention]]]) -> Figure:
    """Return the figure. columns: by the label of a pair, (utterance, its spectrogram, its weights) of both sides."""
    figure = new_figure(9.0, 6.0)
    figure.suptitle(title, fontsize=11)
    grid = figure.add_gridspec(4, len(columns), height_ratios=(1.2, 1, 1.2, 1))
    top = max(one.over_time().max() for sides in columns.values() for _, _, one in sides)
    for column, (label, sides) in enumerate(columns.items()):
        for side, (utterance, energies, one) in enumerate(sides):
            seconds = len(one.frames) * SHIFT
            image = figure.add_subplot(grid[2 * side, column])
            low, high = np.percentile(energies, (2, 99.5))
            image.imshow(energies.T, origin="lower", aspect="auto", extent=(0, seconds, 0, BANDS), cmap="magma",
                         vmin=low, vmax=high)
            image.set_title(f"{label}: {utterance}", fontsize=8)
            image.tick_params(labelbottom=False)
            axis = figure.add_subplot(grid[2 * side + 1, column], sharex=image)
            values = one.over_time()[:, 0]
            axis.stairs(values, np.linspace(0, seconds, len(values) + 1), baseline=None, color=COLOURS[side],
                        linewidth=1.4)
            axis.axhline(1, color="0.6", linewidth=0.8)
            axis.set(ylim=(0, 1.05 * top), ylabel="" if column else "weight x T", xlabel="seconds" if side else "")
    return figure


def figures(material: Material) -> Iterator[Drawn | LeftOut]:
    """Yield the figure of each network that pools pairs."""
    systems = {name: pair for name, pair in material.networks.items() if pair[0].pairwise}
    if not systems:
        yield LeftOut("Weights of cross attentive pooling: no network that pools pairs.")
        return
    pairs = read_pairs(material)
    if pairs is None:
        yield LeftOut(f"Weights of cross attentive pooling: the first 5000 trials of {material.files[0].list} lack a "
                      "target or a non-target.")
        return
    try:
        energies = {name: spectrogram(material.work / "data/test", name) for name in {*pairs[0], *pairs[1]}}
    except InputError as error:  # the audio may be gone
        yield LeftOut(f"Weights of cross attentive pooling: {error}.")
        return
    for name, (network, config) in systems.items():
        columns = {}
        for label, pair in zip(("target", "non-target"), pairs, strict=True):
            attention = attend_pair(network, config, material, name, pair)
            columns[label] = [(utterance, energies[utterance], one)
                              for utterance, one in zip(pair, attention, strict=True)]
        said = SIMULATED if is_simulated(pairs[0][0]) else ""
        yield Drawn(f"cap_{name}",
                    f"Spectrograms and pair weights of {name}: target pair {' and '.join(pairs[0])}, non-target pair "
                    f"{' and '.join(pairs[1])}",
                    f"Weights that {name} gives the frames of both utterances of a target pair (left) and of a "
                    "non-target pair (right), times the number of frames.", draw(f"{name}{said}", columns), image=True)
