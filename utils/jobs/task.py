"""One job of an array: runs its command with a log that starts with the command and ends with an end marker.

The launcher for this machine calls `run_task`; on a cluster `python3 -m utils.jobs.task SPEC NUMBER` runs on the node,
where SPEC is a JSON file from the launcher. Only the end marker, in the format of Kaldi's run.pl, shows that a job is
over: `# Ended (code 0) at ..., elapsed time 12 seconds`. Codes above 128 are 128 plus the signal's number. The line
before it compares the memory that the job took with what the launcher requested for it (--mem).
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

# A remark if less than a quarter of a request is used and more than 1 GB is not: smaller rests keep no other job away.
UNUSED_SHARE, UNUSED_MB = 4, 1024
_UNITS = {"": 1, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}  # of --mem, in MB, as Slurm has them
REQUEUE = 99  # exit code of a job that saved its state and wants to run again; this is not counted as a retry
_END = re.compile(r"# Ended \(code (\d+)\) at .*, elapsed time \d+ seconds")


def run_task(words: list[str], path: Path, threads: int, started: Callable[[subprocess.Popen], None],
             variables: Mapping[str, str] = MappingProxyType({}), memory: str = "", **options: Any) -> int:
    """Run one command with its log; return its exit code.

    memory: that was requested for it, such as 4G; "": none.
    started: called with the process, so that the caller can end it. variables: added to this process's environment.
    options: of Popen; without any, the command stays in this process's group and is killed with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    with path.open("w", encoding="utf-8") as log:
        print(f"# {shlex.join(words)}\n# Running on {os.uname().nodename}\n# Started at {time.ctime()}\n#", file=log,
              flush=True)
        try:
            code, peak_mb = _run(words, log, threads, started, variables, options)
        except OSError as error:
            print(f"{words[0]}: {error}", file=log)
            code, peak_mb = 127, 0
        seconds = round(time.time() - begin)
        print(f"# Accounting: time={seconds} threads={threads} peak_mb={peak_mb}{compared(peak_mb, memory)}\n"
              f"# Ended (code {code}) at {time.ctime()}, elapsed time {seconds} seconds", file=log, flush=True)
    return code


def _run(words: list[str], log: IO, threads: int, started: Callable[[subprocess.Popen], None],
         variables: Mapping[str, str], options: dict[str, Any]) -> tuple[int, int]:
    """Return exit code and peak resident memory in MB of one command, including its children."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                               env={**os.environ, **limits, **variables}, **options)
    started(process)
    _, status, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    peak_mb = usage.ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return (code if code >= 0 else 128 - code), peak_mb  # as in a shell: 137 for signal 9


def megabytes(memory: str) -> float:
    """Return a value of --mem in MB; 0 if only the engine understands it."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", memory.strip().upper())
    return float(found[1]) * _UNITS[found[2]] if found else 0


def compared(peak_mb: int, memory: str) -> str:
    """Return what the accounting line says about a request: its MB, and whether it was far from the peak.

    The peak is that of the largest process, so a job of several may have taken more.
    """
    requested = megabytes(memory)
    if not requested:
        return ""
    said = f" requested_mb={requested:.0f}"
    if peak_mb > requested:
        return f"{said} warning: took more memory than requested"
    unused = requested - peak_mb
    if peak_mb and peak_mb < requested / UNUSED_SHARE and unused > UNUSED_MB:
        return f"{said} remark: {unused / 1024:.1f} GB of the request were not used"
    return said


def warn_above(logs: Sequence[Path]) -> None:
    """Print one line if finished jobs took more memory than was requested for them, with the largest peak."""
    found = [re.search(r"peak_mb=(\d+) requested_mb=\d+ warning:", _end_of(log)) for log in logs]
    peaks = [int(one[1]) for one in found if one]
    if peaks:
        print(f"warning: {len(peaks)} of {len(logs)} jobs took more memory than requested, up to {max(peaks)} MB: see "
              f"{logs[0]}; an engine may end such jobs: request more, with --mem in --cmd", file=sys.stderr)


def ended(path: Path) -> int | None:
    """Return the exit code at the end of a log; None if the job is not over or has no log."""
    lines = _end_of(path).rstrip().splitlines()
    found = _END.fullmatch(lines[-1]) if lines else None
    return int(found[1]) if found else None


def _end_of(path: Path) -> str:
    """Return the last characters of a log; "" if there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 400))
            return stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def describe_code(code: int) -> str:
    """Return an exit code in words: `code 1`, or `signal 9 (SIGKILL)`."""
    if code <= 128:
        return f"code {code}"
    try:
        return f"signal {code - 128} ({signal.Signals(code - 128).name})"
    except ValueError:
        return f"code {code}"


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log, indented."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "  | (no log)"
    return "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    job = spec["jobs"][int(sys.argv[2]) - 1]

    def pass_on(process: subprocess.Popen) -> None:
        # Forward the engine's signals to the command; the end marker is written after it has ended.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
            signal.signal(number, lambda number, _frame: process.send_signal(number))

    code = run_task(job["words"], Path(job["log"]), spec["threads"], pass_on, job["variables"],
                    spec["memory"])
    sys.exit(min(code, 1))  # the code for the engine, which must not requeue the job by itself


if __name__ == "__main__":
    main()
