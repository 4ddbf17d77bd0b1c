"""The display while jobs run: one live line on a terminal of 80 columns; none in a log."""

import json
import os
import re
import sys

import pytest

from tests.conftest import ROOT
from tests.terminal import drawn, terminal
from utils.jobs.command_line import parse_call
from utils.jobs.live import CLEAR, Live, fitting
from utils.progress import clock, progress

WORK = """import sys, time
from utils.progress import progress
for _ in progress(range(4), 4, "training", "steps", lambda: "epoch 1 of 2, loss 3.210, 95 utt/s" + ", word" * 20):
    time.sleep(float(sys.argv[1]))
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def run(*words):
    return [sys.executable, "-m", "utils.jobs.run", *map(str, words)]


def test_a_terminal_shows_how_far_one_job_is(tmp_path):
    code, said = terminal(run(tmp_path / "train.log", sys.executable, "-c", WORK, "1.2"), ROOT, env=ENVIRONMENT)
    lines = drawn(said)
    assert code == 0 and said.endswith(CLEAR)
    assert all(len(line) < 80 for line in lines)
    expected = r" +train: [123] of 4 steps, 0:0\d left, epoch 1 of 2, loss 3.210, 95 utt/s"
    assert any(re.match(expected, line) for line in lines)
    assert not list(tmp_path.glob("*.progress"))


def test_a_terminal_shows_how_many_jobs_of_an_array_are_over(tmp_path):
    words = ["JOB=1:2", tmp_path / "make_feats.JOB.log", "bash", "-c", "sleep $((3 * (JOB - 1)))"]
    code, said = terminal(run(*words), ROOT, env=ENVIRONMENT)
    assert code == 0 and "         make_feats: 1 of 2 jobs, 0:0" in said


def test_a_message_has_a_line_of_its_own(tmp_path):
    code, said = terminal(run(tmp_path / "x.log", "bash", "-c", "echo busy; sleep 1.5; exit 3"), ROOT, env=ENVIRONMENT)
    assert code == 1 and re.search(r"x: 0:0\d, busy.*\r\x1b\[Kutils.jobs.run: error: 1 of 1 jobs failed", said)


def test_notes_are_added_up_and_damaged_ones_count_for_nothing(tmp_path):
    live = Live(parse_call("run", ["JOB=1:2", str(tmp_path / "x.JOB.log"), "true"]))
    for job in (1, 2):
        note = {"count": 10 * job, "total": 30, "unit": "utt", "left": 60.0 * job, "status": ""}
        live.note_of(job).write_text(json.dumps(note))
    assert live.text() == "         x: 0 of 2 jobs, 30 of 60 utt, 2:00 left"
    live.note_of(2).write_text("{")
    assert live.text() == "         x: 0 of 2 jobs, 0:00"


def test_no_terminal_no_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VOX_PROGRESS", str(tmp_path / "none/x.progress"))  # if it cannot be written, work continues
    assert list(progress(range(3), 3, "x")) == [0, 1, 2]
    live = Live(parse_call("run", [str(tmp_path / "x.log"), "true"]))
    with live:
        assert live.variables(1) == {}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("text", "expected"), [
    ("ab, cd, ef", "ab, cd, ef"), ("ab, cd, efg", "ab, cd"), ("a" * 12, "a" * 10)])
def test_a_line_is_cut_between_its_parts(text, expected):
    assert fitting(text, 10) == expected


def test_times_are_as_people_read_them():
    assert [clock(seconds) for seconds in (0.2, 75, 3723)] == ["0:00", "1:15", "1:02:03"]
