"""Every step, recipe and benchmark answers a wrong call with its usage and status 1, and does nothing else."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*ROOT.glob("steps/*.sh"), *ROOT.glob("local/*.sh"), *ROOT.glob("egs/*/run.sh"),
                  *ROOT.glob("tests/bench/*.sh")])
PROBE = """#!/usr/bin/env bash
# Probe.
# e.g.: probe.sh a
dim=400          # dimension
pipes=false      # run pipes
seed=1           # of what is drawn
lost=0.0         # share that may be lost
name="a b"       # a name
share=0.0        # share of something
nj=2             # jobs
# <in>
. "{root}/utils/parse_options.sh"
echo "$dim|$pipes|$name|$1"
"""


def call(script, *words):
    return subprocess.run(["bash", script, *words], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_wrong_calls_print_the_usage(script):
    for words, reason in ((["--no-such-option", "1"], "unknown option --no-such-option"),
                          (["a"] * 9, "got 9: a a")):
        done = call(script, *words)
        assert done.returncode == 1
        assert "Usage:" in done.stderr
        assert "Options:" in done.stderr
        assert "e.g.:" in done.stderr
        assert reason in done.stderr
    head = re.split(r"^(?:\. |set )", script.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
    for option in re.findall(r"^([a-z]\w*)=", head, re.MULTILINE):
        assert f"  --{option.replace('_', '-')} " in done.stderr, option


@pytest.fixture
def probe(tmp_path):
    path = tmp_path / "probe.sh"
    path.write_text(PROBE.format(root=ROOT))
    return path


def test_options_in_every_form(probe):
    assert call(probe, "x").stdout == "400|false|a b|x\n"
    assert call(probe, "--dim", "08", "--share", "1e-3", "--nj", "3", "MYJOBS").stdout == "8|false|a b|MYJOBS\n"
    assert call(probe, "--dim", "3", "--pipes", "--name=c=d e", "x").stdout == "3|true|c=d e|x\n"
    assert call(probe, "--pipes", "false", "--name", "", "x").stdout == "400|false||x\n"


def test_a_number_of_jobs_may_be_0_if_that_is_its_default(probe):
    """go_on_with passes every option on, with its default if it was not given."""
    probe.write_text(probe.read_text().replace("nj=2 ", "gpu_nj=0 "))
    assert call(probe, "--gpu-nj", "0", "x").returncode == 0


def test_settings_that_are_given_twice_add_up(probe):
    probe.write_text(probe.read_text().replace("seed=1 ", "set=     ").replace('echo "', 'echo "$set|'))
    words = ["--set", "a=1", "--nj", "3", "--set=b=[2, 3]", "--nj", "4", "x"]
    assert call(probe, *words).stdout == "a=1 b=[2, 3]|400|false|a b|x\n"


def test_usage_prints_options_with_their_defaults(probe):
    done = call(probe, "--help")
    assert done.returncode == 0
    assert "--dim" in done.stderr
    assert "dimension (default: 400)" in done.stderr
    assert "a name (default: a b)" in done.stderr


@pytest.mark.parametrize(("words", "message"), [
    (["--dim", "big", "x"], "--dim is 'big', wanted a whole number"),
    (["--seed", "-1", "x"], "--seed is '-1', wanted a whole number from 0 to 999999999"),
    (["--seed", "18446744073709551616", "x"], "--seed is '18446744073709551616', wanted a whole number from 0"),
    (["--lost", "nan", "x"], "--lost is 'nan', wanted a share from 0 to 1"),
    (["--lost", "-0.1", "x"], "--lost is '-0.1', wanted a share from 0 to 1"),
    (["--lost", "1.5", "x"], "--lost is '1.5', wanted a share from 0 to 1"),
    (["--pipes=maybe", "x"], "--pipes is 'maybe', wanted true or false"),
    (["--dim", "-1", "x"], "--dim is '-1', wanted a whole number"),
    (["--dim", "9" * 20, "x"], "wanted a whole number"),
    (["--share", "nan", "x"], "--share is 'nan', wanted a share from 0 to 1"),
    (["--share", "5", "x"], "--share is '5', wanted a share from 0 to 1"),
    (["--nj", "0", "x"], "--nj is 0, wanted at least 1"),
    (["--nj", "-1", "x"], "--nj is '-1', wanted a whole number"),
    (["--name", "a\tb", "x"], "$'a\\tb' has a tab, a line end, or the word JOB"),
    (["x\n"], "has a tab, a line end"),
    (["/a/JOB/b"], "/a/JOB/b has a tab, a line end, or the word JOB, which stands for a job's number; name another"),
    (["--dim"], "--dim needs a value"),
    (["--root=x", "x"], "unknown option --root"),
    (["x", "y"], "wanted 1 arguments"),
    ([], "wanted 1 arguments"),
])
def test_bad_options_stop(probe, words, message):
    done = call(probe, *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("cmd", "threads"), [
    ("run", 0), ("run.pl --mem 4G", 0), ("/kaldi/run.pl", 0), ("slurm", 4), ("sge --config /run", 4), ("queue.pl", 4)])
def test_a_job_gets_all_cores_of_this_machine_but_not_as_many_of_an_engine(tmp_path, cmd, threads):
    script = f"""# Probe.
