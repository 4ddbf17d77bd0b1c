"""The launchers sge and slurm on real engines of one node, which tests/clusters/start_*.sh start."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("cold")]


def command(engine, *words):
    return [str(ROOT / "utils" / engine), *map(str, words)]


def launch(engine, *words, **options):
    return subprocess.run(command(engine, *words), capture_output=True, text=True, check=False, timeout=120, **options)


def is_empty(engine):
    words = ["qstat"] if engine == "sge" else ["squeue", "-h"]
    return not subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_every_job_runs_with_its_number_and_its_log(engine, tmp_path):
    name = tmp_path / "a 'b' $HOME"
    name.mkdir()
    done = launch(engine, "--mem", "100M", "--num-threads", 2, "JOB=3:5", tmp_path / "log/x.JOB.log", "bash", "-c",
                  "echo job JOB with $OMP_NUM_THREADS; touch \"$0/out.JOB\"", name)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in name.iterdir()) == ["out.3", "out.4", "out.5"]
    log = (tmp_path / "log/x.4.log").read_text().splitlines()
    assert "job 4 with 2" in log
    assert re.search(r" peak_mb=\d+ requested_mb=100$", log[-2])
    assert f"# Running on {os.uname().nodename}" in log
    assert log[-1].startswith("# Ended (code 0) at ")


def test_only_failed_jobs_run_again_and_are_named(engine, tmp_path):
    script = ("echo + >> $0/count.JOB; [ JOB != 2 ] || { echo the reason; exit 7; }; "
              "[ JOB != 3 -o -e $0/seen ] || { touch $0/seen; exit 1; }")
    done = launch(engine, "JOB=1:3", tmp_path / "x.JOB.log", "bash", "-c", script, tmp_path)
    assert done.returncode == 1
    for part in ("1 of 3 jobs failed", "x.2.log", f"job 2 on {os.uname().nodename}: code 7", "| the reason",
                 "job 3 on", "run again"):
        assert part in done.stderr
    assert [len((tmp_path / f"count.{job}").read_text().split()) for job in (1, 2, 3)] == [1, 2, 2]


def test_a_job_that_asks_to_be_requeued_is_and_no_retry_is_counted(engine, tmp_path):
    script = "echo + >> $0/count; [ $(wc -l < $0/count) -ge 3 ] || exit 99"
    done = launch(engine, "--retries", 0, tmp_path / "x.log", "bash", "-c", script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "count").read_text().split() == ["+"] * 3


def test_a_job_that_the_engine_kills_is_noticed(engine, tmp_path):
    """The whole job is killed, its task process included, so that no end marker is written."""
    script = "kill -9 $PPID $$"
    done = launch(engine, "--retries", 0, "JOB=1:2", tmp_path / "x.JOB.log", "bash", "-c",
                  f"[ JOB = 1 ] || {{ {script}; }}", tmp_path)
    assert done.returncode == 1
    assert "1 of 2 jobs failed" in done.stderr
    assert "job 2 on" in done.stderr
    assert "ended without an end marker" in done.stderr


def test_removing_the_job_behind_the_launchers_back_is_noticed(engine, tmp_path):
    launcher = subprocess.Popen(command(engine, "--retries", 0, tmp_path / "x.log", "sleep", 100),
                                stderr=subprocess.PIPE, text=True)
    wait_until(lambda: (tmp_path / "x.log").exists())
    name = (tmp_path / "q/jx.name").read_text().strip()
    remove = ["qdel", name] if engine == "sge" else ["scancel", f"--name={name}"]
    subprocess.run(remove, check=True, capture_output=True)
    said = launcher.communicate(timeout=90)[1]
    assert launcher.returncode == 1
    assert "1 of 1 jobs failed" in said


def test_interrupting_the_launcher_removes_the_jobs(engine, tmp_path):
    launcher = subprocess.Popen(command(engine, "JOB=1:4", tmp_path / "x.JOB.log", "sleep", 100))
    wait_until(lambda: (tmp_path / "x.1.log").exists())
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(30) == 128 + signal.SIGINT
    wait_until(lambda: is_empty(engine))


def test_jobs_of_a_launcher_that_was_killed_are_removed_by_the_next(engine, tmp_path):
    script = "echo $$ >> $0/pids; [ $(wc -l < $0/pids) -gt 1 ] || sleep 100"
    words = (tmp_path / "x.log", "bash", "-c", script, tmp_path)
    launcher = subprocess.Popen(command(engine, *words))
    wait_until(lambda: (tmp_path / "pids").exists())
    launcher.kill()
    launcher.wait()
    done = launch(engine, *words)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: is_empty(engine))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pids").read_text().split()[0]), 0)


def test_dry_run_prints_the_submit_line(engine, tmp_path):
    (tmp_path / "site.conf").write_text(f"command {'qsub' if engine == 'sge' else 'sbatch'} --site\n"
                                        "option mem=* -m $0\noption gpu=0\noption gpu=* -l card=$0 -q fast\n"
                                        "default gpu=0\n")
    done = launch(engine, "--dry-run", "--config", tmp_path / "site.conf", "--mem", "4G", "--gpu", 2, "JOB=1:9",
                  tmp_path / "x.JOB.log", "true")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[1:7] == ["--site", "-l", "card=2", "-q", "fast", "-m"]
    assert words[-1] == str(tmp_path / "q/jx.sh")
    assert not (tmp_path / "q").exists()
    done = launch(engine, "--config", tmp_path / "site.conf", "--time", "1:00:00", tmp_path / "x.log", "true")
    assert done.returncode == 1
    assert "option time=1:00:00" in done.stderr


def test_a_wrong_submission_is_an_error_in_the_engines_words(engine, tmp_path):
    config = (ROOT / f"utils/jobs/{engine}.conf").read_text() + "option queue=*\ndefault queue=x\n"
    for program, option in (("qsub", "-q no_such.q"), ("sbatch", "-p no_such")):
        config = config.replace(f"command {program}", f"command {program} {option}")
    (tmp_path / "site.conf").write_text(config)
    done = launch(engine, "--config", tmp_path / "site.conf", tmp_path / "x.log", "true")
    assert done.returncode == 1
    assert "no_such" in done.stderr or "partition" in done.stderr


def test_a_request_that_no_host_can_meet_ends_in_the_engines_words(engine, tmp_path):
    """Both take it and would let it wait for ever."""
    done = launch(engine, "--retries", 0, "--num-threads", 99, "JOB=1:2", tmp_path / "x.JOB.log", "true")
    assert done.returncode == 1
    assert {"sge": "only offers", "slurm": "(PartitionConfig)"}[engine] in done.stderr
    assert is_empty(engine)


def test_a_job_that_requests_memory_waits_for_a_busy_cluster(engine, tmp_path):
    """Grid Engine's verification, which assumes an empty cluster, knows no free memory: it must not end such jobs."""
    holds = subprocess.Popen(command(engine, "--num-threads", 2, "JOB=1:2", tmp_path / "hold.JOB.log", "sleep", "24"))
    wait_until(lambda: (tmp_path / "hold.1.log").is_file())
    done = launch(engine, "--retries", 0, "--mem", "100M", "--num-threads", 2, tmp_path / "x.log", "true")
    assert holds.wait() == 0
    assert done.returncode == 0, done.stderr


def test_memory_that_no_host_has_ends_in_the_engines_words(engine, tmp_path):
    done = launch(engine, "--retries", 0, "--mem", "900G", tmp_path / "x.log", "true")
    assert done.returncode == 1
    assert {"sge": "mem_total=900G", "slurm": "Memory specification can not be satisfied"}[engine] in done.stderr
    assert is_empty(engine)


@pytest.mark.parametrize("engine", ["slurm"], indirect=True)
def test_a_job_is_told_two_minutes_before_its_time_limit(engine, tmp_path):
    """By default, Slurm tells a job's steps alone, and ours has none."""
    job = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); time.sleep(175)"
    started = time.monotonic()
    done = launch(engine, "--retries", 0, "--time", "00:03:00", tmp_path / "x.log", "python3", "-c", job)
    assert done.returncode == 1 and "code 5" in done.stderr, done.stderr
    assert time.monotonic() - started < 100
