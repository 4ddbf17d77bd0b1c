"""Embeddings of test speakers in two dimensions, coloured by speaker.

Principal components of embeddings that are centred and of unit length: a projection that knows no speakers, so that
groups of a colour are the network's work.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from steps.report.material import SIMULATED, Material
from steps.report.plotting import Drawn, LeftOut, mark_style, new_figure, panels
from utils.errors import InputError
from utils.kaldi.ark import read_table, read_vectors
from utils.simulated import is_simulated

SPEAKERS = 14    # drawn
UTTERANCES = 60  # of each, at most
SCRIPTS = ("xvector.scp", "ivector.scp")


def principal_axes(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the two principal components (N x 2) of embeddings (N x E), centred and scaled to unit length, and their
    share of the variance."""
    x = x - x.mean(axis=0)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    x = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    points = u[:, :2] * s[:2]
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))), float((s[:2] ** 2).sum() / max((s**2).sum(), 1e-12))


def read_some(folder: Path, speaker_of: Mapping[str, str], chosen: list[str]) -> tuple[list[str], np.ndarray]:
    """Return speakers and embeddings of utterances of the chosen speakers; raises InputError if there are none."""
    script = next((folder / name for name in SCRIPTS if (folder / name).is_file()), None)
    if script is None:
        raise InputError(f"{folder}: neither {' nor '.join(SCRIPTS)}")
    ids, vectors = read_vectors(script)
    kept: dict[str, list[int]] = {name: [] for name in chosen}
    for row, name in enumerate(ids):
        if len(rows := kept.get(speaker_of.get(name, ""), [0] * UTTERANCES)) < UTTERANCES:
            rows.append(row)
    rows = [row for some in kept.values() for row in some]
    found = vectors[rows].astype(np.float64)
    if len(rows) < 3 or not np.isfinite(found).all():
        raise InputError(f"{script}: {len(rows)} embeddings of the chosen speakers, or NaN among them")
    return [speaker for speaker, some in kept.items() for _ in some], found


def draw(title: str, clouds: Mapping[str, tuple[list[str], np.ndarray]], chosen: list[str]) -> Figure:
    """Return the figure. clouds: by system, the speakers and embeddings of utterances."""
    rows = -(-len(clouds) // 3)
    figure = new_figure(9.0 if len(clouds) > 1 else 4.6, 1.0 + 2.9 * rows)
    figure.suptitle(title, fontsize=11)
    for axis, (system, (speakers, vectors)) in zip(panels(figure, len(clouds), 3), clouds.items(), strict=True):
        points, share = principal_axes(vectors)
        for number, speaker in enumerate(chosen):
            own = points[[one == speaker for one in speakers]]
            style = mark_style(number)
            axis.scatter(own[:, 0], own[:, 1], s=16, linewidths=0.3, edgecolors="white", alpha=0.85, label=speaker,
                         **style)
        axis.set_title(f"{system}\n{share:.0%} of the variance", fontsize=8)
        axis.set(xticks=[], yticks=[], aspect="equal")
        axis.set_adjustable("datalim")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7, fontsize=6.5, handletextpad=0.1,
                  columnspacing=0.8)
    return figure


def figures(material: Material) -> Iterator[Drawn | LeftOut]:
    """Yield the figure of all systems whose test embeddings are there."""
    ids, names = read_table(material.work / "data/test/utt2spk")
    speakers = sorted(set(names))
    chosen = [speakers[place] for place in np.unique(np.linspace(0, len(speakers) - 1, SPEAKERS).round().astype(int))]
    speaker_of, clouds = dict(zip(ids, names, strict=True)), {}
    for system in material.systems:
        try:
            clouds[system] = read_some(material.work / "exp" / system / "embeddings_test", speaker_of, chosen)
        except InputError as error:
            yield LeftOut(f"Embeddings of {system}: {error}.")
    if clouds:
        said = SIMULATED if is_simulated(chosen[0]) else ""
        yield Drawn("embeddings",
                    f"Test embeddings of {len(chosen)} speakers in two dimensions, for {len(clouds)} systems",
                    f"Embeddings of {len(chosen)} of {len(speakers)} test speakers, centred and of unit length, on "
                    "their first two principal components (PCA, which does not know the speakers); each colour and "
                    "shape is a speaker.", draw(f"{len(chosen)} test speakers{said}", clouds, chosen), image=True)
