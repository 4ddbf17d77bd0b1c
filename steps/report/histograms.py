"""Histograms of target and non-target scores with the thresholds: one figure per trial list and back-end.

A threshold of exp/<system>/calibration.json is one on the log-likelihood ratio w s + b of a score s; on the score it is
(t - b) / w.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steps.report.material import Material, Summary
from steps.report.plotting import COLOURS, Drawn, new_figure, panels
from utils.errors import InputError

COLUMNS = 3  # panels beside each other, at most
Thresholds = dict[str, tuple[float, float]]  # by back-end: a calibration's threshold on the score, and its prior


def read_calibration(path: Path) -> Thresholds:
    """Return the thresholds in a calibration.json; an empty table if the file does not exist.

    A calibration with several weights gives no threshold on the score alone and is left out. Raises InputError on a
    damaged file.
    """
    if not path.is_file():
        return {}
    found: Thresholds = {}
    try:
        for backend, one in json.loads(path.read_text(encoding="utf-8")).items():
            weights, offset, threshold, prior = (one[name] for name in ("weights", "offset", "threshold", "prior"))
            if len(weights) == 1 and weights[0]:
                found[backend] = (threshold - offset) / weights[0], float(prior)
        if not all(math.isfinite(value) for pair in found.values() for value in pair):
            raise ValueError("it contains NaN or infinite values")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a calibration ({error}); calibrate again") from error
    return found


def read_fused(scores: Path, backend: str) -> Thresholds:
    """Return the threshold of calibrated or fused scores, which are ratios; an empty table for plain ones.

    steps/calibrate.sh and steps/fuse.sh write the JSON beside them. Raises InputError on a damaged file.
    """
    path = scores.parent / "calibration" / f"{scores.name}.json"
    if not path.is_file():
        return {}
    try:
        one = json.loads(path.read_text(encoding="utf-8"))
        return {backend: (float(one["threshold"]), float(one["prior"]))}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a calibration ({error}); calibrate again") from error


def draw(title: str, summaries: Sequence[Summary], calibrations: Mapping[str, Thresholds]) -> Figure:
    """Return the figure of one list and back-end: one panel per system."""
    columns = min(COLUMNS, len(summaries))
    figure = new_figure(max(4.2, 3.3 * columns), 0.7 + 1.75 * -(-len(summaries) // columns))
    figure.suptitle(title, fontsize=11, fontweight="bold")
    axes = panels(figure, len(summaries), columns)
    for axis, one in zip(axes, summaries, strict=True):
        draw_panel(axis, one, calibrations[one.of.system].get(one.of.backend))
    handles: dict[str, object] = {}
    for axis in axes:  # a threshold of a calibration may be in some panels only
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def draw_panel(axis: Axes, one: Summary, calibrated: tuple[float, float] | None) -> None:
    """Draw the scores of one system."""
    for values, colour, label in ((one.nontargets, COLOURS[1], "non-targets"), (one.targets, COLOURS[0], "targets")):
        axis.stairs(values, one.edges, color=colour, fill=True, alpha=0.25)
        axis.stairs(values, one.edges, color=colour, label=label, linewidth=1.2)
    axis.axvline(one.threshold, color="0.2", linewidth=1.2, label="threshold of the EER")
    if calibrated:
        axis.axvline(calibrated[0], color=COLOURS[3], linestyle="--", linewidth=1.4,
                     label=f"calibrated threshold, P_target {calibrated[1]:g}")
    axis.set_title(one.of.system, fontsize=9)
    axis.set_yticks([])
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_ylim(0, None)
    axis.spines["left"].set_visible(False)


def figures(material: Material) -> Iterator[Drawn]:
    """Yield the figure of each list and back-end."""
    calibrations = {name: read_calibration(material.work / "exp" / name / "calibration.json")
                    for name in material.systems}
    for one in material.lists_and_backends.values():
        for summary in one:
            calibrations[summary.of.system] |= read_fused(summary.of.path, summary.of.backend)
    for (name, backend), some in material.lists_and_backends.items():
        known = sum(backend in calibrations[one.of.system] for one in some)
        yield Drawn(
            f"scores_{name}.{backend}",
            f"Histograms of target and non-target scores of {len(some)} systems on {name} with {backend}",
            f"Densities of the scores on {material.of_list(name)} with {backend}; the solid line is the threshold of "
            f"the EER{', the dashed one that of the calibration' if known else ''}.",
            draw(f"{material.of_list(name)}, {backend}", some, calibrations))
