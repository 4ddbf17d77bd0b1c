"""Print a table of equal error rates over several runs: mean and range of each system.

One row per system, one column per back-end and list; rows are sorted by the first column, best first. The held-out
speakers' EERs (exp/<system>/calibration.json) come before those of the lists: choose systems and back-ends by them.
"""

import argparse
import json
from pathlib import Path

from steps.report.results import read_rows
from utils.errors import InputError, run_main

HELD_OUT = "held out"
Rates = dict[str, dict[tuple[str, str], list[float]]]  # by system, then by back-end and list


def read_rates(paths: list[Path]) -> Rates:
    """Return the EERs in files results.tsv, in %.

    Raises InputError on a file of another format or named twice, and on a system whose scale differs between files.
    """
    rates: Rates = {}
    scales: dict[str, tuple[str, Path]] = {}
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(f"{' '.join(map(str, paths))}: one file is named twice; name each run once")
    for path in paths:
        if not path.is_file():
            raise InputError(f"no file {path}; steps/table.sh makes it")
        rows = read_rows(path)
        for row in rows:
            try:
                eer = float(row["eer"])
            except ValueError as error:
                raise InputError(f"{path}: the eer of {row['system']} is {row['eer']!r}; make it again") from error
            scale, first = scales.setdefault(row["system"], (row["scale"], path))
            if row["scale"] != scale:
                raise InputError(f"{row['system']} is of scale {scale} in {first} and {row['scale']} in {path}; "
                                 "compare runs of one scale")
            rates.setdefault(row["system"], {}).setdefault((row["backend"], row["list"]), []).append(eer)
        for system in {row["system"] for row in rows}:
            for backend, held_out in held_out_rates(path.parent / system / "calibration.json").items():
                rates[system].setdefault((backend, HELD_OUT), []).append(held_out)
    return rates


def held_out_rates(path: Path) -> dict[str, float]:
    """Return a system's EER on the held-out speakers by back-end, or no entries if the file does not exist."""
    if not path.is_file():
        return {}
    try:
        return {backend: float(found["eer"]) for backend, found in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged: {error}; make it again with steps/train_calibration.sh") from error


def cell(values: list[float] | None) -> str:
    """Return the mean and, for several values, the range."""
    if not values:
        return ""
    mean = f"{sum(values) / len(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f}-{max(values):.2f})"


def table(rates: Rates, systems: list[str]) -> str:
    """Return the Markdown table of these systems, in this order; if none is named, of all, best first."""
    for name in systems:
        if name not in rates:
            raise InputError(f"no results of {name!r}; available: {', '.join(sorted(rates))}")
    columns = sorted({column for name in systems or rates for column in rates[name]},  # cosine comes first
                     key=lambda column: (column[0], column[1] != HELD_OUT, column[1]))

    def rank(name: str) -> tuple[bool, float]:
        values = rates[name].get(columns[0])
        return values is None, sum(values) / len(values) if values else 0.0

    rows = [["system", "runs", *(f"{backend}, {trials}" for backend, trials in columns)]]
    rows.extend([name, str(max(map(len, rates[name].values()))), *(cell(rates[name].get(column)) for column in columns)]
                for name in systems or sorted(rates, key=rank))
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = [" | ".join(value.rjust(width) if index else value.ljust(width)
                        for index, (value, width) in enumerate(zip(row, widths, strict=True))) for row in rows]
    rule = "|".join("-" * (width + 1) + (":" if index else "-") for index, width in enumerate(widths))
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--systems", default="", help="separated by spaces, in this order (default: all, best first)")
    parser.add_argument("results", type=Path, nargs="+", help="exp/results.tsv of each run")
    arguments = parser.parse_args()
    print(table(read_rates(arguments.results), arguments.systems.split()))


if __name__ == "__main__":
    run_main(main)
