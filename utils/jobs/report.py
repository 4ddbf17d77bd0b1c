"""A launcher's message about failed jobs."""

import re
from pathlib import Path

from utils.errors import first_five
from utils.jobs.command_line import Call
from utils.jobs.task import describe_code, tail


def failure(call: Call, failed: dict[int, int | str]) -> str:
    """Return a message with the number of failed jobs, their logs, nodes and ends, and the tail of the first log.

    failed: the exit code of each job, or a text that says how it vanished.
    """
    ends = []
    for job, end in failed.items():
        node = node_of(Path(call.log_of(job)))
        said = describe_code(end) if isinstance(end, int) else end
        ends.append(f"job {job}{f' on {node}' if node else ''}: {said}")
    first = call.log_of(next(iter(failed)))
    return (f"{len(failed)} of {len(call.jobs)} jobs failed, see {first_five(map(call.log_of, failed))}: "
            f"{first_five(ends)}\n{tail(Path(first))}")


def node_of(log: Path) -> str | None:
    """Return the node named in a log, or None."""
    try:
        with log.open(encoding="utf-8", errors="replace") as stream:
            found = re.search(r"^# Running on (\S+)$", stream.read(1 << 16), re.MULTILINE)
    except FileNotFoundError:
        return None
    return found[1] if found else None
