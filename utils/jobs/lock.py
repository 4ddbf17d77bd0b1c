"""The lock of a work folder, so that two runs do not write the same files: an flock on `<work>/.lock`.

utils/recipe.sh opens the file and keeps it open, and all its child processes on this machine inherit it: the lock is
free as soon as the last of them is gone, however it ended. The file names the holder in JSON and, one per line, the
launchers and jobs to end (SIGTERM) if they outlive their run; it is empty while nobody holds the lock.

Some network disks do not show an flock to other machines. There, utils/recipe.sh touches the file every 20 seconds, and
a holder on another machine that has not done so for STALE_SECONDS counts as dead. If it was only suspended, it finds,
before each step, array of jobs and record, that the file no longer names it, and ends.
"""

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from utils.errors import InputError, run_main

STALE_SECONDS = 120.0
END_SECONDS = 10.0  # how long an ending run waits for its launchers and jobs to end
WORDS = ("host", "boot", "namespace", "started", "since", "run")


def started_at(pid: int) -> str:
    """Return when a process started, in the kernel's clock ticks; "" if it is gone or /proc does not exist."""
    try:
        state, *words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else words[18]
    except (OSError, IndexError, ValueError):
        return ""


def is_alive(pid: int, started: str) -> bool:
    """Return whether a process of this PID namespace still runs, and its number has not been reused."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return started_at(pid) == started


def me(pid: int, run: str) -> dict[str, Any]:
    """Return the lock's entry for a local process: host, running kernel, PID namespace, number, start, time, run."""
    boot, namespace = "", ""
    with contextlib.suppress(OSError):  # no /proc
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace, "pid": pid, "started": started_at(pid),
            "since": time.strftime("%F %T"), "run": run}


def one_kernel(holder: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two processes, perhaps in two containers, run on one kernel, so that an flock binds both."""
    return (holder["boot"] or holder["host"]) == (other["boot"] or other["host"])


def age(path: Path) -> float:
    """Return the seconds since a file was touched, by the clock of its file system."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock.") as now:
        return os.stat(now.name).st_mtime - path.stat().st_mtime


def read_holder(path: Path) -> dict[str, Any] | None:
    """Return the lock's entry, with the listed `processes` (pid, start); None if the lock is free or damaged."""
    try:
        first, *rest = path.read_text(encoding="utf-8").splitlines()
        holder = json.loads(first)
        whole = (type(holder["pid"]) is int and 0 < holder["pid"] < 1 << 31
                 and all(isinstance(holder[name], str) for name in WORDS))
        words = [line.split() for line in rest]
        holder["processes"] = [(int(pid), started) for pid, started in words if 0 < int(pid) < 1 << 31]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return holder if whole else None


