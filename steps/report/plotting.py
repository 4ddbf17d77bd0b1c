"""The look of all figures: colours that the colour-blind can tell apart, and dashes; and the files of a figure."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from utils.files import write_aside

# Okabe & Ito, "Color universal design", 2008, darkest first; yellow is left out, which is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", (0, (6, 2)), (0, (4, 1.5, 1, 1.5)), (0, (1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SETTINGS = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.6,
    "figure.dpi": 110, "savefig.dpi": 140, "text.parse_math": False,  # a `$` in a name is a `$`
    "svg.hashsalt": "attvec", "path.simplify_threshold": 0.3,
}
# Without the time of writing, drawing a figure again gives the same bytes.
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


class Drawn(NamedTuple):
    """A figure, and what the report says about it."""

    name: str        # of its files, without the suffix
    alt: str         # what it shows, for readers who cannot see it
    caption: str     # one sentence
    figure: Figure
    image: bool = False  # made of pixels or of many marks: the report shows the PNG instead of the SVG


class LeftOut(NamedTuple):
    """A figure, or a part of one, that cannot be drawn."""

    reason: str


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, laid out by constrained_layout."""
    mpl.rcParams.update(SETTINGS)
    return Figure(figsize=(width, height), layout="constrained")


def panels(figure: Figure, count: int, columns: int, **options: object) -> list:
    """Return `count` axes in rows of at most `columns`."""
    columns = min(count, columns)
    axes = figure.subplots(-(-count // columns), columns, squeeze=False, **options).ravel()
    for axis in axes[count:]:
        axis.remove()
    return list(axes[:count])


def line_style(number: int) -> dict[str, object]:
    """Return colour and dashes of the line with this number, from 0; 28 are distinct."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


def mark_style(number: int) -> dict[str, object]:
    """Return colour and shape of the mark with this number, from 0; 49 are distinct."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number // len(COLOURS) % len(MARKERS)]}


def save_figure(figure: Figure, stem: Path, kinds: Iterable[str] = ("png", "pdf", "svg")) -> None:
    """Write a figure as <stem>.png, <stem>.pdf, <stem>.svg, each completely or not at all."""
    for kind in kinds:
        with write_aside(stem.with_name(f"{stem.name}.{kind}"), "wb") as stream:
            figure.savefig(stream, format=kind, metadata=METADATA[kind], transparent=kind == "svg")
        figure.set_layout_engine(None)  # to lay out once is enough for all files, and is half of the time
