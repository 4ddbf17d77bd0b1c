"""Seconds and memory of the steps, from the logs of their jobs (utils/jobs/task.py)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from steps.report.material import Material
from steps.report.plotting import COLOURS, Drawn, LeftOut, new_figure

ACCOUNTING = re.compile(r"^# Accounting: time=(\d+) threads=(\d+) peak_mb=(\d+)(?: .*)?$", re.MULTILINE)
SHOWN = 24  # steps in the figure, at most


class Cost(NamedTuple):
    """The last run of a step's jobs."""

    folder: str   # of its outputs, below the work folder
    step: str     # name of its logs
    jobs: int
    seconds: int  # of all jobs, one after the other
    longest: int  # seconds of the longest job
    threads: int  # of each job
    peak_mb: int  # of the largest job


def read_costs(work: Path) -> list[Cost]:
    """Return the costs of the steps whose jobs left logs, by folder and step."""
    jobs: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for path in sorted([*work.glob("data/**/log/*.log"), *work.glob("exp/**/log/*.log")]):
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 1000))
            found = ACCOUNTING.findall(stream.read().decode(errors="replace"))
        if found:
            folder, step = str(path.parents[1].relative_to(work)), re.sub(r"\.\d+$", "", path.stem)
            jobs.setdefault((folder, step), []).append(tuple(map(int, found[-1])))
    costs = []
    for (folder, step), some in sorted(jobs.items()):
        seconds, threads, peaks = zip(*some, strict=True)
        costs.append(Cost(folder, step, len(some), sum(seconds), max(seconds), max(threads), max(peaks)))
    return costs


def draw(costs: Sequence[Cost]) -> Figure:
    """Return the figure of these steps, in this order."""
    figure = new_figure(7.2, 0.9 + 0.24 * len(costs))
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(costs))
    for axis, name, values, colour in ((left, "seconds of all jobs", [one.seconds for one in costs], COLOURS[0]),
                                       (right, "largest job, MB", [one.peak_mb for one in costs], COLOURS[6])):
        axis.barh(places, values, color=colour, height=0.7)
        for place, value in zip(places, values, strict=True):
            axis.text(value, place, f" {value:,}", va="center", fontsize=7)
        axis.set_title(name)
        axis.margins(x=0.18)
        axis.tick_params(left=False)
    left.set_yticks(places, [f"{one.folder}: {one.step}" for one in costs], fontsize=7)
    left.invert_yaxis()
    return figure


def figures(material: Material) -> Iterator[Drawn | LeftOut]:
    """Yield the figure of the steps that took longest."""
    costs = sorted(read_costs(material.work), key=lambda one: -one.seconds)
    if not costs:
        yield LeftOut("Seconds and memory: no log of a step has a line `# Accounting`.")
        return
    rest = len(costs) - SHOWN
    yield Drawn("costs", f"Seconds and memory of {min(len(costs), SHOWN)} steps; the longest: {costs[0].folder} "
                f"{costs[0].step}, {costs[0].seconds} s",
                "Seconds of all jobs of a step together, and memory of its largest job, in its last run"
                f"{f'; the {rest} shortest steps are in the table' if rest > 0 else ''}.", draw(costs[:SHOWN]))