def end_processes(processes: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Send SIGTERM to a run's launchers and jobs that are still running; return them. A job leads a process group."""
    found = [(pid, started) for pid, started in processes if pid != os.getpid() and is_alive(pid, started)]
    for pid, _ in found:
        with contextlib.suppress(OSError):
            (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGTERM)
    return found


def has_flock(descriptor: int) -> bool | None:
    """Lock a descriptor's file; return whether it is locked, None if its file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def in_use(path: Path, holder: dict[str, Any] | None) -> InputError:
    """Return the error that names the holder of a lock."""
    who = f"process {holder['pid']} on {holder['host']} since {holder['since']}" if holder else "another run"
    return InputError(f"{path.parent} is in use by {who}; wait for it, or name another folder with --work (if that run "
                      f"is certainly dead: fuser -k {path} on its machine, or rm {path})")


def take(path: Path, descriptor: int, pid: int) -> str:
    """Take the lock for a process and all processes that inherit the descriptor; return the name of the run.

    Processes of a killed run on this machine are ended first. Raises InputError if another run holds the lock.
    """
    mine = me(pid, secrets.token_hex(8))
    started, asked = time.monotonic(), None
    while (locked := has_flock(descriptor)) is False:
        holder = read_holder(path)
        if holder and (not one_kernel(holder, mine) or holder["namespace"] != mine["namespace"]
                       or is_alive(holder["pid"], holder["started"])):
            raise in_use(path, holder)
        if holder is None and time.monotonic() - started > END_SECONDS:  # a run that begins or ends takes less time
            raise in_use(path, None)
        if holder:
            if asked is None:
                asked = []
                print(f"{path}: waiting for the children of process {holder['pid']}, which is gone (to end them: "
                      f"fuser -k {path})", file=sys.stderr)
            asked += end_processes([process for process in holder["processes"] if process not in asked])
        time.sleep(0.1)
    if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
        raise InputError(f"{path}: was removed in the meantime; try again")
    holder = read_holder(path)
    if holder and seems_alive(path, holder, mine, bool(locked)):
        raise in_use(path, holder)
    if path.stat().st_size:
        who = f"process {holder['pid']} on {holder['host']}, which is gone" if holder else "an unknown process"
        print(f"{path}: left by {who}; taken over", file=sys.stderr)
    with path.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(mine) + "\n")
    return mine["run"]


def seems_alive(path: Path, holder: dict[str, Any], mine: dict[str, Any], locked: bool) -> bool:
    """Whether the named holder is alive, although its flock did not block ours (`locked`) or flocks do not work."""
    if one_kernel(holder, mine):
        if locked:
            return False
        if holder["namespace"] == mine["namespace"]:
            return is_alive(holder["pid"], holder["started"])
    return age(path) < STALE_SECONDS


def release(path: Path, run: str) -> None:
    """End the remaining processes of a run, and release its lock."""
    holder = read_holder(path)
    if holder is None or holder["run"] != run:
        return
    left, deadline = end_processes(holder["processes"]), time.monotonic() + END_SECONDS
    while any(is_alive(*process) for process in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.truncate(path, 0)


def require_held() -> None:
    """Raise InputError if this process belongs to a run that is gone or has lost its lock."""
    path, run = Path(os.environ.get("VOX_LOCK", "")), os.environ.get("VOX_RUN")
    if not run:
        return
    holder = read_holder(path)
    if holder is None or holder["run"] != run:
        raise InputError(f"{path}: this run no longer holds the lock and ends here; another run may have taken over")
    if not is_alive(holder["pid"], holder["started"]):
        raise InputError(f"{path}: process {holder['pid']}, which started this step, is gone; run it again")


def join(pid: int) -> None:
    """List a launcher or a job in the lock, to be ended if it outlives its run; without /proc it is only waited for."""
    started = started_at(pid)
    if started and os.environ.get("VOX_RUN"):
        with contextlib.suppress(FileNotFoundError):
            listed = os.open(os.environ["VOX_LOCK"], os.O_WRONLY | os.O_APPEND)
            os.write(listed, f"{pid} {started}\n".encode())
            os.close(listed)


def descriptors() -> tuple[int, ...]:
    """Return the descriptor of the lock, for a job to inherit, if this process belongs to a run."""
    with contextlib.suppress(KeyError, ValueError, OSError):
        number = int(os.environ["VOX_LOCK_FD"])
        if os.path.samestat(os.fstat(number), os.stat(os.environ["VOX_LOCK"])):
            return (number,)
    return ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    taking = actions.add_parser("take", help="take the lock; print the name of the run")
    giving = actions.add_parser("release")
    for action in (taking, giving):
        action.add_argument("lock", type=Path)
    taking.add_argument("descriptor", type=int)
    taking.add_argument("pid", type=int)
    giving.add_argument("run")
    arguments = parser.parse_args()
    if arguments.action == "take":
        print(take(arguments.lock, arguments.descriptor, arguments.pid))
    else:
        release(arguments.lock, arguments.run)


if __name__ == "__main__":
    run_main(main)
