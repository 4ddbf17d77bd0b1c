"""The local launcher: Kaldi's command line, logs, failures, interruption."""

import os
import signal
import subprocess
import sys
import time

import pytest

from utils.errors import InputError
from utils.launch.command_line import parse_call


def launch(*words, **options):
    command = [sys.executable, "-m", "utils.launch.run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_every_job_runs_with_its_number_and_its_log(tmp_path):
    done = launch("--mem", "1G", "--num-threads", 1, "JOB=1:3", tmp_path / "log/x.JOB.log",
                  "bash", "-c", "echo job JOB with $OMP_NUM_THREADS; touch $0/out.JOB", tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.glob("out.*")) == ["out.1", "out.2", "out.3"]
    log = (tmp_path / "log/x.2.log").read_text().splitlines()
    assert log[0].startswith("# bash -c")
    assert "job 2 with 1" in log
    assert log[-1].startswith("# Ended (code 0) at ")


def test_a_failed_job_is_named_with_its_log_and_the_others_finish(tmp_path):
    done = launch("JOB=1:3", tmp_path / "x.JOB.log", "bash", "-c",
                  "[ JOB != 2 ] || { echo the reason; exit 7; }; touch $0/out.JOB", tmp_path)
    assert done.returncode == 1
    assert "1 of 3 jobs failed" in done.stderr
    assert "x.2.log" in done.stderr
    assert "the reason" in done.stderr
    assert "(code 7)" in done.stderr
    assert sorted(p.name for p in tmp_path.glob("out.*")) == ["out.1", "out.3"]


def test_words_are_not_read_by_a_shell(tmp_path):
    name = tmp_path / "a b; touch c 'd'"
    done = launch(tmp_path / "x.log", "touch", name)
    assert done.returncode == 0
    assert name.exists()


def test_a_killed_job_and_a_missing_program_are_failures(tmp_path):
    assert "(code 137)" in launch(tmp_path / "x.log", "bash", "-c", "kill -9 $$").stderr
    assert "(code 127)" in launch(tmp_path / "x.log", "no-such-program").stderr


def test_at_most_so_many_at_a_time(tmp_path):
    script = "echo + >> $0; sleep 0.3; echo - >> $0"
    assert launch("--max-jobs-run", 1, "JOB=1:3", tmp_path / "x.JOB.log", "bash", "-c", script,
                  tmp_path / "order").returncode == 0
    assert (tmp_path / "order").read_text().split() == ["+", "-"] * 3


def test_interrupting_ends_the_jobs(tmp_path):
    job = ["bash", "-c", f"echo $$ > {tmp_path}/pid; sleep 60 & wait"]
    process = subprocess.Popen([sys.executable, "-m", "utils.launch.run", str(tmp_path / "x.log"), *job])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(("words", "message"), [
    (["--memory", "4G", "x.log", "ls"], "unknown option --memory"),
    (["--mem"], "--mem wants a value"),
    (["JOB=3:1", "x.JOB.log", "ls"], "empty job range"),
    (["JOB=1:2", "x.log", "ls"], "must hold JOB"),
    (["x.log"], "wanted"),
])
def test_wrong_calls(words, message):
    with pytest.raises(InputError, match=message):
        parse_call("run", words)
