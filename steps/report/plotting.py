"""The look of all figures: colours that the colour-blind can tell apart, and dashes."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from utils.files import write_aside

# Okabe & Ito, "Color universal design", 2008, darkest first; yellow is left out, which is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", (0, (6, 2)), (0, (4, 1.5, 1, 1.5)), (0, (1.5, 1.5)))
SETTINGS = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.6,
    "figure.dpi": 110, "savefig.dpi": 110,
}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, laid out by constrained_layout."""
    mpl.rcParams.update(SETTINGS)
    return Figure(figsize=(width, height), layout="constrained")


def line_style(number: int) -> dict[str, object]:
    """Return colour and dashes of the line with this number, from 0; 28 are distinct."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, completely or not at all; drawing it again gives the same bytes."""
    with write_aside(path, "wb") as stream:
        figure.savefig(stream, format="png", metadata={"Software": None})
