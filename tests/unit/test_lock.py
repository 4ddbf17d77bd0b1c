"""The lock of a work folder: one run at a time, and the remains of a dead run."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.errors import InputError
from utils.jobs import lock
from utils.jobs.lock import STALE_SECONDS, WORDS, me, read_holder, release, require_held, started_at, take

ROOT = Path(__file__).resolve().parents[2]
# Takes the lock as run.sh does; processes started after it inherit the lock.
HOLDER = """exec {VOX_LOCK_FD}>> "$1/.lock"
export VOX_LOCK=$1/.lock VOX_LOCK_FD VOX_RUN
VOX_RUN=$(python3 -m utils.jobs.lock take "$VOX_LOCK" "$VOX_LOCK_FD" $$) || exit 1
"""


@contextlib.contextmanager
def opened(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def hold(folder, script="sleep 60", **options):
    """Start a run that holds the lock; return its process once it does."""
    process = subprocess.Popen(["bash", "-c", HOLDER + script, "run.sh", folder], start_new_session=True, **options)
    wait_until(lambda: (read_holder(folder / ".lock") or {}).get("pid") == process.pid)
    return process


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_free(folder):
    """Whether the lock can be taken; killed processes may take a moment to end."""
    try:
        return bool(take_here(folder))
    except InputError:
        return False


def take_here(folder):
    with opened(folder / ".lock") as descriptor:
        return take(folder / ".lock", descriptor, os.getpid())


def write(path, **changes):
    """Write a lock file that no process holds, as left by a run on another machine or by a dead run."""
    holder = me(changes.get("pid", os.getpid()), "r1") | changes
    path.write_text(json.dumps(holder) + "\n")


def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_second_run_is_told_who_holds_the_lock(tmp_path):
    process = hold(tmp_path)
    try:
        with pytest.raises(InputError, match=f"in use by process {process.pid} on {os.uname().nodename} since 2"):
            take_here(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_run_in_another_pid_namespace_holds_the_lock(tmp_path):
    """Like two containers on one machine that share a work folder: each has a process 2 and cannot see the other's."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no PID namespaces can be made here")
    container = subprocess.Popen([*unshare, "bash", "-c", HOLDER + "sleep 60", "run.sh", tmp_path])
    try:
        wait_until(lambda: read_holder(tmp_path / ".lock"))
        holder = read_holder(tmp_path / ".lock")
        assert holder["pid"] < 100 and holder["namespace"] != me(os.getpid(), "")["namespace"]
        with pytest.raises(InputError, match=f"in use by process {holder['pid']} on"):
            take_here(tmp_path)
    finally:
        subprocess.run(["fuser", "-k", tmp_path / ".lock"], capture_output=True, check=False)
        container.kill()
        container.wait()
    wait_until(lambda: is_free(tmp_path))  # as soon as the container is gone, whatever its process's number


@pytest.mark.parametrize("left", ["dead", "another process with its number", "damaged", "another machine, long ago"])
def test_a_lock_that_was_left_over_is_taken(tmp_path, left, capsys):
    path = tmp_path / ".lock"
    if left == "dead":
        write(path, pid=dead_process())
    elif left == "another process with its number":
        write(path, started="1")
    elif left == "damaged":
        path.write_text("{")
    else:
        write(path, host="elsewhere", boot="another")
        os.utime(path, (time.time() - STALE_SECONDS - 5,) * 2)
    run = take_here(tmp_path)
    assert read_holder(path)["run"] == run
    assert "taken over" in capsys.readouterr().err


def test_a_lock_of_another_machine_that_is_renewed_holds(tmp_path):
    """If neither machine sees the other's flock."""
    write(tmp_path / ".lock", host="elsewhere", boot="another", pid=1)
    with pytest.raises(InputError, match="process 1 on elsewhere"):
        take_here(tmp_path)


@pytest.mark.parametrize("what", ["alive", "dead", "in another namespace"])
def test_without_flock_the_lock_says_who_holds_it(tmp_path, monkeypatch, what):
    """On a file system without locks."""
    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(38, "not implemented")))
    write(tmp_path / ".lock", **{"alive": {}, "dead": {"pid": dead_process()}}.get(what, {"namespace": "pid:[1]"}))
    if what == "dead":
        assert take_here(tmp_path)
    else:
        with pytest.raises(InputError, match="in use by process"):
            take_here(tmp_path)


