"""The local launcher: Kaldi's command line, logs, failures, interruption."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.faults.faults import job_deaths
from utils.errors import InputError
from utils.jobs import run
from utils.jobs.command_line import parse_call

ROOT = Path(__file__).resolve().parents[2]


def launch(*words, **options):
    command = [sys.executable, "-m", "utils.jobs.run", *map(str, words)]
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


def test_killed_jobs_run_again_and_no_others(tmp_path):
    job_deaths(SimpleNamespace(folder=tmp_path))


def test_at_most_so_many_at_a_time(tmp_path):
    script = "echo + >> $0; sleep 0.3; echo - >> $0"
    assert launch("--max-jobs-run", 1, "JOB=1:3", tmp_path / "x.JOB.log", "bash", "-c", script,
                  tmp_path / "order").returncode == 0
    assert (tmp_path / "order").read_text().split() == ["+", "-"] * 3


GPU_JOB = """echo "+ $CUDA_VISIBLE_DEVICES" >> $0; sleep 0.3; echo "- $CUDA_VISIBLE_DEVICES" >> $0"""


@pytest.mark.parametrize(("visible", "each", "given"), [("0,1", 1, {"0", "1"}), ("3", 1, {"3"}), ("0,1,2", 2, {"0,1"}),
                                                        ("0,1,-1,2", 1, {"0", "1"}), ("", 1, {""})])
def test_jobs_get_gpus_of_their_own_and_no_more_run_at_once(tmp_path, visible, each, given):
    done = launch("--gpu", each, "JOB=1:4", tmp_path / "x.JOB.log", "bash", "-c", GPU_JOB, tmp_path / "order",
                  env={**os.environ, "CUDA_VISIBLE_DEVICES": visible})
    assert done.returncode == 0, done.stderr
    busy, seen = set(), set()
    for line in (tmp_path / "order").read_text().splitlines():
        sign, gpus = line[0], line[2:]
        assert (gpus in busy) == (sign == "-"), "two jobs on one GPU"
        (busy.add if sign == "+" else busy.remove)(gpus)
        seen.add(gpus)
    assert seen <= given and not busy


def test_more_gpus_than_there_are_is_one_line(tmp_path):
    done = launch("--gpu", 3, tmp_path / "x.log", "true", env={**os.environ, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert done.returncode == 1
    assert "--gpu 3: only 2 GPUs are available (0, 1); ask for fewer" in done.stderr


def test_gpus_are_counted_by_nvidia_smi_and_jobs_without_keep_the_variable(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho GPU-a; echo GPU-b\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert run.visible_gpus() == ["GPU-a", "GPU-b"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert launch(tmp_path / "x.log", "bash", "-c", "echo has $CUDA_VISIBLE_DEVICES").returncode == 0
    assert "has 5,6\n" in (tmp_path / "x.log").read_text()


@pytest.mark.parametrize("step", [path.name for path in sorted((ROOT / "steps").glob("*.sh"))
                                  if re.search("^device=", path.read_text(), re.MULTILINE)])
def test_every_step_asks_for_a_gpu_when_it_runs_on_one(step):
    calls = re.findall(r"^ *\$cmd (.*)", (ROOT / "steps" / step).read_text(), re.MULTILINE)
    assert calls and all('"${gpu[@]}"' in call or '"${resources[@]}"' in call for call in calls), calls


def test_the_number_goes_where_the_variable_is_a_word(tmp_path):
    done = launch("JOB=1:2", tmp_path / "MYJOBS/x.JOB.log", "echo", tmp_path / "MYJOBS/JOB_2/JOBS", "JOB", "a.JOB.b",
                  "2JOB", "JOB=JOB", "JOB/JOB")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/MYJOBS/JOB_2/JOBS 2 a.2.b 2JOB 2=2 2/2\n" in (tmp_path / "MYJOBS/x.2.log").read_text()


def test_interrupting_ends_the_jobs(tmp_path):
    job = ["bash", "-c", f"echo $$ > {tmp_path}/pid; sleep 60 & wait"]
    process = subprocess.Popen([sys.executable, "-m", "utils.jobs.run", str(tmp_path / "x.log"), *job])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(("words", "message"), [
    (["--memory", "4G", "x.log", "ls"], "unknown option --memory"),
    (["--mem"], "--mem needs a value"),
    (["JOB=3:1", "x.JOB.log", "ls"], "empty job range"),
    (["JOB=1:2", "x.log", "ls"], "must contain JOB"),
    (["JOB=1:2", "JOBS.log", "ls"], "must contain JOB"),
    (["x.log"], "wanted"),
])
def test_wrong_calls(words, message):
    with pytest.raises(InputError, match=message):
        parse_call("run", words)
