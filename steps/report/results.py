"""Collect the scores of all systems into <work>/exp/results.tsv and the table in <work>/exp/RESULTS.md.

The differences from the best system of each list and back-end are written to <work>/exp/differences.tsv, and all of it
with configurations, lists and machine to <work>/exp/card.json (steps/report/card.py).
"""

import argparse
import json
import os
import platform
import sys
from collections import Counter
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steps.backend.chain import WORDS
from steps.report.card import card_of
from steps.report.differences import Difference, differences
from steps.report.provenance import Origin, Provenance
from utils.bootstrap import equal_error_rates, interval
from utils.errors import InputError, run_main
from utils.files import write_aside
from utils.jobs.fingerprint import RECORD, read_record
from utils.labelled_scores import read_labelled_scores, read_scores_with_speakers
from utils.metrics import measure
from utils.simulated import has_simulated

COLUMNS = ("system", "backend", "list", "trials", "targets", "eer", "eer_low", "eer_high", "mindcf01", "mindcf05",
           "mindcf01_unnormalised", "train_seconds", *Origin._fields)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a results.tsv; raises InputError if it has other columns, or a line is cut off."""
    header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if header.split("\t") != list(COLUMNS):
        raise InputError(f"{path}: begins with {header[:60]!r}, wanted the columns {' '.join(COLUMNS)}; make it again "
                         "with steps/table.sh")
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(COLUMNS):
            raise InputError(f"{path}: line {number} has {len(row)} columns, wanted {len(COLUMNS)}; make it again with "
                             "steps/table.sh")
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


class Scores(NamedTuple):
    """A file of scores, <work>/exp/<system>/scores_<set>/<list>.<backend>, with its list and its origin."""

    list: str
    system: str
    backend: str
    path: Path
    trials: Path
    origin: Origin


def score_files(work: Path) -> tuple[list[Scores], list[str]]:
    """Return the valid scores, sorted, and one line for each reason why others are left out.

    Raises InputError if no score file is valid.
    """
    provenance, found, left_out = Provenance(work), [], Counter()
    for path in sorted(work.glob("exp/*/scores_*/*.*")):
        if path.name.startswith("."):
            continue
        system, data, (name, backend) = path.parts[-3], path.parts[-2].removeprefix("scores_"), path.name.rsplit(".", 1)
        trials = work / "data" / data / "trials" / name
        origin = provenance.of_scores(path) if trials.is_file() else f"the list {trials.relative_to(work)} is gone"
        if isinstance(origin, str):
            left_out[system, origin] += 1
        else:
            found.append(Scores(name, system, backend, path, trials, origin))
    lines = [f"left out: {system}, {number} file{'s' if number > 1 else ''} of scores: {reason}"
             for (system, reason), number in left_out.items()]
    if not found:
        raise InputError("; ".join([f"no valid scores under {work}/exp", *lines, "run the stages before this one"]))
    return sorted(found), lines


def collect(files: list[Scores]) -> tuple[list[tuple[str, ...]], list[Difference]]:
    """Return one row of COLUMNS per file of scores, and the differences from the best of each list and back-end."""
    rows, eers, replicates = [], {}, {}
    for one in files:
        found, drawn = measure(*read_labelled_scores(one.trials, one.path)), draw_speakers(one)
        key = one.list, one.backend, one.system
        eers[key] = found.eer
        if drawn is not None:
            replicates[key] = drawn
        low, high = ("-", "-") if drawn is None else (f"{end:.2f}" for end in interval(drawn))
        seconds = one.path.parents[1] / "train_seconds"
        took = f"{float(seconds.read_text()):.0f}" if seconds.is_file() else "-"
        rows.append((one.system, one.backend, one.list, str(found.trials), str(found.targets), f"{found.eer:.3f}",
                     low, high, f"{found.mindcf01:.4f}", f"{found.mindcf05:.4f}",
                     f"{found.mindcf01_unnormalised:.5f}", took, *one.origin))
    return rows, differences(eers, replicates)


def draw_speakers(one: Scores) -> np.ndarray | None:
    """Return the EERs (%) of the draws of speakers; None, with a remark, if the list's speakers are unknown."""
    try:
        scored = read_scores_with_speakers(one.trials, one.path, one.trials.parents[1] / "utt2spk")
        return equal_error_rates(scored)
    except (InputError, OSError) as error:
        print(f"no interval over speakers for {one.path}: {error}", file=sys.stderr)
        return None


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table with aligned columns, numbers to the right."""
    table = [COLUMNS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    def line(row: tuple[str, ...]) -> str:
        cells = [cell.ljust(width) if column < 3 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True))]
        return f"| {' | '.join(cells)} |"
    rule = [f"{'-' * (width + 1)}{'-' if column < 3 else ':'}" for column, width in enumerate(widths)]
    return "\n".join([line(COLUMNS), f"|{'|'.join(rule)}|", *map(line, rows)])


def versions() -> str:
    """Return the versions of Python and of the packages that compute."""
    packages = (f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "kaldi-native-fbank"))
    return ", ".join([f"Python {platform.python_version()}", *packages])


def processor() -> str:
    """Return the model of the processor and the number of its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def in_every_row(files: list[Scores]) -> str:
    """Return a sentence with the seed, scale and code that all rows have in common."""
    values = {name: {getattr(one.origin, name) for one in files} for name in Origin._fields}
    common = [f"{name} {found.pop()}" for name, found in values.items() if len(found) == 1 and "-" not in found]
    return f" In every row: {', '.join(common)}." if common else ""


