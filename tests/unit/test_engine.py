"""What all engines' launchers share and no engine is needed to show; tests/clusters has the rest."""

import itertools

from utils.launch.command_line import parse_call
from utils.launch.engine import MOST_REQUEUES, ArrayRun
from utils.launch.slurm import Slurm


def array_run(*words):
    return ArrayRun(parse_call("slurm", [*map(str, words), "true"]), Slurm())


def test_arrays_with_other_logs_have_other_scripts(tmp_path):
    """Else one would remove the other's jobs, as those of a launcher that was killed."""
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
