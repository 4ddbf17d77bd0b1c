"""The card of a run: one JSON file with what was measured, on which lists, with which configurations, code and machine.

steps/report/tables.py makes tables from cards that are kept.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from utils.jobs.fingerprint import of_content
from utils.strict_yaml import read_yaml

NUMBERS = ("eer", "eer_low", "eer_high", "mindcf01", "mindcf05")


def codes_of(rows: Sequence[Mapping[str, str]], system: str) -> str:
    """Return the versions of the code that made any row of a system, each once, joined by +."""
    return "+".join(dict.fromkeys(one for row in rows if row["system"] == system for one in row["code"].split("+")))


def card_of(command: str, versions: str, machine: str, exp: Path, lists: Mapping[str, Path],
            rows: Sequence[Mapping[str, str]], chains: Sequence[str]) -> dict[str, Any]:
    """Return the card of rows of results.tsv. lists: the trial list of each name; exp: the folder of the systems."""
    systems: dict[str, Any] = {}
    for row in rows:
        if row["system"] not in systems:
            configuration = exp / row["system"] / "system.yaml"
            systems[row["system"]] = {
                **{name: row[name] for name in ("seed", "scale")}, "code": codes_of(rows, row["system"]),
                "train_seconds": None if row["train_seconds"] == "-" else int(row["train_seconds"]),
                "configuration": read_yaml(configuration) if configuration.is_file() else None}
    return {"command": command, "date": str(date.today()), "versions": versions, "machine": machine,
            "lists": {name: {"trials": int(next(row["trials"] for row in rows if row["list"] == name)),
                             "targets": int(next(row["targets"] for row in rows if row["list"] == name)),
                             "sha256": of_content(path)} for name, path in lists.items()},
            "back_ends": list(chains), "systems": systems,
            "results": [{**{name: row[name] for name in ("system", "backend", "list")},
                         **{name: None if row[name] == "-" else float(row[name]) for name in NUMBERS}}
                        for row in rows]}
