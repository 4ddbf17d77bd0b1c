"""Make the tables in documents anew from the cards of runs (steps/report/card.py), or find those that differ.
Of several documents, those without a table are passed over.

A table stands between two comments; the first names the card, relative to the document, or the cards of runs with
several seeds:

    <!-- table of results/minivox_mini.json -->
    <!-- end of table -->
    <!-- table of results/seed1.json results/seed2.json -->
    <!-- end of table -->

e.g.: python3 -m steps.report.tables README.md egs/voxceleb/RESULTS.md
      python3 -m steps.report.tables --check README.md egs/voxceleb/RESULTS.md
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.errors import InputError, run_main
from utils.files import write_if_changed

TABLE = re.compile(r"(<!-- table of (\S+(?: \S+)*) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


def table_of(card: Mapping[str, Any]) -> str:
    """Return a Markdown table of the EERs with their intervals, a row per system, and a line on their origin."""
    results = {(one["system"], one["backend"], one["list"]): one for one in card["results"]}
    columns = [(backend, name) for backend in dict.fromkeys(one["backend"] for one in card["results"])
               for name in card["lists"]]
    head = ["system", *(f"{backend}, {name}" for backend, name in columns), "seconds of training"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for system, facts in card["systems"].items():
        cells = [cell(results.get((system, *column))) for column in columns]
        seconds = "" if facts["train_seconds"] is None else str(facts["train_seconds"])
        lines.append(f"| {' | '.join([system, *cells, seconds])} |")
    common = [f"{name} {values.pop()}" for name in ("seed", "scale", "code")
              if len(values := {facts[name] for facts in card["systems"].values()}) == 1]
    sizes = ", ".join(f"{name} ({one['trials']:,} trials)" for name, one in card["lists"].items())
    return "\n".join([*lines, "", "EER in %, in brackets its 95 % interval over speakers. "
                      f"{', '.join(common).capitalize()}, of {card['date']}, with {card['versions']} on "
                      f"{card['machine']}. Lists: {sizes}. Back-ends: "
                      f"{'; '.join(card['back_ends'])}.", ""])


def means_of(cards: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of mean EERs over the runs of several cards, with their ranges, and their origin.

    Raises InputError if a system's configuration, or a list, differs between the cards, or two cards are the same.
    """
    if any(card["results"] == other["results"] for number, card in enumerate(cards) for other in cards[:number]):
        raise InputError("two of the cards have the same results: a run counts once; name each card once")
    eers: dict[tuple[str, str, str], list[float]] = {}
    for card in cards:
        for name, one in card["lists"].items():
            if one["sha256"] != cards[0]["lists"].get(name, one)["sha256"]:
                raise InputError(f"the list {name} differs between the cards; name runs on one list")
        for name, facts in card["systems"].items():
            if facts["configuration"] != cards[0]["systems"].get(name, facts)["configuration"]:
                raise InputError(f"the configuration of {name} differs between the cards; name runs of one")
        for one in card["results"]:
            eers.setdefault((one["system"], one["backend"], one["list"]), []).append(one["eer"])
    columns = sorted({(backend, name) for _, backend, name in eers})
    head = ["system", "runs", *(f"{backend}, {name}" for backend, name in columns)]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for system in dict.fromkeys(system for system, _, _ in eers):
        cells = [mean_and_range(eers.get((system, *column), [])) for column in columns]
        runs = max(len(values) for key, values in eers.items() if key[0] == system)
        lines.append(f"| {' | '.join([system, str(runs), *cells])} |")
    seeds = ", ".join(dict.fromkeys(facts["seed"] for card in cards for facts in card["systems"].values()))
    machines = "; ".join(dict.fromkeys(card["machine"] for card in cards))
    codes = ", ".join(dict.fromkeys(facts["code"] for card in cards for facts in card["systems"].values()))
    return "\n".join([*lines, "", f"Mean EER in %, in brackets its range over seeds {seeds}; code {codes}, up to "
                      f"{max(card['date'] for card in cards)}, with {cards[0]['versions']} on {machines}. Back-ends: "
                      f"{'; '.join(cards[0]['back_ends'])}.", ""])


def mean_and_range(values: Sequence[float]) -> str:
    """Return the mean of EERs, and their range if there are several."""
    if not values:
        return ""
    spread = f" ({min(values):.2f}-{max(values):.2f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.2f}{spread}"


def cell(one: Mapping[str, Any] | None) -> str:
    """Return an EER with its interval."""
    if one is None:
        return ""
    interval = "" if one["eer_low"] is None else f" ({one['eer_low']:.2f}-{one['eer_high']:.2f})"
    return f"{one['eer']:.2f}{interval}"


def with_tables(document: Path) -> str:
    """Return a document's text with its tables made anew; raises InputError if it has none, or a card is missing."""
    def made(found: re.Match[str]) -> str:
        paths = [document.parent / name for name in found[2].split()]
        for path in paths:
            if not path.is_file():
                raise InputError(f"{document}: no card {path}; name one relative to the document")
        try:
            cards = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
            table = table_of(cards[0]) if len(cards) == 1 else means_of(cards)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{found[2]}: not a card of steps/table.sh ({error!r})") from error
        return f"{found[1]}\n{table}\n{found[4]}"

    text, number = TABLE.subn(made, document.read_text(encoding="utf-8"))
    if not number:
        raise InputError(f"{document}: no table to make; wanted <!-- table of CARD --> and <!-- end of table -->")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only find tables that differ from their cards")
    parser.add_argument("documents", type=Path, nargs="+")
    arguments = parser.parse_args()
    tabled = [path for path in arguments.documents if TABLE.search(path.read_text(encoding="utf-8"))]
    for document in tabled or arguments.documents:
        text = with_tables(document)
        if not arguments.check:
            write_if_changed(document, text)
        elif text != document.read_text(encoding="utf-8"):
            raise InputError(f"{document}: a table differs from its card; run python3 -m "
                             f"steps.report.tables {document}")


if __name__ == "__main__":
    run_main(main)
