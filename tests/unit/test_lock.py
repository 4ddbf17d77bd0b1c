"""The lock of a work folder: one run at a time, and what a dead run left."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from utils import lock
from utils.errors import InputError
from utils.lock import STALE_SECONDS, left_behind, started_at, take


def holder(path, **changes):
    """Write a lock that some process holds."""
    pid = changes.get("pid", os.getpid())
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": pid, "started": started_at(pid),
                                "since": "2026-01-01 00:00:00", "run": "r1", **changes}))


def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_second_run_is_told_who_holds_the_lock(tmp_path):
    take(tmp_path, os.getpid(), "r1")
    with pytest.raises(InputError, match=f"in use by process {os.getpid()} on {socket.gethostname()} since 2"):
        take(tmp_path, os.getpid(), "r2")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".lock.taking"]


@pytest.mark.parametrize("left", ["dead", "another process with its number", "damaged", "other host, long ago"])
def test_a_lock_that_was_left_over_is_taken(tmp_path, left, capsys):
    path = tmp_path / ".lock"
    if left == "dead":
        holder(path, pid=dead_process())
    elif left == "another process with its number":
        holder(path, started="1")
    elif left == "damaged":
        path.write_text("{")
    else:
        holder(path, host="elsewhere")
        os.utime(path, (time.time() - STALE_SECONDS - 5,) * 2)
    take(tmp_path, os.getpid(), "r2")
    assert json.loads(path.read_text())["run"] == "r2"
    assert "taken over" in capsys.readouterr().err


def test_a_lock_of_another_host_that_is_renewed_holds(tmp_path):
    holder(tmp_path / ".lock", host="elsewhere", pid=1)
    with pytest.raises(InputError, match="process 1 on elsewhere"):
        take(tmp_path, os.getpid(), "r2")


def test_what_a_dead_run_left_behind_is_ended(tmp_path, capsys):
    holder(tmp_path / ".lock", pid=dead_process(), run="r-dead")
    deaf = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(60)"
    orphan, other = (subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "VOX_RUN": run})
                     for program, run in (("import time; time.sleep(60)", "r-dead"), (deaf, "r-dead-not")))
    while not left_behind("r-dead-not") or not left_behind("r-dead"):
        time.sleep(0.01)
    take(tmp_path, os.getpid(), "r2")
    assert orphan.wait(1) == -15
    assert other.poll() is None
    other.kill()
    other.wait()
    assert "1 processes that a run left behind are ended" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"pid": "12"}, {"pid": 0}, {"pid": -1}, {"pid": True}, {"host": 1}, {"run": None}])
def test_a_lock_with_wrong_values_is_a_damaged_one(tmp_path, wrong):
    whole = {"host": "h", "pid": 1, "started": "", "since": "", "run": ""}
    (tmp_path / ".lock").write_text(json.dumps(whole))
    assert lock.read_holder(tmp_path / ".lock") == whole
    (tmp_path / ".lock").write_text(json.dumps(whole | wrong))
    assert lock.read_holder(tmp_path / ".lock") is None


def test_of_two_that_find_the_same_lock_left_over_one_takes_it(tmp_path, monkeypatch):
    (tmp_path / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 - 1, "started": "1",
                                                "since": "", "run": "left-over"}))
    others = []

    def meanwhile(_run):  # the first has judged the lock, and has not removed it
        others.append(subprocess.Popen([sys.executable, "-m", "utils.lock", "take", str(tmp_path), "1", "other"]))
        with contextlib.suppress(subprocess.TimeoutExpired):
            others[0].wait(3)

    monkeypatch.setattr(lock, "end_left_behind", meanwhile)
    lock.take(tmp_path, os.getpid(), "first")
    assert others[0].wait(30) == 1
    assert lock.read_holder(tmp_path / ".lock")["run"] == "first"
