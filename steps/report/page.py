"""Write <work>/exp/report.html from the table, the differences and the figures: one file that needs no other.

Style sheet, program and figures are in the file, and its content security policy forbids it to load anything else or to
run any other program. All text comes through Jinja's autoescape, so a name can hold any character.
"""

import argparse
import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from steps.report.differences import LEVEL, Difference, Key, read_differences
from steps.report.results import chains_of, in_every_row, processor, read_rows, score_files, versions
from utils.errors import InputError, run_main
from utils.files import write_aside
from utils.simulated import has_simulated

HERE = Path(__file__).parent
TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
PIXELS = 96      # per inch of a figure, at most
WIDE = 6.0       # inches: wider figures have a row of their own
HEADINGS = (("system", False), ("back-end", False), ("list", False), ("EER", True), ("interval", True), ("", False),
            ("mark", False), ("from the best", True), ("p", True), ("minDCF 0.01", True), ("minDCF 0.05", True),
            ("trials", True), ("training, s", True), ("seed", False), ("scale", False))
UNSORTED = ("interval", "")


def mark(one: Difference) -> str:
    """Return the mark of a system: `best`, `*` if it differs from the best, `=` if the list cannot tell them apart."""
    return "best" if one.system == one.best else "*" if one.p < LEVEL else "="


def table_rows(rows: Iterable[Mapping[str, str]], compared: Mapping[Key, Difference]) -> list[dict[str, Any]]:
    """Return the rows of the page's table, by list, back-end and EER."""
    rows = sorted(rows, key=lambda row: (row["list"], row["backend"], float(row["eer"])))
    ends = [float(row["eer_high"]) if row["eer_high"] != "-" else float(row["eer"]) for row in rows]
    scale = 94 / max(*ends, 1e-9)
    rivals = Counter(key[:2] for key in compared)
    found = []
    for row in rows:
        shown: dict[str, Any] = dict(row) | {"interval": "-", "bar": None, "difference": "-", "difference_value": "",
                                             "p": "-", "p_value": "", "mark": ""}
        if row["eer_low"] != "-":
            shown["interval"] = f"{row['eer_low']} to {row['eer_high']}"
            shown["bar"] = {name: round(3 + scale * float(row[column]), 1)
                            for name, column in (("low", "eer_low"), ("high", "eer_high"), ("eer", "eer"))}
        one = compared.get((row["list"], row["backend"], row["system"]))
        if one and rivals[one.list, one.backend] > 1:
            shown["mark"], shown["difference_value"], shown["p_value"] = mark(one), one.difference, one.p
            if one.system != one.best:
                shown["difference"] = f"{one.difference:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
                shown["p"] = f"{one.p:.3f}"
        found.append(shown)
    return found


def embed(figure: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return an entry of figures.json with what the template needs; raises InputError if the figure's file is gone."""
    path = folder / figure["file"]
    if not path.is_file():
        raise InputError(f"{path} is gone; draw the figures again with steps/figures.sh")
    content = base64.b64encode(path.read_bytes()).decode()
    return {**figure, "source": f"data:{TYPES[path.suffix]};base64,{content}",
            "kind": "line" if path.suffix == ".svg" else "pixels",
            "size": "wide" if figure["width"] > WIDE else "narrow",
            "pixels": [round(PIXELS * figure[side]) for side in ("width", "height")]}


def inline(name: str) -> tuple[Markup, str]:
    """Return the content of a file beside this one, and its hash for the content security policy."""
    text = (HERE / name).read_text(encoding="utf-8")
    return Markup(text), f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render(**values: Any) -> str:
    """Return the page. values: what the template names, without style sheet and program."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    (style, style_hash), (script, script_hash) = inline("page.css"), inline("page.js")
    headings = [{"name": name, "number": number, "sorts": name not in UNSORTED} for name, number in HEADINGS]
    return environment.get_template("page.html").render(
        style=style, style_hash=style_hash, script=script, script_hash=script_hash, headings=headings, level=LEVEL,
        **values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--command", required=True, help="the recipe's command line")
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    exp = arguments.work / "exp"
    files, left_out = score_files(arguments.work)
    drawn = json.loads((exp / "figures/figures.json").read_text(encoding="utf-8"))
    for section in drawn["sections"]:
        section["figures"] = [embed(figure, exp / "figures") for figure in section["figures"]]
    simulated = any(has_simulated(one.trials) for one in files)
    page = render(
        title="Results on simulated speakers: no speech" if simulated else "Results", simulated=simulated,
        command=arguments.command, date=date.today(), versions=versions(), machine=processor(),
        in_every_row=in_every_row(files), rows=table_rows(read_rows(exp / "results.tsv"),
                                                          read_differences(exp / "differences.tsv")),
        kinds="; ".join(chains_of(files)), left_out=left_out, sections=drawn["sections"],
        costs=sorted(drawn["costs"], key=lambda one: -one["seconds"]))
    with write_aside(exp / "report.html") as stream:
        stream.write(page)


if __name__ == "__main__":
    run_main(main)
