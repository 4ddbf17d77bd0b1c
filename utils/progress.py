"""Progress of long work: a bar on a terminal, a plain line each 10 % in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int, name: str, unit: str = "utt",
             status: Callable[[], str] = str) -> Iterator[Item]:
    """Yield from `items`, showing how far it is.

    total: the number of items, for the percentage; name: what is being done; unit: of one item;
    status: returns what else is to be shown, asked each time that something is.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=name, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.set_postfix_str(status(), refresh=False)
                bar.update()
        return
    started, shown = time.monotonic(), 0
    for count, item in enumerate(items, start=1):
        yield item
        tenth = 10 * count // max(total, 1)
        seconds = time.monotonic() - started
        if tenth > shown and seconds > 5:
            left = seconds * (total - count) / count
            print(f"{name}: {count} of {total} {unit} ({10 * tenth} %), "
                  f"{seconds:.0f} s, {left:.0f} s left{', ' * bool(status())}{status()}", file=sys.stderr, flush=True)
        shown = max(shown, tenth)
