"""The live line: on a terminal, shows how many jobs of an array are over and how far the others are. Logs have none.

Jobs write their progress (utils/progress.py) to files beside their logs, named by VOX_PROGRESS, so that it also works
for jobs on other machines.
"""

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from utils.jobs.command_line import Call
from utils.progress import clock

SECONDS = 1.0       # between two updates
CLEAR = "\r\x1b[K"  # return to the start of the line and clear it
TAIL = 1000         # bytes read from the end of a log


class Live:
    """Context manager that draws the line."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.over: set[int] = set()  # finished jobs
        self.shows = sys.stderr.isatty() and not call.dry_run and "VOX_BESIDE" not in os.environ
        self.name = Path(call.log).name.removesuffix(".log").removesuffix(f".{call.variable}")
        self.started = time.monotonic()
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._draw, daemon=True)

    def note_of(self, job: int) -> Path:
        """Return the file to which a job writes its progress."""
        return Path(f"{self.call.log_of(job)}.progress").absolute()

    def variables(self, job: int) -> dict[str, str]:
        """Return the environment variables that a job needs for the line."""
        return {"VOX_PROGRESS": str(self.note_of(job))} if self.shows else {}

    def __enter__(self) -> "Live":
        if self.shows:
            self._remove_notes()
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shows:
            self.ends.set()
            self.thread.join()
            self.clear()
            self._remove_notes()

    def clear(self) -> None:
        """Clear the line for a message; it is drawn again at the next update."""
        if self.shows:
            print(CLEAR, end="", file=sys.stderr, flush=True)

    def _remove_notes(self) -> None:
        for job in self.call.jobs:
            self.note_of(job).unlink(missing_ok=True)

    def _draw(self) -> None:
        while not self.ends.wait(SECONDS):
            with contextlib.suppress(OSError):  # the terminal is gone
                width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
                print(CLEAR + fitting(self.text(), width - 1), end="", file=sys.stderr, flush=True)

    def text(self) -> str:
        """Return the line: `make_feats: 1 of 2 jobs, 60 of 96 utt, 0:12 left`."""
        jobs = self.call.jobs
        notes = [note for note in map(read_note, map(self.note_of, jobs)) if note]
        words = [f"{len(self.over)} of {len(jobs)} jobs"] if len(jobs) > 1 else []
        if len(notes) == len(jobs):
            done, total = (sum(note[key] for note in notes) for key in ("count", "total"))
            words += [f"{done} of {total} {notes[0]['unit']}", f"{clock(max(note['left'] for note in notes))} left"]
        else:
            words.append(clock(time.monotonic() - self.started))
        if len(jobs) == 1:
            words.append(notes[0]["status"] if notes else last_line(Path(self.call.log_of(jobs[0]))))
        return f"         {self.name}: {', '.join(word for word in words if word)}"


def fitting(text: str, width: int) -> str:
    """Return a line without the last of its parts, separated by `, `, that do not fit into `width`."""
    if len(text) <= width:
        return text
    return text[:width + 1].rpartition(", ")[0] or text[:width]


def read_note(path: Path) -> dict[str, Any] | None:
    """Return the progress of a job; None if there is none yet, or the job is just writing it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def last_line(log: Path) -> str:
    """Return the last line in a job's log so far."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line for line in lines if line.strip() and not line.startswith("#")]
    return "".join(letter for letter in said[-1] if letter.isprintable()) if said else ""
