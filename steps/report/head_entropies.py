"""Entropy of the attention weights per head and resolution, over several utterances of the test set.

The entropy -sum_t a_t log a_t is divided by log T, so that uniform weights over any number T of frames have 1 and all
weight on one frame has 0. Heads of multi-resolution pooling (Wang, Yao, Li, Fang, ICASSP 2020) divide their scores by a
temperature: the higher, the more uniform the weights.
"""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes

from steps.report.draw_attention import attend_all, attentive_systems, entropies
from steps.report.material import Material
from steps.report.plotting import COLOURS, MARKERS, Drawn, LeftOut, new_figure, panels
from utils.kaldi.ark import table_lines

UTTERANCES = 8
SHOWN = 64  # heads drawn one by one, at most; more are sorted and drawn as one line
Entropies = dict[str, np.ndarray]  # by system: utterances x heads, 0 to 1


def measure_entropies(material: Material) -> Entropies:
    """Return the entropies of all attentive systems over utterances at equal distances in the test set."""
    names = [name for name, _ in table_lines(material.work / "data/test/utt2spk")]
    chosen = np.unique(np.linspace(0, len(names) - 1, UTTERANCES).round().astype(int))
    found: dict[str, list[np.ndarray]] = {}
    for place in chosen:
        for system, one in attend_all(material, names[place]).items():
            frames = len(one.weights)
            relative = entropies(one.weights) / np.log(frames) if frames > 1 else np.ones(one.heads)
            found.setdefault(system, []).append(relative)
    return {system: np.stack(rows) for system, rows in found.items()}


def draw_system(axis: Axes, title: str, values: np.ndarray, temperatures: list[float]) -> None:
    """Draw the mean entropy of each head with its standard deviation. temperatures: of the heads; none: all 1."""
    heads, mean = np.arange(1, values.shape[1] + 1), values.mean(axis=0)
    if len(heads) > SHOWN:
        axis.plot(heads, np.sort(mean), color=COLOURS[0])
        axis.set_xlabel("heads, sorted")
    else:
        kinds = sorted(set(temperatures)) or [1.0]
        for number, kind in enumerate(kinds):
            some = np.array(temperatures) == kind if temperatures else np.ones(len(heads), bool)
            axis.errorbar(heads[some], mean[some], values.std(axis=0)[some], fmt=MARKERS[number], color=COLOURS[number],
                          markersize=5, elinewidth=1, label=f"T = {kind:g}: {mean[some].mean():.3f}")
        if len(kinds) > 1:
            axis.legend(title="resolution: mean", fontsize=7, title_fontsize=7, loc="best")
        axis.set_xlabel("head")
        axis.set_xlim(0.4, len(heads) + 0.6)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axis.axhline(1, color="0.4", linewidth=0.8)
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.set_title(title, fontsize=9)


def figures(material: Material) -> Iterator[Drawn | LeftOut]:
    """Yield the figure of all networks whose pooling has attention weights."""
    if not attentive_systems(material):
        yield LeftOut("Entropy of the heads: no network whose pooling has attention weights.")
        return
    found = measure_entropies(material)
    rows = -(-len(found) // 3)
    figure = new_figure(7.2 if len(found) > 1 else 4.2, 0.4 + 1.9 * rows)
    several = []
    for axis, (system, values) in zip(panels(figure, len(found), 3, sharey=True), found.items(), strict=True):
        pooling = material.networks[system][0].pooling
        temperatures = pooling.temperatures.tolist() if hasattr(pooling, "temperatures") else []
        several += [system] * (len(set(temperatures)) > 1)
        draw_system(axis, system, values, temperatures)
    figure.supylabel("entropy / log T", fontsize=9)
    if not several:
        yield LeftOut("Entropy per resolution: no network with multi-resolution pooling.")
    means = ", ".join(f"{system} {values.mean():.2f}" for system, values in found.items())
    yield Drawn("entropy", f"Entropy of the attention weights of each head; means: {means}",
                f"Entropy of the attention weights of each head, divided by that of uniform weights: mean and standard "
                f"deviation over {len(next(iter(found.values())))} test utterances"
                f"{'; colours are the resolutions' if several else ''}.", figure)
