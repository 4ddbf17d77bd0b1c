"""Divide work among the jobs of an array."""

from utils.errors import InputError


def part_of(count: int, job: int, jobs: int, together: int = 1) -> range:
    """Return the items of `count` that a job (1..jobs) takes: contiguous, with sizes that differ by at most one.

    together: size of groups of consecutive items that stay in one job; jobs then take whole groups.
    """
    if not 1 <= job <= jobs:
        raise InputError(f"job {job} of {jobs}: jobs are counted from 1")
    groups = -(-count // together)
    start, stop = (min(count, together * (groups * number // jobs)) for number in (job - 1, job))
    return range(start, stop)
