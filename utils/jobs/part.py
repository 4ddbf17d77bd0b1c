"""Which part of the work a job of an array does."""

from utils.errors import InputError


def part_of(count: int, job: int, jobs: int, together: int = 1) -> range:
    """Return the items that job 1..jobs takes of `count`: contiguous, numbers differing by at most one.

    together: items that no job separates, from the first on; jobs then take whole groups of so many.
    """
    if not 1 <= job <= jobs:
        raise InputError(f"job {job} of {jobs}: jobs are counted from 1")
    groups = -(-count // together)
    start, stop = (min(count, together * (groups * number // jobs)) for number in (job - 1, job))
    return range(start, stop)
