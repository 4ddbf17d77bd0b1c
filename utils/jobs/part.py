"""Which part of the work a job of an array does."""

from utils.errors import InputError


def part_of(count: int, job: int, jobs: int) -> range:
    """Return the items that job 1..jobs takes of `count`: contiguous, numbers differing by at most one."""
    if not 1 <= job <= jobs:
        raise InputError(f"job {job} of {jobs}: jobs are counted from 1")
    return range((job - 1) * count // jobs, job * count // jobs)
