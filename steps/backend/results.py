"""Collect the scores of all systems into <work>/exp/results.tsv and the table in <work>/exp/RESULTS.md."""

import argparse
import os
import platform
import sys
from datetime import date
from importlib import metadata
from pathlib import Path

from steps.backend.metrics import measure, read_labelled_scores
from utils.done import code_version
from utils.errors import InputError, run_main
from utils.files import write_aside
from utils.simulated import has_simulated

COLUMNS = ("system", "backend", "list", "trials", "targets", "eer", "mindcf01", "mindcf05", "mindcf01_unnormalised",
           "train_seconds")


def score_files(work: Path) -> list[tuple[str, str, str, Path, Path]]:
    """Return (system, back-end, list, scores, trials) of each exp/<system>/scores_<set>/<list>.<backend>, sorted."""
    found = []
    for scores in sorted(work.glob("exp/*/scores_*/*.*")):
        if scores.name.startswith("."):
            continue
        system, data, (name, backend) = scores.parts[-3], scores.parts[-2].removeprefix("scores_"), (
            scores.name.rsplit(".", 1))
        trials = work / "data" / data / "trials" / name
        if not trials.is_file():
            raise InputError(f"{scores}: no list {trials}; delete the scores or prepare the list again")
        found.append((system, backend, name, scores, trials))
    return sorted(found, key=lambda one: (one[2], one[0], one[1]))


def collect(work: Path) -> list[tuple[str, ...]]:
    """Return a row of COLUMNS for each file of scores, sorted by list, system and back-end."""
    rows = []
    for system, backend, name, scores, trials in score_files(work):
        found = measure(*read_labelled_scores(trials, scores))
        seconds = scores.parents[1] / "train_seconds"
        took = f"{float(seconds.read_text()):.0f}" if seconds.is_file() else "-"
        rows.append((system, backend, name, str(found.trials), str(found.targets), f"{found.eer:.3f}",
                     f"{found.mindcf01:.4f}", f"{found.mindcf05:.4f}", f"{found.mindcf01_unnormalised:.5f}", took))
    if not rows:
        raise InputError(f"no scores under {work}/exp; run the stages before this one")
    return rows


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table whose columns line up; numbers to the right."""
    table = [COLUMNS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    def line(row: tuple[str, ...]) -> str:
        cells = [cell.ljust(width) if column < 3 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True))]
        return f"| {' | '.join(cells)} |"
    rule = [f"{'-' * (width + 1)}{'-' if column < 3 else ':'}" for column, width in enumerate(widths)]
    return "\n".join([line(COLUMNS), f"|{'|'.join(rule)}|", *map(line, rows)])


def processor() -> str:
    """Return the model of the processor and the number of its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--command", required=True, help="the recipe's command line")
    parser.add_argument("--seed", required=True)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    rows = collect(arguments.work)
    with write_aside(arguments.work / "exp/results.tsv") as stream:
        stream.writelines("\t".join(row) + "\n" for row in [COLUMNS, *rows])
    table = aligned(rows)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "kaldi-native-fbank"))
    simulated = any(has_simulated(trials) for *_, trials in score_files(arguments.work))
    heading = "# Results on simulated speakers: no speech" if simulated else "# Results"
    with write_aside(arguments.work / "exp/RESULTS.md") as stream:
        stream.write(f"{heading}\n\n    {arguments.command}\n\n{date.today()}, seed {arguments.seed}, code "
                     f"{code_version()}, Python {platform.python_version()}, {versions}, {processor()}.\n\n"
                     "EER in %, interpolated where misses and false alarms cross; minDCF at P_target 0.01 and 0.05, "
                     "divided by min(P, 1 - P)\nunless called unnormalised. Cosine scores are of centred embeddings; "
                     "plda is LDA, length normalisation, PLDA;\nsegments is the mean cosine of the 100 pairs of ten "
                     "segments of 3.5 s.\n\n"
                     f"{table}\n")
    print(f"{heading}\n\n{table}" if simulated else table, file=sys.stdout)


if __name__ == "__main__":
    run_main(main)
