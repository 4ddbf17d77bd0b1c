"""Draw all figures of a work folder's systems: <out>/<name>.png, .pdf and, of line drawings, .svg.

<out>/figures.json lists them by section, with what the report says about each and the reasons why others are left out,
and the costs of all steps. <out>/attention.tsv has the entropy of each attention head over one utterance.
e.g.: python3 -m steps.report.figures egs/voxceleb egs/voxceleb/exp/figures
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from steps.report import (
    accounting,
    det_curves,
    draw_attention,
    embeddings,
    groups,
    head_entropies,
    histograms,
    pair_attention,
    sizes,
    training_curves,
)
from steps.report.material import Material
from steps.report.plotting import Drawn, LeftOut, save_figure
from utils.errors import run_main
from utils.files import write_aside

SECTIONS: tuple[tuple[str, tuple[ModuleType, ...]], ...] = (
    ("Detection error trade-off", (det_curves,)),
    ("Scores and thresholds", (histograms,)),
    ("Durations, genders, ages", (groups,)),
    ("Parameters against EER", (sizes,)),
    ("Attention", (draw_attention, head_entropies, pair_attention)),
    ("Embeddings", (embeddings,)),
    ("Training", (training_curves,)),
    ("Seconds and memory", (accounting,)),
)


def draw_section(modules: tuple[ModuleType, ...], material: Material, out: Path) -> dict[str, list]:
    """Draw the figures of a section into <out>; return its part of figures.json."""
    section: dict[str, list] = {"figures": [], "left_out": []}
    for found in (one for module in modules for one in drawn_by(module, material)):
        if isinstance(found, LeftOut):
            section["left_out"].append(found.reason)
            continue
        save_figure(found.figure, out / found.name, ("png", "pdf") if found.image else ("png", "pdf", "svg"))
        shown = f"{found.name}.{'png' if found.image else 'svg'}"
        width, height = found.figure.get_size_inches().round(2).tolist()
        section["figures"].append({"file": shown, "alt": found.alt, "caption": found.caption, "width": width,
                                   "height": height})
    return section


def drawn_by(module: ModuleType, material: Material) -> Iterator[Drawn | LeftOut]:
    """Yield the figures of a module; those that come after a missing file are left out."""
    try:
        yield from module.figures(material)
    except FileNotFoundError as error:
        name = module.__name__.rpartition(".")[2].replace("_", " ")
        yield LeftOut(f"{name.capitalize()}: {error.filename} is missing.")


def write_entropies(material: Material, path: Path) -> None:
    """Write the entropy of each head over the utterance that attention is drawn over."""
    with write_aside(path) as stream:
        stream.write("system\tutterance\thead\tentropy\tlog_frames\n")
        for name, one in draw_attention.attend_all(material).items():
            stream.writelines(f"{name}\t{material.utterance}\t{head}\t{value:.4f}\t{np.log(len(one.weights)):.4f}\n"
                              for head, value in enumerate(draw_attention.entropies(one.weights), start=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--utterance", default="", help="utterance of the test set for attention (default: the first)")
    parser.add_argument("--systems", default="", help="systems to draw attention of, by spaces (default: all)")
    parser.add_argument("work", type=Path, help="folder with data/ and exp/")
    parser.add_argument("out", type=Path, help="folder for the figures")
    arguments = parser.parse_args()
    material = Material(arguments.work, arguments.utterance, tuple(arguments.systems.split()))
    found: dict[str, list] = {"costs": [one._asdict() for one in accounting.read_costs(arguments.work)]}
    found["sections"] = [{"title": title} | draw_section(modules, material, arguments.out)
                         for title, modules in SECTIONS]
    write_entropies(material, arguments.out / "attention.tsv")
    with write_aside(arguments.out / "figures.json") as stream:
        json.dump(found, stream, indent=1)


if __name__ == "__main__":
    run_main(main)
