"""The error meant for users, and how command-line tools print it."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterable


class InputError(Exception):
    """Bad input: the one-line message names the item, its value and the remedy."""


def first_five(items: Iterable[object]) -> str:
    """Return `a, b, c, d, e and 7 more`, for messages that name faulty items."""
    names = [str(item) for item in items]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def reader_has_gone() -> bool:
    """Return whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def drop_what_cannot_be_written() -> None:
    """Drop what is buffered for standard output if it cannot be written, so that the interpreter does not try again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_main(main: Callable[[], None]) -> None:
    """Run a tool's `main`; turn bad input and I/O failures into one line and exit status 1.

    With VOX_DEBUG=1 in the environment, the traceback is shown instead. A reader that has had enough of the output,
    such as `head`, ends the tool without a word, with the status of a program that SIGPIPE ends, 141.
    """
    try:
        main()
        sys.stdout.flush()  # so that a full disk is noticed here, not by the interpreter as it exits
    except (InputError, OSError, MemoryError) as error:
        gone = isinstance(error, BrokenPipeError) and reader_has_gone()
        drop_what_cannot_be_written()
        if gone:
            sys.exit(128 + signal.SIGPIPE)
        if os.environ.get("VOX_DEBUG"):
            raise
        name = main.__module__
        if name == "__main__":
            name = getattr(sys.modules["__main__"].__spec__, "name", sys.argv[0])
        print(f"{name}: error: {error or type(error).__name__}", file=sys.stderr)
        sys.exit(1)