def test_what_a_killed_run_left_behind_is_ended_before_the_next_begins(tmp_path, capsys):
    """A launcher with its job, and a tool that continues on its own for a while."""
    job = 'sleep 60; touch "$0/written"'
    process = hold(tmp_path, f"""sleep 4 &
python3 -m utils.jobs.run "$1/x.log" bash -c '{job}' "$1" & wait""", stderr=subprocess.DEVNULL)
    wait_until(lambda: len((read_holder(tmp_path / ".lock") or {"processes": []})["processes"]) == 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (launcher, _), (job, _) = read_holder(tmp_path / ".lock")["processes"]
    began = time.monotonic()
    run = take_here(tmp_path)
    assert time.monotonic() - began < 15
    assert not started_at(launcher) and not started_at(job) and not (tmp_path / "written").exists()
    assert read_holder(tmp_path / ".lock")["run"] == run
    assert f"waiting for the children of process {process.pid}, which is gone" in capsys.readouterr().err


def test_a_job_whose_launcher_was_killed_too_is_ended(tmp_path):
    process = hold(tmp_path, 'python3 -m utils.jobs.run "$1/x.log" sleep 60', stderr=subprocess.DEVNULL)
    wait_until(lambda: len((read_holder(tmp_path / ".lock") or {"processes": []})["processes"]) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    job = read_holder(tmp_path / ".lock")["processes"][1][0]
    assert started_at(job)
    take_here(tmp_path)
    assert not started_at(job)


def test_giving_back_ends_what_is_left_and_frees_the_lock(tmp_path):
    job = subprocess.Popen(["sleep", "60"], start_new_session=True)
    write(tmp_path / ".lock")
    with (tmp_path / ".lock").open("a") as stream:
        stream.write(f"{job.pid} {started_at(job.pid)}\n{os.getpid()} another\n")
    release(tmp_path / ".lock", "r2")
    assert job.poll() is None  # it belongs to another run
    release(tmp_path / ".lock", "r1")
    assert job.wait(1) == -signal.SIGTERM
    assert (tmp_path / ".lock").read_text() == ""


STEP = """#!/usr/bin/env bash
# Probe.
# <out>
. "{root}/utils/step.sh"
[ "$1" = mark ] || {{ run "$1/x.log" touch "$1/made"; exit; }}
"""


def test_a_run_that_lost_its_lock_notices(tmp_path, monkeypatch):
    """It stalled, as on a suspended machine, and another run took over."""
    (tmp_path / "probe.sh").write_text(STEP.format(root=ROOT))
    monkeypatch.setenv("VOX_LOCK", str(tmp_path / ".lock"))
    monkeypatch.setenv("VOX_RUN", "r1")

    def step():
        return subprocess.run(["bash", tmp_path / "probe.sh", tmp_path], capture_output=True, text=True, check=False)

    write(tmp_path / ".lock")
    require_held()
    assert step().returncode == 0 and (tmp_path / "made").exists()
    (tmp_path / "made").unlink()
    for change in (lambda: write(tmp_path / ".lock", run="r2"), lambda: (tmp_path / ".lock").unlink()):
        change()
        with pytest.raises(InputError, match="no longer holds the lock"):
            require_held()
        done = step()
        assert done.returncode == 1 and done.stderr.count("no longer holds the lock") == 1
        assert not (tmp_path / "made").exists()
    write(tmp_path / ".lock", pid=dead_process())
    with pytest.raises(InputError, match="is gone; run it again"):
        require_held()


def test_a_record_is_not_written_without_the_lock(tmp_path):
    mark = f'. "{ROOT}/utils/step.sh"; VOX_RUN=r1 VOX_LOCK="$1/.lock"; mark_done "$1/.done"'
    (tmp_path / "probe.sh").write_text("# <out>\n" + mark)
    write(tmp_path / ".lock", run="r2")
    done = subprocess.run(["bash", tmp_path / "probe.sh", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no longer holds the lock" in done.stderr
    assert not (tmp_path / ".done").exists()


@pytest.mark.parametrize("wrong", [{"pid": "12"}, {"pid": 0}, {"pid": -1}, {"pid": True}, {"pid": 1 << 40}, {"host": 1},
                                   {"run": None}])
def test_a_lock_with_wrong_values_is_a_damaged_one(tmp_path, wrong):
    whole = dict.fromkeys(WORDS, "") | {"pid": 1}
    (tmp_path / ".lock").write_text(json.dumps(whole) + "\n3 45\n")
    assert read_holder(tmp_path / ".lock") == whole | {"processes": [(3, "45")]}
    (tmp_path / ".lock").write_text(json.dumps(whole | wrong))
    assert read_holder(tmp_path / ".lock") is None
    (tmp_path / ".lock").write_text(json.dumps(whole) + "\nhalf a li")
    assert read_holder(tmp_path / ".lock") is None


def test_of_many_that_begin_at_once_one_takes_the_lock(tmp_path):
    write(tmp_path / ".lock", pid=dead_process())
    program = ("import os, sys, time; from pathlib import Path; from utils.jobs.lock import take\n"
               "path = Path(sys.argv[1]); take(path, os.open(path, os.O_WRONLY), os.getpid()); time.sleep(8)")
    many = [subprocess.Popen([sys.executable, "-c", program, tmp_path / ".lock"], stderr=subprocess.DEVNULL)
            for _ in range(6)]
    assert sorted(one.wait() for one in many) == [0, 1, 1, 1, 1, 1]
