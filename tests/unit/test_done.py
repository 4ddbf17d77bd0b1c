"""Records of finished steps: when they hold, when they are stale and why."""

import json
import subprocess
import sys

import pytest

from utils import done


def call(action, record, *inputs, options=("dim=400",), outputs=None):
    """Run utils.done as the steps do; return exit status and what it said."""
    command = [sys.executable, "-m", "utils.done", action, str(record), "--step", "x.sh"]
    for option in options:
        command += ["--option", option]
    command += ["--inputs", *map(str, inputs)]
    if outputs is not None:
        command += ["--outputs", *map(str, outputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def step(tmp_path):
    """A finished step: an input file, an output folder with a file and its record."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_text("a")
    out.mkdir()
    (out / "model").write_text("model")
    assert call("check", out / ".done", source) == (1, "")
    assert call("mark", out / ".done", source)[0] == 0
    return source, out


def test_nothing_changed(step):
    source, out = step
    status, said = call("check", out / ".done", source)
    assert status == 0
    assert "up to date" in said


def test_changed_input(step):
    source, out = step
    source.write_text("b")
    status, said = call("check", out / ".done", source)
    assert status == 1
    assert "in changed" in said
    assert not (out / ".done").exists()


def test_changed_option(step):
    source, out = step
    status, said = call("check", out / ".done", source, options=("dim=200",))
    assert status == 1
    assert "option dim was '400', is now '200'" in said


def test_lost_or_cut_output(step):
    source, out = step
    (out / "model").write_text("mod")
    assert "changed its size" in call("check", out / ".done", source)[1]
    assert call("mark", out / ".done", source)[0] == 0
    (out / "model").unlink()
    assert "is gone" in call("check", out / ".done", source)[1]


def test_a_change_at_the_start_reaches_the_end(step, tmp_path):
    source, out = step
    end = tmp_path / "end" / ".done"
    assert call("mark", end, out, outputs=())[0] == 0
    assert call("check", end, out)[0] == 0
    source.write_text("b")
    call("mark", out / ".done", source)
    assert call("check", end, out)[0] == 1


def test_damaged_record_is_named(step):
    source, out = step
    (out / ".done").write_text(json.dumps({"digest": 3}))
    status, said = call("check", out / ".done", source)
    assert status == 1
    assert "damaged record" in said


def test_missing_input_is_named(step, tmp_path):
    _, out = step
    status, said = call("check", out / ".done", tmp_path / "nothing")
    assert status == 1
    assert "nothing is missing" in said


def test_what_a_killed_run_left_of_an_output_goes_when_the_step_ends(tmp_path):
    output, left, other = tmp_path / "x.1.ark", tmp_path / ".x.1.ark.abcd_123.tmp", tmp_path / ".y.ark.abcd_123.tmp"
    for path in (output, left, other):
        path.write_text("1")
    done.mark(tmp_path / ".done", done.describe("step", {}, []), [output])
    assert not left.exists()
    assert other.exists()  # of a step that may still run
