"""What a launcher says of jobs that failed."""

import re
from pathlib import Path

from utils.errors import first_five
from utils.jobs.command_line import Call
from utils.jobs.task import describe_code, tail


def failure(call: Call, failed: dict[int, int | str]) -> str:
    """Return one message: how many jobs, each one's number, node and end, which logs, the tail of the first.

    failed: for each job its exit code, or in words how it vanished.
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
    """Return the node that a log names."""
    try:
        with log.open(encoding="utf-8", errors="replace") as stream:
            found = re.search(r"^# Running on (\S+)$", stream.read(1 << 16), re.MULTILINE)
    except FileNotFoundError:
        return None
    return found[1] if found else None
