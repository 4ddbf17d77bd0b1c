"""How command-line tools end when their output cannot be written."""

import subprocess
import sys

import pytest

PRINTS = "from utils.errors import run_main; run_main(lambda: print('word\\n' * 100000))"
BREAKS = """import os
from utils.errors import run_main
reader, writer = os.pipe()
os.close(reader)
run_main(lambda: os.write(writer, b"x"))"""


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


def test_a_reader_that_has_had_enough_ends_a_tool_silently(buffering) -> None:
    tool = subprocess.Popen([sys.executable, "-c", PRINTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert tool.stdout.readline() == "word\n"
    tool.stdout.close()
    assert (tool.stderr.read(), tool.wait()) == ("", 141)


def test_a_full_disk_gets_one_line(buffering) -> None:
    short = PRINTS.replace("100000", "1")  # if buffered, it stays so until the tool ends
    with open("/dev/full", "w") as full:
        tool = subprocess.run([sys.executable, "-c", short], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (tool.returncode, tool.stderr) == (1, "-c: error: [Errno 28] No space left on device\n")


def test_another_broken_pipe_is_an_error() -> None:
    tool = subprocess.run([sys.executable, "-c", BREAKS], capture_output=True, text=True)
    assert (tool.returncode, tool.stderr) == (1, "-c: error: [Errno 32] Broken pipe\n")
