"""Launcher for this machine: runs the jobs of one array as local processes, each with its own log.

A log opens with the command and closes with the exit code and the seconds, in the words of Kaldi's
run.pl. All jobs run to their end; if any failed, the logs of the failed are named and the tail of the
first is shown. Interrupting the launcher ends its jobs.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from utils.errors import InputError, first_five, run_main
from utils.launch.command_line import Call, parse_call

TAIL = 20  # lines of a failed job's log that are shown


class LocalJobs:
    """The running jobs of one call."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.threads = call.number("num-threads", 1)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.at_once = call.number("max-jobs-run", max(1, cores // self.threads))
        self.running: set[subprocess.Popen] = set()
        self.lock = threading.Lock()
        self.stopped = False

    def run_all(self) -> list[int]:
        """Run every job; return the numbers of those that failed."""
        jobs = range(self.call.first, self.call.last + 1)
        with ThreadPoolExecutor(self.at_once) as pool:
            codes = list(pool.map(self.run_one, jobs))
        return [job for job, code in zip(jobs, codes, strict=True) if code]

    def run_one(self, job: int) -> int:
        """Run one job to its end and return its exit code."""
        words = self.call.words(job)
        path = Path(self.call.fill(self.call.log, job))
        path.parent.mkdir(parents=True, exist_ok=True)
        limits = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        started = time.time()
        with path.open("w", encoding="utf-8") as log:
            print(f"# {shlex.join(words)}\n# Started at {time.ctime()}\n#", file=log, flush=True)
            try:
                code, peak_mb = self._wait(words, log, limits)
            except OSError as error:
                print(f"{words[0]}: {error}", file=log)
                code, peak_mb = 127, 0
            seconds = round(time.time() - started)
            print(f"# Accounting: time={seconds} threads={self.threads} peak_mb={peak_mb}\n"
                  f"# Ended (code {code}) at {time.ctime()}, elapsed time {seconds} seconds", file=log)
        return code

    def _wait(self, words: list[str], log: IO, limits: dict[str, str]) -> tuple[int, int]:
        """Return exit code and peak resident memory in MB of one command, its children included."""
        with self.lock:
            if self.stopped:
                return 130, 0
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                       env=os.environ | limits, start_new_session=True)
            self.running.add(process)
        _, status, usage = os.wait4(process.pid, 0)
        code = process.returncode = os.waitstatus_to_exitcode(status)
        with self.lock:
            self.running.discard(process)
        peak_mb = usage.ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1 << 10)
        return (code if code >= 0 else 128 - code), peak_mb  # as a shell says it: 137 for signal 9

    def stop(self) -> None:
        """End the running jobs with their children, and start no more."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)


def report(call: Call, failed: list[int]) -> str:
    """Return what is said of failed jobs: how many, which logs, the tail of the first."""
    logs = [call.fill(call.log, job) for job in failed]
    lines = Path(logs[0]).read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
    tail = "\n".join(f"  | {line}" for line in lines)
    return f"{len(failed)} of {call.last - call.first + 1} jobs failed, see {first_five(logs)}\n{tail}"


def main() -> None:
    call = parse_call("run", sys.argv[1:])
    jobs = LocalJobs(call)

    def interrupted(number: int, _frame: object) -> None:
        jobs.stop()
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    failed = jobs.run_all()
    if failed:
        raise InputError(report(call, failed))


if __name__ == "__main__":
    run_main(main)
