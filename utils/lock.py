"""The lock of a work folder, so that two runs do not write the same files: `<work>/.lock`, JSON.

`python3 -m utils.lock take WORK PID RUN` takes it for a process, or says who holds it and exits with 1. The holder
touches the file every 20 seconds (utils/recipe.sh does). A lock is left over, and taken, when its process is gone on
this host, or when on another host it was not touched for STALE_SECONDS by the clock of the file system.
RUN is what all processes of a run have in their environment as VOX_RUN: what a run that was killed left behind on this
host is ended before another begins, and by `release`, so that it writes no more.
"""

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from utils.errors import InputError, run_main

STALE_SECONDS = 120.0


def started_at(pid: int) -> str:
    """Return when a process started, as the kernel counts; empty where it is gone or /proc is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def is_alive(holder: dict[str, Any]) -> bool:
    """Return whether the process of a lock on this host still runs, and is not another with its number."""
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return started_at(holder["pid"]) == holder["started"]


def age(path: Path) -> float:
    """Return the seconds since a file was touched, both times by the clock of its file system."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock.") as now:
        return os.stat(now.name).st_mtime - path.stat().st_mtime


def left_behind(run: str) -> list[int]:
    """Return the processes on this host, other than this one, that have VOX_RUN=run in their environment."""
    wanted, found = f"VOX_RUN={run}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if int(path.parent.name) != os.getpid() and wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # gone, or somebody else's
            continue
    return found


def end_left_behind(run: str) -> None:
    """End the processes of a run; those that take no notice for 10 seconds are killed."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        processes = left_behind(run)
        if processes:
            print(f"{len(processes)} processes that a run left behind are ended", file=sys.stderr)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        deadline = time.monotonic() + seconds
        while left_behind(run) and time.monotonic() < deadline:
            time.sleep(0.1)


def read_holder(path: Path) -> dict[str, Any] | None:
    """Return what a lock says; None when it is gone or damaged."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        words = [holder[name] for name in ("host", "started", "since", "run")]
        whole = type(holder["pid"]) is int and holder["pid"] > 0 and all(isinstance(word, str) for word in words)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return holder if whole else None


def take(work: Path, pid: int, run: str) -> None:
    """Take the lock for a process; raises InputError when another holds it."""
    # One at a time: of two that find the same lock left over, the later would remove the lock of the earlier. The file
    # stays, since removing it would let two have turns; a folder itself cannot be locked on network disks.
    with (work / ".lock.taking").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _take(work / ".lock", pid, run)


def _take(path: Path, pid: int, run: str) -> None:
    work = path.parent
    mine: dict[str, Any] = {"host": socket.gethostname(), "pid": pid, "started": started_at(pid),
                            "since": time.strftime("%F %T"), "run": run}
    for _ in range(3):
        handle, name = tempfile.mkstemp(prefix=".lock.", dir=work)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(mine, stream)
        try:
            os.link(name, path)  # fails when the lock is there; whole as soon as it exists, on network disks too
            return
        except FileExistsError:
            pass
        finally:
            os.unlink(name)
        try:
            old = age(path)
        except FileNotFoundError:  # given back meanwhile
            continue
        holder = read_holder(path)
        here = holder is not None and holder["host"] == mine["host"]
        if holder is not None and (is_alive(holder) if here else old < STALE_SECONDS):
            raise InputError(f"{work} is in use by process {holder['pid']} on {holder['host']} since "
                             f"{holder['since']}; wait for it, or name another folder with --work (if that run is "
                             f"surely dead: rm {path})")
        who = f"process {holder['pid']} on {holder['host']}, which is gone" if holder else "nobody knows whom"
        print(f"{path}: left by {who}; taken over", file=sys.stderr)
        if here:
            end_left_behind(holder["run"])
        path.unlink(missing_ok=True)
    raise InputError(f"{path}: other runs keep taking it; try again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("action", choices=("take", "release"))
    parser.add_argument("work", type=Path)
    parser.add_argument("pid", type=int)
    parser.add_argument("run")
    arguments = parser.parse_args()
    if arguments.action == "take":
        take(arguments.work, arguments.pid, arguments.run)
        return
    end_left_behind(arguments.run)
    holder = read_holder(arguments.work / ".lock")
    if holder is not None and holder["run"] == arguments.run:
        (arguments.work / ".lock").unlink(missing_ok=True)


if __name__ == "__main__":
    run_main(main)
