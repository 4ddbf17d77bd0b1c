"""Gender and age of speakers from a corpus's table, as spk2gender and spk2age of the data directories.

    vox1_meta.csv    VoxCeleb1 ID, VGGFace1 ID, Gender, Nationality, Set, separated by tabs
    vox2_meta.csv    VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set
    meta.csv         speaker_id, gender, age, set of minivox and of the simulated corpus (without age), by tabs

The recipe does not need them; the report groups its trials by them.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from utils.files import write_aside

FILES = ("vox1_meta.csv", "vox2_meta.csv", "meta.csv")
PATTERNS = {"gender": "[fm]", "age": r"\d{1,3}"}  # of the values of each column; other values are left out
Tables = dict[str, dict[str, str]]  # by name, gender or age: speaker -> value


def read_speakers(path: Path) -> Tables:
    """Return what a table says about its speakers; nothing if it has no column gender or age."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    header, *rows = ([cell.strip() for cell in re.split("[\t,]", line)] for line in lines)
    places = {name: place for place, cell in enumerate(header) if place and (name := cell.lower()) in PATTERNS}
    return {name: {row[0]: row[place] for row in rows if len(row) > place and re.fullmatch(PATTERNS[name], row[place])}
            for name, place in places.items()}


def write_speakers(data: Path, speakers: Iterable[str], known: Mapping[str, Mapping[str, str]]) -> None:
    """Write spk2gender and spk2age of a data directory's speakers, as far as known, or remove them."""
    ordered = sorted(set(speakers))
    for name in PATTERNS:
        table, path = known.get(name, {}), data / f"spk2{name}"
        lines = [f"{speaker} {table[speaker]}\n" for speaker in ordered if speaker in table]
        if lines:
            with write_aside(path) as stream:
                stream.writelines(lines)
        else:
            path.unlink(missing_ok=True)
