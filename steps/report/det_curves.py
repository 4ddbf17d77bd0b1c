"""Draw the detection error trade-off (DET) curves of all systems: one figure per trial list, <out>/det_<list>.png.

Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997: misses against false
alarms, both on a probit scale, so that normal scores make a straight line. One panel per back-end, one line per
system; a dot marks the equal error rate, where the line crosses the diagonal.
e.g.: python3 -m steps.report.det_curves egs/voxceleb egs/voxceleb/exp/figures
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtri

from steps.report.plotting import line_style, new_figure, save_figure
from steps.report.results import score_files
from utils.errors import run_main
from utils.labelled_scores import read_labelled_scores
from utils.metrics import measure
from utils.simulated import has_simulated

POINTS = 500  # at each end of a curve, at most
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90)  # %
Curve = tuple[np.ndarray, np.ndarray, float]  # false alarms, misses (0 to 1), EER (%)


def det_points(targets: np.ndarray, nontargets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false-alarm and miss rates (0 to 1, each (P,)) at thresholds in ascending order.

    A trial is accepted when its score is at or above the threshold. Thresholds are scores: all of them, or a
    selection with which the logarithms of both rates change in equal steps.
    """
    targets, nontargets = np.sort(targets), np.sort(nontargets)
    thresholds = np.unique(np.concatenate([thinned(targets), thinned(nontargets)]))
    return (1 - np.searchsorted(nontargets, thresholds) / len(nontargets),
            np.searchsorted(targets, thresholds) / len(targets))


def thinned(scores: np.ndarray) -> np.ndarray:
    """Return at most 2 POINTS of the sorted scores, dense at both ends."""
    if len(scores) <= 2 * POINTS:
        return scores
    ranks = np.unique(np.geomspace(1, len(scores) // 2, POINTS).astype(int)) - 1
    return scores[np.concatenate([ranks, len(scores) - 1 - ranks])]


def limits(panels: Mapping[str, Mapping[str, Curve]]) -> tuple[float, float]:
    """Return the rates in % between which all curves are drawn: ticks around a tenth and four times the EERs."""
    eers = [curve[2] for panel in panels.values() for curve in panel.values()]
    low, high = max(min(eers) / 10, TICKS[0]), min(max(4 * max(eers), 20), TICKS[-1])
    return max(tick for tick in TICKS if tick <= low), min(tick for tick in TICKS if tick >= high)


def draw_list(title: str, panels: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Return the figure of one trial list: one panel per back-end."""
    systems = sorted({system for panel in panels.values() for system in panel})
    styles = {system: line_style(number) for number, system in enumerate(systems)}
    low, high = limits(panels)
    figure = new_figure(0.6 + 4.2 * len(panels), 5.1)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for place, (axis, backend) in enumerate(zip(axes, sorted(panels), strict=True)):
        draw_panel(axis, panels[backend], styles, low, high)
        axis.set_title(backend)
        axis.set_xlabel("false alarms, %")
        if place == 0:
            axis.set_ylabel("misses, %")
    return figure


def draw_panel(axis: Axes, curves: Mapping[str, Curve], styles: Mapping[str, dict[str, object]], low: float,
               high: float) -> None:
    """Draw one back-end's curves, the best system first in the legend."""
    for system, (false_alarms, misses, eer) in sorted(curves.items(), key=lambda item: item[1][2]):
        inside = (false_alarms > 0) & (false_alarms < 1) & (misses > 0) & (misses < 1)
        axis.plot(ndtri(false_alarms[inside]), ndtri(misses[inside]), **styles[system],
                  label=f"{system}, EER {eer:.2f} %")
        if 0 < eer < 100:
            axis.plot(*2 * [ndtri(eer / 100)], "o", color=styles[system]["color"], markersize=5,
                      markeredgecolor="white", zorder=3)
    ends = ndtri(np.array([low, high]) / 100)
    axis.plot(ends, ends, color="0.75", linewidth=0.8, zorder=0)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    for along in (axis.xaxis, axis.yaxis):
        along.set_ticks(ndtri(np.array(ticks) / 100), [f"{tick:g}" for tick in ticks])
    axis.set(xlim=ends, ylim=ends, aspect="equal")
    axis.grid(color="0.9", linewidth=0.6)
    axis.legend(loc="upper right", fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path, help="folder with data/ and exp/")
    parser.add_argument("out", type=Path, help="folder for the figures")
    arguments = parser.parse_args()
    files, _ = score_files(arguments.work)
    for name, of_list in groupby(files, key=lambda one: one.list):
        panels: dict[str, dict[str, Curve]] = defaultdict(dict)
        for one in of_list:
            pair = read_labelled_scores(one.trials, one.path)
            panels[one.backend][one.system] = (*det_points(*pair), measure(*pair).eer)
        title = f"DET curves, {name}{' (simulated speakers, no speech)' if has_simulated(one.trials) else ''}"
        path = arguments.out / f"det_{name}.png"
        save_figure(draw_list(title, panels), path)
        print(path)


if __name__ == "__main__":
    run_main(main)
