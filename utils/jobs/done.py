"""Records of finished steps: options, and fingerprints of inputs and outputs (utils/jobs/fingerprint.py).

`python3 -m utils.jobs.done check RECORD ...` exits with 0 if the record exists and is still valid, otherwise with AGAIN
after printing the reason on standard error; if there is no record, it prints nothing.
`... mark RECORD ...` writes the record at the end of a step. `... begin FOLDER ...` prepares a folder for files that a
running step keeps: if a killed run with the same step, options and inputs left it, it is kept (exit status 0);
otherwise it is created anew, empty (exit status AGAIN). `... status RECORD --report FILE ...` appends a line
`state<TAB>record<TAB>reason` to FILE and writes nothing else; allowed states: done, stale, to do.

If the step must run, `check` and `begin` print the fingerprints of its inputs on standard output, as a line of JSON.
`mark --began` reads these lines and refuses an input that has changed since, because the outputs may have been made
from either state. Only the step's own outputs may change.

A record has two digests: `digest`, of step, options and inputs, decides whether the step must run again; `made`, of
`digest` and the outputs, is the record's own fingerprint when another step has it as input. So a change of an option,
an input or an output reaches every step after it.
"""

import argparse
import glob
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from utils.errors import InputError, run_main
from utils.files import shown, write_aside
from utils.jobs.fingerprint import RECORD, digest, fingerprint, of_content, read_record
from utils.jobs.place import require_place, without_place

AGAIN = 3  # exit status: the step must run; 1 is an error
SPENT = ".seconds"  # file with what stopped runs have spent on a folder


def describe(path: Path, step: str, options: dict[str, str], inputs: list[str]) -> dict[str, Any]:
    """Return the part of the record at `path` that decides whether its step must run again, including its digest."""
    known = {"step": step,
             "options": {name: without_place(value.encode(), path).decode() for name, value in options.items()},
             "inputs": {name: fingerprint(Path(name)) for name in inputs}}
    # Without the inputs' names, because a work folder may be moved.
    text = json.dumps([step, known["options"], list(known["inputs"].values())], sort_keys=True)
    return known | {"digest": digest([text])}


