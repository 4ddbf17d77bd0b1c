"""Training curves of the networks: loss and EER on the validation speakers over the epochs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from steps.report.material import Material
from steps.report.plotting import Drawn, LeftOut, line_style, new_figure
from utils.errors import InputError

COLUMNS = ("epoch", "loss", "valid_eer")


def read_epochs(path: Path) -> np.ndarray:
    """Return epoch, loss and validation EER (%) of each line of log/train.tsv, N x 3; raises InputError if damaged."""
    header, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    names = header.split("\t")
    try:
        places = [names.index(name) for name in COLUMNS]
        return np.array([[float(line.split("\t")[place]) for place in places] for line in lines]).reshape(-1, 3)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: wanted lines with {', '.join(COLUMNS)} ({error}); train again") from error


def figures(material: Material) -> Iterator[Drawn | LeftOut]:
    """Yield the figure of all networks that left a line per epoch."""
    curves = {}
    for name in material.systems:
        path = material.work / "exp" / name / "log/train.tsv"
        if path.is_file() and len(epochs := read_epochs(path)):
            curves[name] = epochs
        elif name in material.networks:
            yield LeftOut(f"{name}: no line per epoch in exp/{name}/log/train.tsv.")
    without = [name for name in material.systems if name not in material.networks]
    if without:
        yield LeftOut(f"{', '.join(without)}: not a network, which has no epochs.")
    if not curves:
        return
    figure = new_figure(7.2, 3.1 + 0.16 * -(-len(curves) // 3))
    left, right = figure.subplots(1, 2)
    for name, epochs in curves.items():
        style = line_style(material.systems.index(name)) | {"marker": ".", "markersize": 5}
        left.plot(epochs[:, 0], epochs[:, 1], label=name, **style)
        right.plot(epochs[:, 0], epochs[:, 2], **style)
    left.set(title="training loss", xlabel="epoch")
    right.set(title="EER on the validation speakers, %", xlabel="epoch", ylim=(0, None))
    for axis in (left, right):
        axis.grid(color="0.9", linewidth=0.6)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    last = ", ".join(f"{name} {epochs[-1, 2]:.1f} %" for name, epochs in curves.items())
    yield Drawn("training", f"Loss and validation EER over the epochs of {len(curves)} networks; at the end: {last}",
                "Mean loss of each epoch's steps, and EER on held-out training speakers after it; losses of different "
                "kinds are not comparable.", figure)