num_threads=0       # threads
cmd=run             # launcher
# (no arguments)
. "{ROOT}/utils/step.sh"
echo "$num_threads"
"""
    (tmp_path / "probe.sh").write_text(script)
    assert int(call(tmp_path / "probe.sh", "--cmd", cmd).stdout) == (threads or os.sysconf("SC_NPROCESSORS_ONLN"))
    assert call(tmp_path / "probe.sh", "--cmd", cmd, "--num-threads", "3").stdout == "3\n"


RECIPES = sorted(ROOT.glob("egs/*/run.sh"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
@pytest.mark.parametrize(("words", "message"), [
    (["--stage", "9" * 20], "wanted a whole number"), (["--stop-stage", "two"], "wanted a whole number"),
    (["--stage", "9"], "--stage 9 to --stop-stage 8: no stage to run; stages are 0 to 8"),
    (["--stage", "3", "--stop-stage", "2"], "no stage to run"), (["--nj", "-1"], "wanted a whole number"),
    (["--num-processes", "0"], "wanted at least 1"), (["--work", "{0}/a\tb"], "has a tab"),
    (["--work", "{0}/a\nb"], "has a tab, a line end"), (["--work", "{0}/JOB"], "the word JOB")])
def test_recipes_refuse_what_they_cannot_do_and_leave_nothing(recipe, words, message, tmp_path):
    (tmp_path / "work").mkdir()
    words = ["--work", str(tmp_path / "work"), *(word.format(tmp_path) for word in words)]
    done = call(recipe, *words)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == ["work"]


def test_below_a_folder_called_job_the_recipe_says_so(tmp_path):
    (tmp_path / "JOB").mkdir()
    done = subprocess.run(["bash", RECIPES[1], "--work", "w"], cwd=tmp_path / "JOB", capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert f"the folder {tmp_path}/JOB/w has" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "JOB").iterdir())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_recipes_start_through_a_link_and_with_cdpath(recipe, tmp_path):
    """They run up to the first missing thing, whose message names their own folder."""
    (tmp_path / "elsewhere/egs").mkdir(parents=True)
    (tmp_path / "link.sh").symlink_to(recipe)
    environment = {**os.environ, "CDPATH": f"{tmp_path}/elsewhere:{ROOT}"}
    for script, folder in ((tmp_path / "link.sh", tmp_path), (recipe.relative_to(ROOT), ROOT)):
        done = subprocess.run(["bash", script, "--systems", "none", "--work", tmp_path / "work"], cwd=folder, text=True,
                              capture_output=True, check=False, env=environment)
        assert done.returncode == 1
        assert "no system 'none'" in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("name", ["utils", "steps.ivector", "local", "nnet"])
def test_ctrl_c_ends_quietly_during_imports_already(name):
    done = subprocess.run([sys.executable, "-c", f"import {name}; raise KeyboardInterrupt"], cwd=ROOT, text=True,
                          capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
