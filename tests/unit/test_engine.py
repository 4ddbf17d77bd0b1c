"""The code that all engines' launchers share, as far as it needs no engine; tests/clusters has the rest."""

import itertools
import os

import pytest

from utils.jobs import engine
from utils.jobs.command_line import parse_call
from utils.jobs.engine import MOST_REQUEUES, ArrayRun
from utils.jobs.slurm import Slurm


def array_run(*words):
    return ArrayRun(parse_call("slurm", [*map(str, words), "true"]), Slurm())


def test_arrays_with_other_logs_have_other_scripts(tmp_path):
    """Otherwise one would remove the other's jobs, taking them for those of a killed launcher."""
    logs = ("x.JOB.log", "x.1.JOB.log", "x.10.JOB.log", "x.11.JOB.log", "x0.JOB.log")
    names = [array_run("JOB=1:2", tmp_path / log).name for log in logs]
    assert names == ["jx", "jx.1", "jx.10", "jx.11", "jx0"]


def test_a_job_that_always_asks_to_be_requeued_is_given_up(tmp_path, monkeypatch):
    run, rounds = array_run("--retries", 0, "JOB=1:2", tmp_path / "x.JOB.log"), itertools.count(1)

    def once(jobs):
        assert next(rounds) < 2 * MOST_REQUEUES, "requeued for ever"
        return {job: 99 if job == 2 else 0 for job in jobs}

    monkeypatch.setattr(run, "_run_once", once)
    assert run.run() == {2: f"asked to be run again more than {MOST_REQUEUES} times"}
    assert next(rounds) == MOST_REQUEUES + 2


def programs(folder, monkeypatch, **scripts):
    """Put programs before the system's in PATH."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_submission_waits_for_a_daemon_that_is_away_and_submits_once(tmp_path, monkeypatch):
    """A submission may be accepted although the answer is an error: it is removed by its name before the next one."""
    programs(tmp_path, monkeypatch, scancel=f'echo "$@" >> {tmp_path}/cancelled',
             sbatch=f'echo "$*" >> {tmp_path}/submitted; [ "$(wc -l < {tmp_path}/submitted)" -lt 3 ] || exec echo 7; '
                    'echo "sbatch: error: Unable to contact slurm controller (connect failure)" >&2; exit 1')
    monkeypatch.setattr(engine, "ASK_SECONDS", 0.01)
    run = array_run("JOB=1:2", tmp_path / "x.JOB.log")
    run.folder.mkdir()
    assert run._submit(2) == "7"
    name = run.note.read_text().strip()
    assert (tmp_path / "cancelled").read_text().split() == [f"--name={name}"] * 2
    submitted = (tmp_path / "submitted").read_text().splitlines()
    assert len(submitted) == 3
    assert all(f"--job-name={name} " in line for line in submitted)


def test_an_engine_that_refuses_is_not_asked_again(tmp_path, monkeypatch):
    programs(tmp_path, monkeypatch, sbatch=f"echo + >> {tmp_path}/submitted; echo 'invalid partition' >&2; exit 1")
    run = array_run("JOB=1:2", tmp_path / "x.JOB.log")
    run.folder.mkdir()
    with pytest.raises(OSError, match="invalid partition"):
        run._submit(2)
    assert (tmp_path / "submitted").read_text() == "+\n"


def test_interrupted_while_it_submits_it_removes_the_array_or_leaves_its_name(tmp_path, monkeypatch):
    programs(tmp_path, monkeypatch, scancel=f'echo "$@" >> {tmp_path}/cancelled; [ ! -e {tmp_path}/away ]')
    for away in (False, True):
        run = array_run("JOB=1:2", tmp_path / f"{away}.JOB.log")
        run.folder.mkdir(exist_ok=True)
        monkeypatch.setattr(run, "_until_reached", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run._submit(2)
        name = run.note.read_text().strip()
        if away:
            (tmp_path / "away").touch()
        run.stop()
        assert (tmp_path / "cancelled").read_text().split()[-1] == f"--name={name}"
        assert run.note.exists() == away