def chains_of(files: list[Scores]) -> list[str]:
    """Return a line for each back-end with the words of its chain, and the systems where chains of a name differ; then
    one for each fusion."""
    systems: dict[tuple[str, str], list[str]] = {}
    fusions: dict[str, None] = {}
    for one in files:
        fused = one.path.parent / f"calibration/{one.path.name}.json"
        if fused.is_file():
            names = [Path(path).parents[1].name for path in json.loads(fused.read_text(encoding="utf-8"))["systems"]]
            line = f"{one.system}: the weighted sum of the scores of {', '.join(names)}, fitted on held-out speakers"
            fusions[line] = None
            continue
        words = words_of(one.path)
        names = systems.setdefault((one.backend, words), [])
        names.extend([one.system] * (one.system not in names))
    several = Counter(backend for backend, _ in systems)
    return [f"{backend}: {words}" + (f" ({', '.join(names)})" if several[backend] > 1 else "")
            for (backend, words), names in sorted(systems.items())] + list(fusions)


def words_of(scores: Path) -> str:
    """Return what the scores in a file are, by its record: the words of their chain, or a phrase."""
    record = read_record(scores.with_name(f"{RECORD}.{scores.name}"))
    options, inputs = record["options"], list(Provenance(scores.parents[3]).paths(record["inputs"]).values())
    if record["step"] == "score_segments.sh":
        made = read_record(inputs[2] / RECORD)["options"]
        number = int(made["segments"])
        return f"the mean cosine of the {number * number} pairs of {number} segments of {made['segment_frames']} frames"
    if record["step"] not in ("score.sh", "normalise_scores.sh"):
        return f"made by {record['step']}"
    words = options["chain"] or (inputs[0] / WORDS).read_text(encoding="utf-8").strip()
    return words if record["step"] == "score.sh" else f"{words}, normalised ({options['kind']}) with {inputs[2].name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--command", required=True, help="the recipe's command line")
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    files, left_out = score_files(arguments.work)
    print(*left_out, sep="\n", end="\n" * bool(left_out), file=sys.stderr)
    rows, compared = collect(files)
    with write_aside(arguments.work / "exp/results.tsv") as stream:
        stream.writelines("\t".join(row) + "\n" for row in [COLUMNS, *rows])
    with write_aside(arguments.work / "exp/differences.tsv") as stream:
        stream.writelines("\t".join(row) + "\n" for row in [Difference._fields, *(one.cells() for one in compared)])
    card = card_of(arguments.command, versions(), processor(), arguments.work / "exp",
                   {one.list: one.trials for one in files}, [dict(zip(COLUMNS, row, strict=True)) for row in rows],
                   chains_of(files))
    with write_aside(arguments.work / "exp/card.json") as stream:
        stream.write(json.dumps(card, indent=1) + "\n")
    table = aligned(rows)
    simulated = any(has_simulated(one.trials) for one in files)
    heading = "# Results on simulated speakers: no speech" if simulated else "# Results"
    with write_aside(arguments.work / "exp/RESULTS.md") as stream:
        stream.write(f"{heading}\n\n    {arguments.command}\n\nwrote this table on {date.today()} with {versions()} on "
                     f"{processor()}.{in_every_row(files)}\n\n"
                     "EER in %, interpolated where misses and false alarms cross; eer_low to eer_high is its 95 % "
                     "interval over the\nspeakers of the list (utils/bootstrap.py); minDCF at P_target 0.01 and 0.05, "
                     "divided by min(P, 1 - P)\nunless called unnormalised. Back-ends (steps/backend/__init__.py):\n\n"
                     f"{''.join(f'- {line}{chr(10)}' for line in chains_of(files))}\n"
                     "Seed: of the model's training; code: of all steps that a row comes from.\n\n"
                     f"{table}\n{''.join(f'{chr(10)}{line}{chr(10)}' for line in left_out)}")
    print(f"{heading}\n\n{table}" if simulated else table, file=sys.stdout)


if __name__ == "__main__":
    run_main(main)
