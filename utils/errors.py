"""The error meant for users, and how command-line tools print it."""

import os
import sys
from collections.abc import Callable, Iterable


class InputError(Exception):
    """Bad input: the one-line message names the item, its value and the remedy."""


def first_five(items: Iterable[object]) -> str:
    """Return `a, b, c, d, e and 7 more`, for messages that name faulty items."""
    names = [str(item) for item in items]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def run_main(main: Callable[[], None]) -> None:
    """Run a tool's `main`; turn bad input and I/O failures into one line and exit status 1.

    With VOX_DEBUG=1 in the environment, the traceback is shown instead.
    """
    try:
        main()
    except (InputError, OSError, MemoryError) as error:
        if os.environ.get("VOX_DEBUG"):
            raise
        name = main.__module__
        if name == "__main__":
            name = getattr(sys.modules["__main__"].__spec__, "name", sys.argv[0])
        print(f"{name}: error: {error or type(error).__name__}", file=sys.stderr)
        sys.exit(1)
