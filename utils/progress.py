"""Progress of long work: a bar on a terminal, a plain line every 10 % in a log.

If VOX_PROGRESS names a file, progress is written there too, for the line that the launcher shows (utils/jobs/live.py).
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
NOTE_SECONDS = 2.0  # between two writes to the file


def clock(seconds: float) -> str:
    """Return a time as text: 0:12, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def progress(items: Iterable[Item], total: int, name: str, unit: str = "utt",
             status: Callable[[], str] = str) -> Iterator[Item]:
    """Yield from `items`, showing the progress.

    total: the number of items, for the percentage; name: of the work; unit: the name of one item;
    status: returns further text to show, called at each update.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm  # as slow to import as all of a launcher

        with tqdm(total=total, desc=name, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True, leave=False) as bar:
            for item in items:
                yield item
                bar.set_postfix_str(status(), refresh=False)
                bar.update()
        return
    note = os.environ.get("VOX_PROGRESS")
    started, shown, noted = time.monotonic(), 0, 0.0
    for count, item in enumerate(items, start=1):
        yield item
        tenth = 10 * count // max(total, 1)
        now = time.monotonic()
        seconds = now - started
        left = seconds * (total - count) / count
        if note and (now - noted > NOTE_SECONDS or count == total):
            noted = now
            with contextlib.suppress(OSError):  # a job must not fail for its progress line
                Path(note).write_text(json.dumps({"count": count, "total": total, "unit": unit, "left": left,
                                                  "status": status()}), encoding="utf-8")
        if tenth > shown and seconds > 5:
            print(f"{name}: {count} of {total} {unit} ({10 * tenth} %), "
                  f"{seconds:.0f} s, {left:.0f} s left{', ' * bool(status())}{status()}", file=sys.stderr, flush=True)
        shown = max(shown, tenth)
