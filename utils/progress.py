"""Progress of long work: a bar on a terminal, a plain line each 10 % in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int, name: str, unit: str = "utt") -> Iterator[Item]:
    """Yield from `items`, showing how far it is.

    total: the number of items, for the percentage; name: what is being done; unit: of one item.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=name, unit=f" {unit}", file=sys.stderr)
        return
    started, shown = time.monotonic(), 0
    for count, item in enumerate(items, start=1):
        yield item
        tenth = 10 * count // max(total, 1)
        seconds = time.monotonic() - started
        if tenth > shown and seconds > 5:
            left = seconds * (total - count) / count
            print(f"{name}: {count} of {total} {unit} ({10 * tenth} %), "
                  f"{seconds:.0f} s, {left:.0f} s left", file=sys.stderr, flush=True)
        shown = max(shown, tenth)
