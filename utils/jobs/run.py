"""Launcher for this machine: runs the jobs of one array as local processes, each with its own log.

All jobs run to their end; those ended by a signal run once more (--retries). If any fail, the message names them and
shows the tail of the first one's log. Interrupting the launcher ends its jobs. With --gpu n each job gets n GPUs for
itself through CUDA_VISIBLE_DEVICES, from those that this variable names or else from all that nvidia-smi lists.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from utils.errors import InputError, run_main
from utils.jobs.command_line import Call, parse_call
from utils.jobs.live import Live
from utils.jobs.lock import descriptors, join, require_held
from utils.jobs.report import failure
from utils.jobs.task import REQUEUE, run_task, warn_above


def visible_gpus() -> list[str]:
    """Return the names for CUDA_VISIBLE_DEVICES of the GPUs that jobs may use; none if they cannot be listed."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        words = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        try:
            named = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
        except (OSError, subprocess.SubprocessError):
            return []
    gpus = [name.strip() for name in named.replace(",", "\n").splitlines() if name.strip()]
    return gpus[:gpus.index("-1")] if "-1" in gpus else gpus  # GPUs after it are hidden


class LocalJobs:
    """The running jobs of one call."""

    def __init__(self, call: Call) -> None:
        self.call, self.live = call, Live(call)
        self.threads = call.number("num-threads", 1)
        self.retries = call.number("retries", 1)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.at_once = call.number("max-jobs-run", max(1, cores // self.threads))
        self.each = call.number("gpu", 0)
        self.gpus = visible_gpus() if self.each else []  # not in use by a job
        if self.each:
            if 0 < len(self.gpus) < self.each:
                raise InputError(f"run: --gpu {self.each}: only {len(self.gpus)} GPUs are available "
                                 f"({', '.join(self.gpus)}); ask for fewer")
            self.at_once = min(self.at_once, max(1, len(self.gpus) // self.each))
        self.running: set[subprocess.Popen] = set()
        self.lock = threading.Lock()
        self.stopped = False

    def run_all(self) -> dict[int, int]:
        """Run every job; return the exit codes of those that failed."""
        with self.live, ThreadPoolExecutor(self.at_once) as pool:
            codes = dict(zip(self.call.jobs, pool.map(self.run_one, self.call.jobs), strict=True))
        return {job: code for job, code in codes.items() if code}

    def run_one(self, job: int) -> int:
        """Run one job, again if a signal ended it, and return its exit code."""
        left = self.retries
        with self._some_gpus() as variables:
            while not self.stopped:
                code = run_task(self.call.words(job), Path(self.call.log_of(job)), self.threads, self._started,
                                variables | self.live.variables(job), self.call.options.get("mem", ""),
                                start_new_session=True, pass_fds=descriptors())
                if code != REQUEUE and (code <= 128 or not left):
                    self.live.over.add(job)
                    return code
                left -= code != REQUEUE
        return 130

    @contextlib.contextmanager
    def _some_gpus(self) -> Iterator[dict[str, str]]:
        """Give a job its GPUs, as environment variables. The number of simultaneous jobs is limited by the GPUs."""
        with self.lock:
            mine, self.gpus = self.gpus[:self.each], self.gpus[self.each:]
        try:
            yield {"CUDA_VISIBLE_DEVICES": ",".join(mine)} if mine else {}
        finally:
            with self.lock:
                self.gpus = mine + self.gpus

    def _started(self, process: subprocess.Popen) -> None:
        join(process.pid)
        with self.lock:
            self.running = {other for other in self.running if other.returncode is None} | {process}
            if self.stopped:
                self._end(process)

    def stop(self) -> None:
        """End the running jobs with their children, and start no more."""
        self.stopped = True
        for process in list(self.running):
            self._end(process)

    def _end(self, process: subprocess.Popen) -> None:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def main() -> None:
    call = parse_call("run", sys.argv[1:])
    if call.dry_run:
        options = [word for name, value in call.options.items() for word in (f"--{name}", value)]
        print(shlex.join(["run", *options, f"JOB={call.first}:{call.last}", call.log]))
        return
    jobs = LocalJobs(call)

    def interrupted(number: int, _frame: object) -> None:
        jobs.stop()
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    require_held()
    join(os.getpid())
    failed = jobs.run_all()
    warn_above([Path(call.log_of(job)) for job in call.jobs])
    if failed:
        raise InputError(failure(call, failed))


if __name__ == "__main__":
    run_main(main)
