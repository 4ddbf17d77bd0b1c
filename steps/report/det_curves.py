"""Detection error trade-off (DET) curves of all systems: one figure per trial list and back-end.

Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997: misses against false
alarms, both on a probit scale, so that normal scores make a straight line. One line per system; a dot marks the equal
error rate, where the line crosses the diagonal.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtri

from steps.report.material import Material, Summary
from steps.report.plotting import Drawn, line_style, new_figure

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90)  # %
INSIDE = 8  # systems in a legend inside the axes, at most; more are named below them


def limits(eers: Sequence[float]) -> tuple[float, float]:
    """Return the rates in % between which curves are drawn: ticks around a tenth and four times the EERs."""
    low, high = max(min(eers) / 10, TICKS[0]), min(max(4 * max(eers), 20), TICKS[-1])
    return max(tick for tick in TICKS if tick <= low), min(tick for tick in TICKS if tick >= high)


def draw(title: str, summaries: Sequence[Summary], systems: Sequence[str], low: float, high: float) -> Figure:
    """Return the figure of one list and back-end. systems: all of the report; low, high: the axes' ends in %."""
    below = len(summaries) > INSIDE
    figure = new_figure(4.8, 5.1 + below * 0.16 * -(-len(summaries) // 2))
    axis = figure.subplots()
    for one in sorted(summaries, key=lambda one: one.eer):  # the best is the first in the legend
        draw_curve(axis, one, line_style(systems.index(one.of.system)))
    ends = ndtri(np.array([low, high]) / 100)
    axis.plot(ends, ends, color="0.75", linewidth=0.8, zorder=0)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    for along in (axis.xaxis, axis.yaxis):
        along.set_ticks(ndtri(np.array(ticks) / 100), [f"{tick:g}" for tick in ticks])
    axis.set(xlim=ends, ylim=ends, aspect="equal", title=title, xlabel="false alarms, %", ylabel="misses, %")
    axis.grid(color="0.9", linewidth=0.6)
    handles = axis.get_legend_handles_labels()
    if below:
        figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=7)
    else:
        axis.legend(*handles, loc="upper right", fontsize=8)
    return figure


def draw_curve(axis: Axes, one: Summary, style: dict[str, object]) -> None:
    """Draw a curve, with a dot at its EER."""
    inside = (one.false_alarms > 0) & (one.false_alarms < 1) & (one.misses > 0) & (one.misses < 1)
    axis.plot(ndtri(one.false_alarms[inside]), ndtri(one.misses[inside]), **style,
              label=f"{one.of.system}, EER {one.eer:.2f} %")
    if 0 < one.eer < 100:
        axis.plot(*2 * [ndtri(one.eer / 100)], "o", color=style["color"], markersize=5, markeredgecolor="white",
                  zorder=3)


def figures(material: Material) -> Iterator[Drawn]:
    """Yield the figure of each list and back-end; all back-ends of a list have the same axes."""
    for (name, backend), some in material.lists_and_backends.items():
        low, high = limits([one.eer for one in material.lists[name]])
        best = min(some, key=lambda one: one.eer)
        yield Drawn(
            f"det_{name}.{backend}",
            f"DET curves of {len(some)} systems on {name} with {backend}; lowest EER: {best.of.system}, "
            f"{best.eer:.2f} %",
            f"Misses against false alarms on {material.of_list(name)} with {backend}, on probit axes; the dots mark "
            "the equal error rates.",
            draw(f"{material.of_list(name)}, {backend}", some, material.systems, low, high))