def why_stale(path: Path, now: dict[str, Any]) -> str | None:
    """Return the reason why the step of this record must run again, None if it need not."""
    try:
        then = read_record(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ").partition(";")[0]
    for name, content in then["outputs"].items():
        output = path.parent / name
        if not output.is_file() or of_content(output) != content:
            return f"output {shown(output)} {'is damaged' if output.is_file() else 'is gone'}"
    if then["digest"] == now["digest"]:
        return None
    for name in now["options"] | then["options"]:
        old, new = then["options"].get(name), now["options"].get(name)
        if old != new:
            return f"option {name} was {old!r}, is now {new!r}"
    changed = [name for (name, new), old in zip(now["inputs"].items(), then["inputs"].values(), strict=False)
               if new != old]
    return f"input {shown(changed[0])} changed" if changed else "other inputs"


def mark(path: Path, now: dict[str, Any], outputs: list[Path]) -> None:
    """Write the record of a finished step, and remove temporary files that killed runs left beside its outputs."""
    made = {}
    for output in sorted(outputs):
        if not output.is_file():
            raise InputError(f"{output} is missing at the end of {now['step']}")
        for left in output.parent.glob(f".{glob.escape(output.name)}.????????.tmp"):  # as write_aside names them
            left.unlink(missing_ok=True)
        made[str(output.relative_to(path.parent))] = of_content(output)
    contents = [f"{name} {content}" for name, content in made.items()]
    record = now | {"outputs": made, "made": digest([now["digest"], *contents]), "code": code_version(),
                    "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    with write_aside(path) as stream:
        json.dump(record, stream, indent=1)


def require_unchanged(now: dict[str, Any], began: Iterable[str], outputs: list[Path]) -> None:
    """Raise InputError if an input is not as in the latest of the lines `began` that names it."""
    then: dict[str, str] = {}
    for line in filter(str.strip, began):
        then |= json.loads(line)
    for name, content in now["inputs"].items():
        if then.get(name, content) != content and Path(name) not in outputs:
            raise InputError(f"{shown(Path(name))} changed while {now['step']} ran; run it again")


def begin(folder: Path, now: dict[str, Any]) -> bool:
    """Keep the unfinished work of the same step with the same options and inputs, or create the folder anew.

    Returns whether unfinished work was kept.
    """
    note = folder / ".begun"
    if note.is_file() and note.read_text(encoding="utf-8").strip() == now["digest"]:
        print(f"{shown(folder)}: continuing where a run was stopped", file=sys.stderr)
        spent = seconds_spent(folder)
        with write_aside(folder / SPENT) as stream:
            stream.write(f"{spent}\n")
        return True
    shutil.rmtree(folder, ignore_errors=True)
    with write_aside(note) as stream:
        stream.write(now["digest"] + "\n")
    return False


def seconds_spent(folder: Path) -> int:
    """Return the seconds that stopped runs have spent on the files of a folder, up to the last one that each wrote."""
    since = next(path for path in (folder / SPENT, folder / ".begun") if path.is_file())
    before = int(since.read_text(encoding="utf-8")) if since.name == SPENT else 0
    last = max(path.stat().st_mtime for path in folder.iterdir())
    return before + round(last - since.stat().st_mtime)


def state(path: Path, now: dict[str, Any] | None, reported: Path) -> tuple[str, str]:
    """Return the state of a record and the reason: done, stale, or to do.

    now: the step as it would run, None if an input is missing. reported: the report on the earlier steps; outputs of
    those not done will change.
    """
    if not path.is_file():
        return "to do", ""
    if now is None:
        return "stale", "an input is gone"
    reason = why_stale(path, now)
    if reason:
        return "stale", reason
    before = [line.split("\t") for line in reported.read_text(encoding="utf-8").splitlines()]
    changing = {Path(record) for said, record, *_ in before if said != "done"}
    for name in now["inputs"]:
        item = Path(name)
        if changing & {item, item / RECORD, *item.parent.glob(f"{RECORD}*")} - {path}:
            return "stale", f"input {name} will be made again"
    return "done", ""


def code_version() -> str:
    """Return the commit of this checkout, with `-dirty` if files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("action", choices=("check", "mark", "begin", "status"))
    parser.add_argument("record", type=Path, help="record, or for begin the folder")
    parser.add_argument("--step", required=True)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--inputs", nargs="*", default=[])
    parser.add_argument("--outputs", nargs="*", type=Path)
    parser.add_argument("--began", action="store_true", help="for mark: read the inputs at the step's start from stdin")
    parser.add_argument("--report", type=Path, help="for status: file to append the state to")
    arguments = parser.parse_args()
    path = arguments.record
    options = dict(option.split("=", 1) for option in arguments.option)
    if arguments.action == "status":
        whole = all(Path(name).exists() for name in arguments.inputs)
        now = describe(path, arguments.step, options, arguments.inputs) if whole else None
        with arguments.report.open("a", encoding="utf-8") as stream:
            said, reason = state(path, now, arguments.report)
            stream.write(f"{said}\t{path}\t{reason}\n")
        return
    if arguments.action != "check" or path.is_file():
        require_place(path)
    now = describe(path, arguments.step, options, arguments.inputs)
    if arguments.action == "begin":
        print(json.dumps(now["inputs"]))
        sys.exit(0 if begin(path, now) else AGAIN)
    if arguments.action == "mark":
        outputs = arguments.outputs
        if outputs is None:
            outputs = [f for f in path.parent.iterdir() if f.is_file() and not f.name.startswith(".")]
        if arguments.began:
            require_unchanged(now, sys.stdin, outputs)
        mark(path, now, outputs)
        return
    reason = why_stale(path, now) if path.is_file() else ""
    if reason:
        print(f"{shown(path.parent)}: {arguments.step} runs again: {reason}", file=sys.stderr)
        path.unlink()
    if reason is not None:
        print(json.dumps(now["inputs"]))
        sys.exit(AGAIN)
    step = arguments.step.removesuffix(".sh")
    print(f"{time.strftime('%H:%M:%S')} {step} {shown(path.parent)}: up to date", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
